// Rules: what a daemon takes, whatever its sink.

package daemon

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"

	"github.com/sbcast/sbcast/protocol"
)

// Rules say which files a daemon takes. The zero value takes all.
type Rules struct {
	// AllowNames are patterns as of path.Match, of which a name must match
	// one: "*.mp4" is an mp4 in no directory, "*/*" a file in one. None: all.
	AllowNames []string
	MaxSize    int64 // most bytes of a file; 0: no limit
	Quota      int64 // most bytes of content from each client in quotaPeriod; 0: no limit
}

// quotaPeriod is what a quota is for. It flows back evenly: who has used it up
// has half of it again after half the time.
const quotaPeriod = 24 * time.Hour

// quotaClients is how many clients are remembered. Who has not used any of its
// quota need not be.
const quotaClients = 10_000

// Check refuses rules that make no sense.
func (r Rules) Check() error {
	for _, p := range r.AllowNames {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return fmt.Errorf("%q is not a pattern: *, ? and [a-z] stand for parts of a name", p)
		}
	}
	return nil
}

// ruled is what a Server does with its rules.
type ruled struct {
	rules Rules

	mu     sync.Mutex
	quotas map[string]*rate.Limiter // of clients
}

func newRuled(r Rules) *ruled { return &ruled{rules: r, quotas: map[string]*rate.Limiter{}} }

// of is sink for an offer of client.
func (r *ruled) of(client string, sink protocol.Sink) protocol.Sink {
	if r.rules.AllowNames == nil && r.rules.MaxSize == 0 && r.rules.Quota == 0 {
		return sink
	}
	return ruledSink{r, client, sink}
}

// quota is what client has left; nil without a limit.
func (r *ruled) quota(client string) *rate.Limiter {
	if r.rules.Quota == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.quotas[client]
	if l == nil {
		if len(r.quotas) >= quotaClients {
			for name, other := range r.quotas {
				if other.Tokens() >= float64(r.rules.Quota) {
					delete(r.quotas, name)
				}
			}
		}
		l = rate.NewLimiter(rate.Limit(float64(r.rules.Quota)/quotaPeriod.Seconds()), int(r.rules.Quota))
		r.quotas[client] = l
	}
	return l
}

// ruledSink is a sink behind the rules.
type ruledSink struct {
	*ruled
	client string
	sink   protocol.Sink
}

// Begin implements protocol.Sink. What is against the rules is refused before
// the sink hears of it, as far as the offer says.
func (s ruledSink) Begin(ctx context.Context, offer *protocol.Offer, up protocol.Upstream) (protocol.Transfer, *protocol.Accept, error) {
	if err := s.admit(offer); err != nil {
		return nil, nil, err
	}
	t, a, err := s.sink.Begin(ctx, offer, up)
	if err != nil {
		return nil, nil, err
	}
	quota := s.quota(s.client)
	if left := offer.Size - a.Offset; quota != nil && left > 0 && float64(left) > quota.Tokens() {
		err := s.errQuota(quota)
		t.Abort(err)
		return nil, nil, err
	}
	return &ruledTransfer{t, s, quota, a.Offset}, a, nil
}

func (s ruledSink) admit(offer *protocol.Offer) error {
	allowed := len(s.rules.AllowNames) == 0
	for _, p := range s.rules.AllowNames {
		ok, _ := path.Match(p, string(offer.Name))
		allowed = allowed || ok
	}
	if !allowed {
		return protocol.Errorf(protocol.CodeDenied, "the name %q is not one of those taken here: %s", offer.Name, strings.Join(s.rules.AllowNames, ", "))
	}
	return s.fits(offer.Size)
}

// fits refuses content of more than the largest size.
func (s ruledSink) fits(size int64) error {
	if most := s.rules.MaxSize; most > 0 && size > most {
		return protocol.Errorf(protocol.CodeTooLarge, "larger than the %s (%d bytes) that are taken here", humanize.IBytes(uint64(most)), most)
	}
	return nil
}

func (s ruledSink) errQuota(quota *rate.Limiter) error {
	return protocol.Errorf(protocol.CodeNoSpace, "%s has used up its quota of %s a day: %s are left now",
		s.client, humanize.IBytes(uint64(s.rules.Quota)), humanize.IBytes(uint64(max(0, quota.Tokens()))))
}

// ruledTransfer counts what comes.
type ruledTransfer struct {
	protocol.Transfer
	sink  ruledSink
	quota *rate.Limiter
	had   int64 // content so far
}

// Describe implements protocol.Describer.
func (t *ruledTransfer) Describe(st *protocol.TransferStatus) {
	if d, ok := t.Transfer.(protocol.Describer); ok {
		d.Describe(st)
	}
}

// Write implements protocol.Transfer.
func (t *ruledTransfer) Write(c *protocol.Chunk) error {
	if err := t.sink.fits(c.End()); err != nil {
		return err
	}
	if fresh := c.End() - t.had; t.quota != nil && !t.quota.AllowN(time.Now(), int(fresh)) {
		return t.sink.errQuota(t.quota)
	}
	t.had = c.End()
	return t.Transfer.Write(c)
}
