// Progress: what a push knows of itself and of its readers.

package client

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// Progress is how a push stands.
type Progress struct {
	Name    string
	Size    int64 // -1 when unknown
	Sent    int64 // content bytes sent, the chunk under way included, over all attempts
	Acked   int64 // content bytes that every reader still in it has taken
	Leaves  []protocol.Leaf
	Note    string // of the push as a whole: why it is trying again
	Elapsed time.Duration
	Spent   protocol.Spent // on the source (content), the connection (link), and waiting for readers (credit)
}

// reportEvery is the shortest time between two reports, but for changes of state.
const reportEvery = 100 * time.Millisecond

// board collects what is known and reports it, from a goroutine of its own: who
// tells the board is the goroutine that reads the connection, and must not wait
// for a terminal that nobody reads. What is not reported yet when there is
// news is older news.
type board struct {
	host   string // what a reader is called that has no name of its own
	begun  time.Time
	report func(Progress)
	news   chan struct{} // capacity 1: there is something to report
	told   chan struct{} // closed when the last report has returned

	mu      sync.Mutex
	now     Progress
	index   map[string]int // of Leaves
	most    int64          // the largest Acked ever: less is not progress
	moved   time.Time      // when there was progress last
	last    time.Time      // report
	stopped bool
	spent   protocol.Spent   // in attempts that are over
	sender  *protocol.Sender // of the one under way
}

func newBoard(host, name string, report func(Progress)) *board {
	now := time.Now()
	b := &board{
		host: host, begun: now, moved: now, report: report,
		now: Progress{Name: name}, index: map[string]int{},
		news: make(chan struct{}, 1), told: make(chan struct{}),
	}
	if report == nil {
		close(b.told)
	} else {
		go b.tell()
	}
	return b
}

// tell reports until the board is stopped, and then once more.
func (b *board) tell() {
	defer close(b.told)
	for range b.news {
		b.mu.Lock()
		p, last := b.copyLocked(), b.stopped
		b.mu.Unlock()
		b.report(p)
		if last {
			return
		}
	}
}

// begin notes that the push begins, or begins again, with content of size.
func (b *board) begin(size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now.Size, b.most = size, 0
}

// update changes the board and reports: at once when urgent, else now and then.
func (b *board) update(change func() (urgent bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	urgent := change()
	if b.report == nil || b.stopped || !urgent && time.Since(b.last) < reportEvery {
		return
	}
	b.last = time.Now()
	b.signal()
}

func (b *board) signal() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}

func (b *board) sent(n int) {
	b.update(func() bool { b.now.Sent += int64(n); return false })
}

func (b *board) ack(offset int64) {
	b.update(func() bool {
		b.now.Acked = offset
		if offset > b.most {
			b.most, b.moved = offset, time.Now()
		}
		return false
	})
}

// note says what happens to the push as a whole.
func (b *board) note(text string) {
	b.update(func() bool { b.now.Note = text; return true })
}

// settle sets the leaves for good: until an offer is accepted, the list may
// name a hop that turns out to be a tree.
func (b *board) settle(a *protocol.Accept) {
	b.mu.Lock()
	b.now.Leaves = nil
	clear(b.index)
	b.now.Note, b.now.Acked = "", a.Offset
	b.mu.Unlock()
	b.leaves(a.Leaves)
}

// leaves notes how some leaves stand. A change of what a leaf says of itself
// is progress too: it may be busy checking what it has.
func (b *board) leaves(leaves []protocol.Leaf) {
	b.update(func() (urgent bool) {
		for _, l := range leaves {
			if l.Name == "" {
				l.Name = b.host
			}
			i, ok := b.index[l.Name]
			if !ok {
				i = len(b.now.Leaves)
				b.index[l.Name] = i
				b.now.Leaves = append(b.now.Leaves, protocol.Leaf{Name: l.Name})
			}
			old := b.now.Leaves[i]
			if old.State != l.State || old.Text != l.Text {
				urgent = true
				if l.State == protocol.LeafWaiting && l.Code == "" && old.Code == "" && l.Text != "" && old.State == l.State {
					b.moved = time.Now()
				}
			}
			b.now.Leaves[i] = l
		}
		return urgent
	})
}

// receipts notes the final states.
func (b *board) receipts(receipts []Receipt) {
	leaves := make([]protocol.Leaf, len(receipts))
	for i, r := range receipts {
		leaves[i] = protocol.Leaf{Name: r.Leaf, State: r.Status, Offset: r.Bytes, Code: r.Code, Text: r.Text}
	}
	b.leaves(leaves)
}

// idle is how long there has been no progress.
func (b *board) idle() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.moved)
}

func (b *board) movedSince(t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.moved.After(t)
}

func (b *board) snapshot() Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.copyLocked()
}

func (b *board) copyLocked() Progress {
	p := b.now
	p.Leaves = append([]protocol.Leaf(nil), p.Leaves...)
	p.Elapsed = time.Since(b.begun)
	p.Spent = b.spentLocked()
	return p
}

// over makes s, which may be nil, what the push sends with from now on.
func (b *board) over(s *protocol.Sender) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent, b.sender = b.spentLocked(), s
}

func (b *board) spentLocked() protocol.Spent {
	if b.sender == nil {
		return b.spent
	}
	return b.spent.Add(b.sender.Pace().Spent)
}

// waitingFor says which leaves keep an offer from being answered.
func (b *board) waitingFor() string {
	var texts []string
	for _, l := range b.snapshot().Leaves {
		if l.State == protocol.LeafWaiting {
			texts = append(texts, fmt.Sprintf("%s (%s)", l.Name, l.Text))
		}
	}
	if len(texts) == 0 {
		return ""
	}
	return "; waiting for " + strings.Join(texts, ", ")
}

// stop reports once more, and never again. It waits until that is done.
func (b *board) stop() {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.signal()
	<-b.told
}

func (b *board) seconds() float64 { return time.Since(b.begun).Seconds() }

// slowest is the leaf that has taken least of the content.
func (b *board) slowest() (name string) {
	least := int64(-1)
	for _, l := range b.snapshot().Leaves {
		if l.State == protocol.LeafWaiting {
			return l.Name
		}
		if l.State == protocol.LeafReceiving && (least < 0 || l.Offset < least) {
			name, least = l.Name, l.Offset
		}
	}
	return name
}
