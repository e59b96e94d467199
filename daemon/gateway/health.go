// Health: what machines ask a gateway.

package gateway

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

const (
	readyTimeout = 3 * time.Second // for all readers to answer
	readyFor     = time.Second     // an answer is given again: who asks often does not make the readers work
)

// health is the latest answer of the readers.
type health struct {
	turn   chan struct{} // capacity 1: held by who asks
	last   answer
	lastAt time.Time
}

func newHealth() *health { return &health{turn: make(chan struct{}, 1)} }

// ready says whether an upload has a chance: one reader at least is there, and
// the gateway is not about to stop. Data names them all. The readers are asked
// to the end even if who asked has gone: the answer is for those who come next.
func (g *Gateway) ready(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if g.stopping() {
		return failure(refuse(http.StatusServiceUnavailable, protocol.CodeShutdown, "%v", errShutdown))
	}
	select {
	case g.health.turn <- struct{}{}:
		defer func() { <-g.health.turn }()
	case <-ctx.Done():
		return failure(refuse(http.StatusServiceUnavailable, protocol.CodeStalled, "the readers are being asked"))
	}
	if h := g.health; time.Since(h.lastAt) > readyFor {
		h.last = g.ask(context.WithoutCancel(ctx))
		h.lastAt = time.Now()
	}
	return g.health.last
}

func (g *Gateway) ask(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	readers, err := g.pusher.Readers(ctx)
	if err != nil {
		return failure(refuse(http.StatusServiceUnavailable, protocol.AsError(err).Code, "the readers cannot be asked: %v", err))
	}
	there := 0
	data := map[string]any{}
	for _, r := range readers {
		if r.Error == "" {
			there++
		}
		data[r.Name] = r
	}
	a := answer{Status: http.StatusOK, Message: fmt.Sprintf("%d of %d readers are there", there, len(readers)), Data: data}
	if there == 0 {
		a.Status, a.Code = http.StatusServiceUnavailable, protocol.CodeUnreachable
	}
	return a
}
