package protocol

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Each payload is right but for one field.
func TestParseMessageRefuses(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	const (
		maxInt64 = "9223372036854775807"
		leaf     = `"leaves":[{"name":"","state":"receiving","offset":0}]`
		window   = `"window":8388608`
	)
	tests := []struct {
		name    string
		kind    Kind
		payload string
		want    Code
	}{
		{"no versions", KindHello, `{}`, CodeProtocol},
		{"empty versions", KindHello, `{"versions":[]}`, CodeProtocol},
		{"17 versions", KindHello, `{"versions":[1` + strings.Repeat(",1", 16) + `]}`, CodeProtocol},
		{"negative streams", KindHello, `{"versions":[1],"max_streams":-1}`, CodeProtocol},
		{"endless agent", KindHello, `{"versions":[1],"agent":"` + long(maxTextLen+1) + `"}`, CodeProtocol},

		{"no name", KindOffer, `{}`, CodeName},
		{"name outside", KindOffer, `{"name":"../x"}`, CodeName},
		{"id is a path", KindOffer, `{"name":"f","id":"a/b"}`, CodeProtocol},
		{"id is a windows path", KindOffer, `{"name":"f","id":"a\\b"}`, CodeProtocol},
		{"id with NUL", KindOffer, `{"name":"f","id":"a\u0000b"}`, CodeProtocol},
		{"long id", KindOffer, `{"name":"f","id":"` + long(maxIDLen+1) + `"}`, CodeProtocol},
		{"long fingerprint", KindOffer, `{"name":"f","fingerprint":"` + long(maxIDLen+1) + `"}`, CodeProtocol},
		{"negative attempt", KindOffer, `{"name":"f","attempt":-1}`, CodeProtocol},
		{"negative redial", KindOffer, `{"name":"f","redials":[0,-1]}`, CodeProtocol},
		{"size -2", KindOffer, `{"name":"f","size":-2}`, CodeSize},
		{"size beyond offsets", KindOffer, `{"name":"f","size":` + maxInt64 + `}`, CodeSize},
		{"size beyond int64", KindOffer, `{"name":"f","size":` + maxInt64 + `0}`, CodeProtocol},
		{"size in text", KindOffer, `{"name":"f","size":"5"}`, CodeProtocol},
		{"negative mode", KindOffer, `{"name":"f","mode":-1}`, CodeProtocol},
		{"mtime", KindOffer, `{"name":"f","mtime":"yesterday"}`, CodeProtocol},
		{"negative hops", KindOffer, `{"name":"f","hops":-1}`, CodeLoop},
		{"too many hops", KindOffer, `{"name":"f","hops":33}`, CodeLoop},
		{"unknown digest", KindOffer, `{"name":"f","digest":"md5"}`, CodeUnsupported},
		{"unknown codec", KindOffer, `{"name":"f","codec":"zstd"}`, CodeUnsupported},
		{"unknown policy", KindOffer, `{"name":"f","policy":"most"}`, CodeProtocol},
		{"policy of none", KindOffer, `{"name":"f","policy":"0"}`, CodeProtocol},

		{"no window", KindAccept, `{"max_chunk":1,` + leaf + `}`, CodeProtocol},
		{"small window", KindAccept, `{"window":65535,"max_chunk":1,` + leaf + `}`, CodeProtocol},
		{"large window", KindAccept, `{"window":1073741825,"max_chunk":1,` + leaf + `}`, CodeProtocol},
		{"no max_chunk", KindAccept, `{` + window + `,` + leaf + `}`, CodeProtocol},
		{"max_chunk over a quarter of the window", KindAccept, `{` + window + `,"max_chunk":2097153,` + leaf + `}`, CodeProtocol},
		{"max_chunk over the limit", KindAccept, `{"window":1073741824,"max_chunk":4194305,` + leaf + `}`, CodeProtocol},
		{"negative offset", KindAccept, `{"offset":-1,` + window + `,"max_chunk":1,` + leaf + `}`, CodeProtocol},
		{"offset beyond offsets", KindAccept, `{"offset":` + maxInt64 + `,` + window + `,"max_chunk":1,` + leaf + `}`, CodeProtocol},
		{"no leaves", KindAccept, `{` + window + `,"max_chunk":1}`, CodeProtocol},
		{"leaf without state", KindAccept, `{` + window + `,"max_chunk":1,"leaves":[{"name":"a"}]}`, CodeProtocol},

		{"unknown leaf state", KindReady, `{"leaves":[{"name":"a","state":"happy"}]}`, CodeProtocol},
		{"long leaf name", KindReady, `{"leaves":[{"name":"` + long(maxLeafName+1) + `","state":"ready"}]}`, CodeProtocol},
		{"negative leaf offset", KindProgress, `{"leaves":[{"name":"a","state":"ready","offset":-1}]}`, CodeProtocol},
		{"long leaf text", KindProgress, `{"leaves":[{"name":"a","state":"failed","text":"` + long(maxTextLen+1) + `"}]}`, CodeProtocol},

		{"no code", KindReject, `{"text":"no"}`, CodeProtocol},
		{"long text", KindReject, `{"code":"io","text":"` + long(maxTextLen+1) + `"}`, CodeProtocol},
		{"bad leaf in reject", KindReject, `{"code":"io","leaves":[{"state":"?"}]}`, CodeProtocol},
		{"long abort", KindAbort, `{"text":"` + long(maxTextLen+1) + `"}`, CodeProtocol},

		{"no size", KindFinish, `{}`, CodeSize},
		{"negative size", KindFinish, `{"size":-1}`, CodeSize},
		{"size beyond offsets in finish", KindFinish, `{"size":` + maxInt64 + `}`, CodeSize},
		{"digest without algorithm", KindFinish, `{"size":0,"digest":"99aa06d3014798d86001c324468d497f"}`, CodeProtocol},
		{"short digest", KindFinish, `{"size":0,"digest":"sha256:abcd"}`, CodeProtocol},
		{"digest not hex", KindFinish, `{"size":0,"digest":"xxh128:zz` + long(30) + `"}`, CodeProtocol},
		{"digest of another length", KindFinish, `{"size":0,"digest":"sha256:99aa06d3014798d86001c324468d497f"}`, CodeProtocol},
		{"digest by an unknown algorithm", KindFinish, `{"size":0,"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"}`, CodeProtocol},
		{"digest none", KindFinish, `{"size":0,"digest":"none:"}`, CodeProtocol},

		{"receipt without status", KindReceipt, `{"bytes":1}`, CodeProtocol},
		{"receipt that is not final", KindReceipt, `{"status":"ready"}`, CodeProtocol},
		{"receipt with unknown status", KindReceipt, `{"status":"done"}`, CodeProtocol},
		{"negative bytes", KindReceipt, `{"status":"published","bytes":-1}`, CodeProtocol},
		{"negative resumed_from", KindReceipt, `{"status":"published","resumed_from":-1}`, CodeProtocol},
		{"bad digest in receipt", KindReceipt, `{"status":"published","digest":"x"}`, CodeProtocol},
		{"long location", KindReceipt, `{"status":"published","location":"` + long(maxTextLen+1) + `"}`, CodeProtocol},

		{"query too deep", KindQuery, `{"hops":33}`, CodeLoop},
		{"query negative", KindQuery, `{"hops":-1}`, CodeLoop},
		{"long node", KindStatus, `{"node":"` + long(maxTextLen+1) + `"}`, CodeProtocol},
		{"long error", KindStatus, `{"node":"","error":"` + long(maxTextLen+1) + `"}`, CodeProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.kind.String()+" "+tt.name, func(t *testing.T) {
			m, err := ParseMessage(tt.kind, []byte(tt.payload))
			assert.Nil(t, m)
			if assert.Error(t, err) {
				assert.Equal(t, tt.want, AsError(err).Code, "%v", err)
				assert.ErrorContains(t, err, tt.kind.String(), "the error does not say which message")
			}
		})
	}
}

// Whatever a peer would refuse is not sent in the first place.
func TestAppendMessageRefuses(t *testing.T) {
	leaves := []Leaf{{State: LeafReceiving}}
	tests := map[string]Message{
		"hello without versions":   &Hello{},
		"offer with a bad name":    &Offer{Name: "/etc/passwd"},
		"offer with a bad size":    &Offer{Name: "f", Size: -2},
		"offer with a bad digest":  &Offer{Name: "f", Digest: "md5"},
		"offer with unknown codec": &Offer{Name: "f", Codec: 7},
		"accept without leaves":    &Accept{Window: 1 << 20, MaxChunk: 1},
		"accept without a window":  &Accept{MaxChunk: 1, Leaves: leaves},
		"accept with large chunks": &Accept{Window: 1 << 20, MaxChunk: 1<<18 + 1, Leaves: leaves},
		"reject without a code":    &Reject{Text: "no"},
		"reject in bad UTF-8":      &Reject{Code: CodeIO, Text: "\xff"},
		"progress without a state": &Progress{Leaves: []Leaf{{Name: "a"}}},
		"finish before zero":       &Finish{Size: -1},
		"finish with a bad digest": &Finish{Digest: "sha256:"},
		"ready with a long name":   &Ready{Leaves: []Leaf{{Name: strings.Repeat("n", maxLeafName+1), State: LeafReady}}},
		"abort in bad UTF-8":       &Abort{Text: "\xc3"},
		"receipt without a status": &Receipt{},
		"query too deep":           &Query{Hops: maxHops + 1},
		"status in bad UTF-8":      &Status{Sink: "\xff"},
	}
	for name, m := range tests {
		t.Run(name, func(t *testing.T) {
			raw, err := AppendMessage(nil, m)
			assert.Nil(t, raw)
			assert.ErrorContains(t, err, "own "+m.Kind().String())
		})
	}
}

func TestLimitsAreInclusive(t *testing.T) {
	good := []Message{
		&Hello{Versions: make([]int, 16)},
		&Offer{Name: "f", Size: maxOffset, ID: strings.Repeat("i", maxIDLen), Hops: maxHops},
		&Accept{Window: minWindow, MaxChunk: minWindow / 4, Leaves: []Leaf{{State: LeafWaiting}}},
		&Accept{Window: MaxWindow, MaxChunk: MaxChunk, Offset: maxOffset, Leaves: []Leaf{{State: LeafWaiting}}},
		&Reject{Code: CodeIO, Text: strings.Repeat("t", maxTextLen)},
		&Ready{Leaves: []Leaf{{Name: strings.Repeat("n", maxLeafName), State: LeafUnchanged}}},
		&Finish{Size: maxOffset, Digest: xxh128Empty},
	}
	for i, m := range good {
		t.Run(strconv.Itoa(i)+" "+m.Kind().String(), func(t *testing.T) {
			_, err := AppendMessage(nil, m)
			assert.NoError(t, err)
		})
	}
}
