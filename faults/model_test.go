package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// code is what the receipt of a reader says that fails by itself.
func (k kind) code() protocol.Code {
	switch k {
	case noDial, lostStaging, lostCommit:
		return protocol.CodeUnreachable
	case refuses:
		return protocol.CodeExists
	case noSpace:
		return protocol.CodeNoSpace
	case noStage, noPublish:
		return protocol.CodeIO
	default:
		return ""
	}
}

func (k kind) beforeAccept() bool { return k == noDial || k == refuses }

func (k kind) beforeReady() bool { return k == noSpace || k == noStage || k == lostStaging }

// outcome is what the model says of a push.
type outcome struct {
	published []bool
	codes     [][]protocol.Code // that the receipt may have; "" is published
	exit      int
	culprit   bool // at least one reader fails for a reason of its own
}

// expect is the model. Before the commit the push ends for everybody when
// fewer readers are left than the policy needs; after it, everybody publishes
// who can.
func expect(readers []kind, p protocol.Policy) outcome {
	n := len(readers)
	needs := p.Needs(n)
	refused := count(readers, kind.beforeAccept)
	failed := count(readers, kind.beforeReady)
	o := outcome{published: make([]bool, n), codes: make([][]protocol.Code, n), exit: 1}
	switch {
	case n-refused < needs:
		for i, k := range readers {
			o.codes[i] = []protocol.Code{protocol.CodePolicy}
			if k.beforeAccept() {
				o.codes[i] = []protocol.Code{k.code()}
			}
		}
	case n-refused-failed < needs:
		for i, k := range readers {
			o.codes[i] = []protocol.Code{protocol.CodePolicy}
			switch {
			case k.beforeReady() && p.IsAll(): // the first one decides, the others may not get there
				o.codes[i] = append(o.codes[i], k.code())
			case k.beforeReady() || k.beforeAccept():
				o.codes[i] = []protocol.Code{k.code()}
			}
		}
		o.culprit = true
	default:
		done := 0
		for i, k := range readers {
			o.codes[i] = []protocol.Code{k.code()}
			if k.code() == "" {
				o.published[i] = true
				done++
			}
		}
		switch {
		case done == n:
			o.exit = 0
		case done >= needs:
			o.exit = 3
		}
	}
	return o
}

func count(readers []kind, is func(kind) bool) (n int) {
	for _, k := range readers {
		if is(k) {
			n++
		}
	}
	return n
}

// exitCode is package main's, as far as a policy goes.
func exitCode(err error) int {
	var partial *client.PartialError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &partial):
		return 3
	default:
		return 1
	}
}

// check runs one case and says how it differs from the model.
func check(t *testing.T, readers []kind, require string) {
	content := random(1, 3*kib)
	want := expect(readers, policy(t, require))
	stores := make([]*store, len(readers))
	for i, k := range readers {
		stores[i] = newStore(k)
	}
	c := newCluster(t, 64*kib, daemon.FanoutOptions{Stall: 400 * time.Millisecond}, stores...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	receipts, err := c.push(ctx, memory{"f", content}, client.Options{
		Require: policy(t, require), ChunkSize: kib, Timeout: 1500 * time.Millisecond,
	})
	wrong := func(format string, args ...any) {
		t.Errorf("%v under %s: %s; error %v; receipts %+v", readers, require, fmt.Sprintf(format, args...), err, receipts)
	}
	if ctx.Err() != nil {
		wrong("still trying after 10 minutes, with a timeout of 1.5 s")
	}
	c.shut()

	if got := exitCode(err); got != want.exit {
		wrong("exit code %d, want %d", got, want.exit)
	}
	var partial *client.PartialError
	if errors.As(err, &partial) && (partial.Total != len(readers) || partial.Failed != len(readers)-count(readers, func(k kind) bool { return k.code() == "" })) {
		wrong("%d of %d", partial.Failed, partial.Total)
	}
	if len(receipts) != len(readers) {
		wrong("%d receipts, want %d", len(receipts), len(readers))
		return
	}
	culprit := false
	for i, r := range receipts {
		if r.Leaf != c.readers[i].name {
			wrong("receipt %d is of %q", i, r.Leaf)
		}
		status := protocol.LeafFailed
		if want.published[i] {
			status = protocol.LeafPublished
		}
		if r.Status != status || !slices.Contains(want.codes[i], r.Code) {
			wrong("%s is %s with code %q, want %s with %q", r.Leaf, r.Status, r.Code, status, want.codes[i])
		}
		if r.Status == protocol.LeafFailed && r.Text == "" {
			wrong("%s does not say why it failed", r.Leaf)
		}
		culprit = culprit || r.Code == readers[i].code() && r.Code != ""
		switch got, ok := stores[i].content("f"); {
		case ok != want.published[i]:
			wrong("%s has published: %v", r.Leaf, ok)
		case ok && !bytes.Equal(got, content):
			wrong("%s has published something else", r.Leaf)
		}
	}
	if want.culprit && !culprit {
		wrong("no receipt says why nothing was published")
	}
}

// cases calls f for every subset of up to five readers that fail in the same
// way, and for every mixture of ways among three.
func cases(f func(readers []kind)) {
	for n := 1; n <= 5; n++ {
		for subset := range 1 << n {
			for k := good + 1; k < kinds; k++ {
				if subset == 0 && k > good+1 {
					break // nobody fails: once is enough
				}
				readers := make([]kind, n)
				for i := range readers {
					if subset>>i&1 == 1 {
						readers[i] = k
					}
				}
				f(readers)
			}
		}
	}
	for i := range int(kinds * kinds * kinds) {
		k := kind(i)
		f([]kind{k % kinds, k / kinds % kinds, k / kinds / kinds})
	}
}

func TestModel(t *testing.T) {
	var ran atomic.Int64
	t.Run("policies", func(t *testing.T) {
		for _, require := range []string{"all", "any", "2", "3"} {
			t.Run(require, func(t *testing.T) {
				t.Parallel()
				i := *seed
				cases(func(readers []kind) {
					if i++; i%thinned != 0 && *runs == 0 {
						return
					}
					synctest.Test(t, func(t *testing.T) { check(t, readers, require) })
					ran.Add(1)
				})
			})
		}
	})
	t.Logf("%d cases", ran.Load())
}
