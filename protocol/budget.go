// Budget: the memory for content of a whole daemon, shared fairly.

package protocol

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// MinMemory is the smallest Budget, in bytes: room for a dozen transfers.
const MinMemory = 1 << 20

const (
	// budgetWait is how long an offer waits for memory before it is busy. It
	// is less than the 30 s in which a broadcaster above expects progress.
	budgetWait = 10 * time.Second
	// budgetQueue is how many offers may wait: each costs a stream.
	budgetQueue = 256
)

// CheckMemory refuses budgets that are too small.
func CheckMemory(n int64) error {
	if n < MinMemory {
		return fmt.Errorf("%d bytes, want %d (%dM) at least", n, MinMemory, MinMemory>>20)
	}
	return nil
}

// Budget is memory that the transfers of a daemon share: the sum of their
// portions is never more than its size. Its verbs: join, and of a portion
// resize and leave.
//
// Nobody may have more than is still free. One transfer alone has so up to a
// half, two a third each, n of them 1/(n+1): they are equal without anybody
// counting, those that need less leave the rest to the others, and there is
// always as much again for who comes next.
type Budget struct {
	size int64

	mu      sync.Mutex
	free    int64
	waiting []*joiner // in the order they came
}

// joiner is an offer that waits for its first portion.
type joiner struct {
	need int64
	in   chan struct{} // closed when it has that
}

// NewBudget returns a Budget of size bytes, see CheckMemory.
func NewBudget(size int64) *Budget {
	return &Budget{size: size, free: size}
}

// Used is how much of the size is given away.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size - b.free
}

// Size is how much there is in all.
func (b *Budget) Size() int64 { return b.size }

// portion is what one transfer has of a Budget.
type portion struct {
	budget *Budget
	n      int64 // guarded by budget.mu
}

// join waits until need bytes are free, first come first served.
func (b *Budget) join(ctx context.Context, need int64) (*portion, error) {
	b.mu.Lock()
	if len(b.waiting) == 0 && need <= b.free {
		b.free -= need
		b.mu.Unlock()
		return &portion{b, need}, nil
	}
	if len(b.waiting) >= budgetQueue {
		b.mu.Unlock()
		return nil, Errorf(CodeBusy, "all memory is in use (%s), and %d pushes wait for it", sizeText(b.size), budgetQueue)
	}
	j := &joiner{need: need, in: make(chan struct{})}
	b.waiting = append(b.waiting, j)
	b.mu.Unlock()

	timeout := time.NewTimer(budgetWait)
	defer timeout.Stop()
	var err error
	select {
	case <-j.in:
		return &portion{b, need}, nil
	case <-timeout.C:
		err = Errorf(CodeBusy, "all memory is in use (%s), no room for another push in %v", sizeText(b.size), budgetWait)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, j)
	if i < 0 { // let in meanwhile
		return &portion{b, need}, nil
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.admitLocked() // who was behind it may need less
	return nil, err
}

// admitLocked lets in who has waited longest, as far as there is room.
func (b *Budget) admitLocked() {
	for len(b.waiting) > 0 && b.waiting[0].need <= b.free {
		b.free -= b.waiting[0].need
		close(b.waiting[0].in)
		b.waiting = slices.Delete(b.waiting, 0, 1)
	}
}

// resize makes the portion what is fair, within least and most, and returns
// it. Least is what the transfer cannot do without: at most what it has. While
// somebody waits nobody grows.
func (p *portion) resize(least, most int64) int64 {
	b := p.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	fair := (b.free + p.n) / 2 // as much as is free then
	if len(b.waiting) > 0 {
		fair = min(fair, p.n)
	}
	b.setLocked(p, max(least, min(fair, most)))
	return p.n
}

// leave gives everything back.
func (p *portion) leave() {
	b := p.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.setLocked(p, 0)
}

func (b *Budget) setLocked(p *portion, n int64) {
	if b.free += p.n - n; b.free < 0 {
		panic(fmt.Sprintf("protocol: budget of %d bytes overdrawn by %d", b.size, -b.free))
	}
	p.n = n
	b.admitLocked()
}
