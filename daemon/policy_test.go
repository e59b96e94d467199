// Every way for three readers to fail, under every policy, against a model.

package daemon_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// fate is the phase in which a reader fails, or ok.
type fate string

const ok fate = "ok"

var fates = []fate{ok, "offer", "content", "stage", "publish"}

func (f fate) code() protocol.Code {
	for _, p := range phases {
		if p.name == string(f) {
			return p.err.Code
		}
	}
	return ""
}

// fatedStore fails as the name of the file says: POLICY/FATE-FATE-FATE, of
// which the store's own is the one at its index.
type fatedStore struct {
	index  int
	stores map[fate]*store
}

func newFatedStore(t *testing.T, index int) *fatedStore {
	s := &fatedStore{index: index, stores: map[fate]*store{}}
	for _, f := range fates {
		s.stores[f] = failing(t, string(f))
	}
	return s
}

func (s *fatedStore) String() string { return "fated:" }

func (s *fatedStore) Create(ctx context.Context, o sink.Request) (sink.File, sink.Have, error) {
	_, all, _ := strings.Cut(string(o.Name), "/")
	return s.stores[fate(strings.Split(all, "-")[s.index])].Create(ctx, o)
}

// outcome is what the model says of a push.
type outcome struct {
	published [3]bool
	own       [3]bool                // the receipt has the code of the reader's own failure, for certain
	partial   bool                   // enough, not all
	codes     map[protocol.Code]bool // that the error may have; none: no error, or partial
}

// model is what is to come of a push to readers with these fates.
func model(fates [3]fate, p protocol.Policy) (o outcome) {
	o.codes = map[protocol.Code]bool{}
	count := func(of ...fate) (n int) {
		for _, f := range fates {
			for _, g := range of {
				if f == g {
					n++
				}
			}
		}
		return n
	}
	fail := func(of ...fate) {
		for i, f := range fates {
			for _, g := range of {
				if f == g {
					o.codes[f.code()] = true
					o.own[i] = !p.IsAll() || f == "offer" // under all the first failure ends the rest
				}
			}
		}
	}
	refused := count("offer")
	lost := refused + count("content", "stage")
	needs := p.Needs(3)
	switch {
	case 3-refused < needs:
		fail("offer")
		return o
	case 3-lost < needs:
		fail("offer", "content", "stage")
		return o
	}
	for i, f := range fates {
		o.published[i] = f == ok
		o.own[i] = f != ok
	}
	switch good := count(ok); {
	case good == 3:
	case good >= needs:
		o.partial = true
	default:
		for _, f := range fates {
			if f != ok {
				o.codes[f.code()] = true
			}
		}
	}
	return o
}

func TestPolicies(t *testing.T) {
	readers := [3]*fatedStore{newFatedStore(t, 0), newFatedStore(t, 1), newFatedStore(t, 2)}
	names := [3]string{"r1", "r2", "r3"}
	b := serve(t, fanout(t, never,
		hop(names[0], reader(t, readers[0]).addr),
		hop(names[1], reader(t, readers[1]).addr),
		hop(names[2], reader(t, readers[2]).addr),
	), daemon.Options{})
	c, err := client.New(b.addr, protocol.SessionConfig{Agent: "test"})
	require.NoError(t, err)
	defer c.Close()
	content := string(random(2 * piece))
	for _, need := range []string{"all", "any", "2"} {
		for i := range len(fates) * len(fates) * len(fates) {
			three := [3]fate{fates[i%5], fates[i/5%5], fates[i/25]}
			name := need + "/" + string(three[0]+"-"+three[1]+"-"+three[2])
			t.Run(name, func(t *testing.T) {
				want := model(three, policy(t, need))
				receipts, err := c.Push(patient(t), client.Stream(strings.NewReader(content), name), client.Options{
					Require: policy(t, need), ChunkSize: piece,
				})
				var partial *client.PartialError
				switch {
				case want.partial:
					require.ErrorAs(t, err, &partial)
				case len(want.codes) == 0:
					require.NoError(t, err)
				default:
					require.Error(t, err)
					require.False(t, errors.As(err, &partial))
					assert.Contains(t, want.codes, protocol.AsError(err).Code, "code of: %v", err)
				}
				require.Len(t, receipts, 3)
				culprits := 0
				for i, r := range receipts {
					assert.Equal(t, names[i], r.Leaf)
					_, published := readers[i].stores[three[i]].file(name)
					assert.Equal(t, want.published[i], published, "%s has it", r.Leaf)
					if want.published[i] {
						assert.Equal(t, protocol.LeafPublished, r.Status)
						continue
					}
					assert.Equal(t, protocol.LeafFailed, r.Status)
					switch own := three[i].code(); {
					case want.own[i]:
						assert.Equal(t, own, r.Code, "%+v", r)
						culprits++
					case r.Code != protocol.CodePolicy:
						assert.Equal(t, own, r.Code, "%+v", r)
						culprits++
					}
					assert.NotEmpty(t, r.Text)
				}
				assert.Equal(t, err != nil, culprits > 0, "somebody is named")
			})
		}
	}
}
