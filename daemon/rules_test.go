// Rules: what is taken is for the receiving side to say.

package daemon_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

func TestRulesNames(t *testing.T) {
	s := newStore(t)
	r := serve(t, leafOver(t, s), daemon.Options{Rules: daemon.Rules{AllowNames: []string{"*.mp4", "docs/*"}}})
	for name, allowed := range map[string]bool{
		"a.mp4": true, "docs/a": true, "docs/a.mp4": true,
		"a.mp3": false, "dir/a.mp4": false, "docs": false, "docs/b/c": false, "a.mp4/b": false,
	} {
		o := newOffer(name, 4, protocol.All)
		o.ID = ""
		receipts, err := push(t, r.addr, o, []byte("data"))
		if allowed {
			require.NoError(t, err, name)
			assert.Equal(t, protocol.LeafPublished, receipts[0].Status)
			continue
		}
		assertCode(t, protocol.CodeDenied, err)
		assert.ErrorContains(t, err, "*.mp4, docs/*", "it says what would be taken")
		_, there := s.file(name)
		assert.False(t, there)
	}
}

func TestRulesSize(t *testing.T) {
	s := newStore(t)
	r := serve(t, leafOver(t, s), daemon.Options{Rules: daemon.Rules{MaxSize: 1000}})
	_, err := push(t, r.addr, newOffer("fits", 1000, protocol.All), random(1000))
	require.NoError(t, err)
	_, err = push(t, r.addr, newOffer("large", 1001, protocol.All), random(1001))
	assertCode(t, protocol.CodeTooLarge, err)

	// Of unknown size, it is found when it has come.
	p := begin(t, r.addr, newOffer("unknown", -1, protocol.All))
	require.NoError(t, p.send(random(1000)))
	_ = p.send([]byte("x"))
	_, err = p.finish()
	assertCode(t, protocol.CodeTooLarge, err)
	_, there := s.file("unknown")
	assert.False(t, there)
}

// A broadcaster has rules as a reader has: they are before any sink.
func TestRulesQuota(t *testing.T) {
	s := newStore(t)
	r := reader(t, s)
	f := fanout(t, never, hop("r", r.addr))
	b := serve(t, f, daemon.Options{Rules: daemon.Rules{Quota: 1 << 20}})
	_, err := push(t, b.addr, newOffer("one", 600<<10, protocol.All), random(600<<10))
	require.NoError(t, err)
	_, err = push(t, b.addr, newOffer("two", 600<<10, protocol.All), random(600<<10))
	assertCode(t, protocol.CodeNoSpace, err)
	assert.ErrorContains(t, err, "127.0.0.1 has used up its quota of 1.0 MiB a day")
	_, err = push(t, b.addr, newOffer("three", 300<<10, protocol.All), random(300<<10))
	require.NoError(t, err, "as much as is left")

	p := begin(t, b.addr, newOffer("unknown", -1, protocol.All))
	for range 20 {
		_ = p.send(random(16 << 10))
	}
	_, err = p.finish()
	assertCode(t, protocol.CodeNoSpace, err)
	_, there := s.file("unknown")
	assert.False(t, there)
}

func TestRulesCheck(t *testing.T) {
	assert.NoError(t, daemon.Rules{AllowNames: []string{"*", "[a-z]/?"}}.Check())
	assert.Error(t, daemon.Rules{AllowNames: []string{"["}}.Check())
	assert.Error(t, daemon.Rules{AllowNames: []string{""}}.Check())
}
