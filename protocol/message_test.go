package protocol

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	sha256Hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	xxh128Empty = "xxh128:99aa06d3014798d86001c324468d497f"
)

// sampleMessages has a message of every kind with all its fields set, so that
// a field that gets lost on the way is noticed.
func sampleMessages() []Message {
	leaves := []Leaf{
		{Name: "", State: LeafReceiving, Offset: 1 << 40},
		{Name: "eu-1/reader-3", State: LeafFailed, Offset: 7, Code: CodeNoSpace, Text: "disk full: größer als 1 TiB"},
	}
	return []Message{
		&Hello{Versions: []int{1, 2}, Agent: "sbcast 1.0", MaxStreams: 128},
		&Offer{
			ID: "0190b2c4-7d7e-7c3a-8b1e-0123456789ab", Attempt: 2, Redials: []int{1, 0}, Name: "releases/app.tar.zst", Size: 1 << 50, Mode: 0o640,
			MTime: time.Date(2024, 5, 1, 12, 30, 0, 123456789, time.UTC), Fingerprint: "dev:42:7", Digest: DigestSHA256,
			Codec: CodecLZ4, Policy: Policy{3}, Force: true, Preserve: true, Hops: 5,
		},
		&Accept{Offset: 99, Window: 8 << 20, MaxChunk: 2 << 20, Leaves: leaves},
		&Reject{Code: CodeExists, Text: "exists and is different", Leaf: "reader-1", Leaves: leaves},
		&Progress{Leaves: leaves},
		&Leaves{Leaves: leaves},
		&Finish{Size: 5, Digest: sha256Hello},
		&Ready{Leaves: leaves},
		&Commit{},
		&Abort{Text: "interrupted"},
		&Receipt{
			Leaf: "eu-1/reader-3", Status: LeafPublished, Bytes: 5, Digest: sha256Hello, Location: "/srv/files/app.tar.zst",
			ResumedFrom: 3, Seconds: 1.25, Code: CodeIO, Text: "a note",
		},
		&Query{Hops: 3},
		&Status{
			Node: "eu-1", Agent: "sbcast 1.0", Sink: "dir:/srv", Uptime: 3600.5, Sessions: 2, Error: "one",
			Transfers: []TransferStatus{{ID: "x", Name: "n", Size: -1, Offset: 9, Phase: string(PhaseReceiving), Seconds: 2}},
		},
	}
}

func TestMessageRoundTrip(t *testing.T) {
	for _, m := range sampleMessages() {
		t.Run(m.Kind().String(), func(t *testing.T) {
			raw, err := AppendMessage([]byte("before"), m)
			require.NoError(t, err)
			require.Equal(t, "before", string(raw[:6]), "AppendMessage does not append")
			f := readFrame(t, raw[6:])
			assert.Equal(t, m.Kind(), f.Kind)
			got, err := ParseMessage(f.Kind, f.Payload)
			require.NoError(t, err)
			assert.Equal(t, m, got)
		})
	}
}

// Only what a receiver may miss is skippable: everything else is a promise.
func TestOnlyProgressIsSkippable(t *testing.T) {
	for _, m := range sampleMessages() {
		raw, err := AppendMessage(nil, m)
		require.NoError(t, err)
		assert.Equal(t, m.Kind() == KindProgress, readFrame(t, raw).Flags&FlagSkip != 0, "%s", m.Kind())
	}
}

func TestMessageDefaults(t *testing.T) {
	m, err := ParseMessage(KindOffer, []byte(`{"name":"f"}`))
	require.NoError(t, err)
	assert.Equal(t, &Offer{Name: "f", Size: -1, Digest: DigestNone, Hops: defaultHops}, m)

	m, err = ParseMessage(KindQuery, nil)
	require.NoError(t, err)
	assert.Equal(t, &Query{Hops: defaultHops}, m)

	m, err = ParseMessage(KindCommit, nil)
	require.NoError(t, err)
	assert.Equal(t, &Commit{}, m)

	m, err = ParseMessage(KindFinish, []byte(`{"size":0}`))
	require.NoError(t, err)
	assert.Equal(t, &Finish{}, m)
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	m, err := ParseMessage(KindOffer, []byte(`{"name":"f","size":3,"priority":{"level":[1,2]},"x":null}`))
	require.NoError(t, err)
	assert.Equal(t, int64(3), m.(*Offer).Size)
}

func TestParseMessageRefusesOtherKinds(t *testing.T) {
	for _, kind := range []Kind{KindChunk, KindAck, KindLimit, KindPing, KindPong} {
		_, err := ParseMessage(kind, []byte("{}"))
		assert.True(t, HasCode(err, CodeInternal), "%s: %v", kind, err)
	}
	_, err := ParseMessage(99, []byte("{}"))
	assert.True(t, HasCode(err, CodeProtocol), "%v", err)
}

func TestMessagesThatAreNotObjects(t *testing.T) {
	for _, payload := range []string{"[]", `"x"`, "1", "true", "{", "{}{}", "{} x", `{"name":}`, "\xff", "\x00"} {
		for _, m := range sampleMessages() {
			_, err := ParseMessage(m.Kind(), []byte(payload))
			assert.True(t, HasCode(err, CodeProtocol), "%s %q: %v", m.Kind(), payload, err)
		}
	}
}

func TestAppendMessageRefusesWhatDoesNotFit(t *testing.T) {
	m := &Progress{}
	for range 20 {
		m.Leaves = append(m.Leaves, Leaf{State: LeafFailed, Text: strings.Repeat("x", maxTextLen)})
	}
	raw, err := AppendMessage(nil, m)
	assert.True(t, HasCode(err, CodeInternal), "%v", err)
	assert.Nil(t, raw)
}

// What a peer below may say must fit into a frame when a broadcaster passes it
// on, although JSON takes six bytes for a "<" that came as one.
func TestWhatCameInOneFrameGoesOutInOne(t *testing.T) {
	long := strings.Repeat("<", maxTextLen)
	for _, n := range []int{16, 64, maxLeafName, maxTextLen} {
		code, name := long[:n], long[:n]
		payloads := map[Kind]string{
			KindReceipt: `{"status":"failed","leaf":"` + name + `","code":"` + code + `","text":"` + long + `","location":"` + long + `"}`,
			KindReject:  `{"code":"` + code + `","text":"` + long + `","leaf":"` + name + `"}`,
			KindAbort:   `{"text":"` + long + `"}`,
			KindOffer:   `{"name":"` + strings.Repeat(long[:250]+"/", 16) + `f"}`,
		}
		for kind, payload := range payloads {
			m, err := ParseMessage(kind, []byte(payload))
			if n <= 64 {
				require.NoError(t, err)
			}
			if err == nil {
				_, err = AppendMessage(nil, m)
				assert.NoError(t, err, "%s with %d bytes of code and name", kind, n)
			}
		}
	}
}

// A peer reads no Hello that is longer than maxGreeting.
func TestEveryHelloFitsIntoAGreeting(t *testing.T) {
	for n := 16; n <= maxTextLen; n *= 2 {
		for _, fill := range []string{"x", "<"} {
			raw, err := AppendMessage(nil, &Hello{Versions: make([]int, 16), Agent: strings.Repeat(fill, n)})
			if err != nil {
				assert.Greater(t, n, 64, "a reasonable agent is refused: %v", err)
				continue
			}
			fr := NewFrameReader(bytes.NewReader(raw))
			fr.parser.greeting = true
			_, err = fr.Next()
			assert.NoError(t, err, "an agent of %d times %q", n, fill)
		}
	}
}
