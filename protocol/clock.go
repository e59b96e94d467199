// Clock: where the time of a transfer goes, stage by stage.

package protocol

import (
	"math"
	"sync"
	"time"
)

// Stage is what one end of a transfer is doing, or waits for.
type Stage uint8

// The stages. A sending end waits for content, writes to its connection, and
// waits for credit, Ready and receipts; a leaf waits for content and stores it.
const (
	StageNone    Stage = iota // nothing that the transfer waits for
	StageContent              // waits for content: from its source, or from the hop above
	StageLink                 // writes to the connection
	StageCredit               // has sent as much as it may, or all: the other end has to take it
	StageSink                 // stores content
	StageSync                 // all content is there: checked, synced, staged
	StagePublish              // published, until the receipts are there
	stages
)

// Spent is how many seconds went into each stage.
type Spent struct {
	Content float64 `json:"content,omitempty"`
	Link    float64 `json:"link,omitempty"`
	Credit  float64 `json:"credit,omitempty"`
	Sink    float64 `json:"sink,omitempty"`
	Sync    float64 `json:"sync,omitempty"`
	Publish float64 `json:"publish,omitempty"`
}

// Add is the sum of both.
func (s Spent) Add(o Spent) Spent {
	return Spent{s.Content + o.Content, s.Link + o.Link, s.Credit + o.Credit, s.Sink + o.Sink, s.Sync + o.Sync, s.Publish + o.Publish}
}

// Each calls f for every stage, by the name that it has in JSON.
func (s Spent) Each(f func(stage string, seconds float64)) {
	f("content", s.Content)
	f("link", s.Link)
	f("credit", s.Credit)
	f("sink", s.Sink)
	f("sync", s.Sync)
	f("publish", s.Publish)
}

// Round is s in whole milliseconds, to be read by people.
func (s Spent) Round() Spent {
	ms := func(v float64) float64 { return math.Round(v*1000) / 1000 }
	return Spent{ms(s.Content), ms(s.Link), ms(s.Credit), ms(s.Sink), ms(s.Sync), ms(s.Publish)}
}

// Clock measures Spent. It looks at the time only where the stage changes, not
// for each chunk. The zero value is in StageNone. It is safe for concurrent use.
type Clock struct {
	mu    sync.Mutex
	stage Stage
	since time.Time
	spent [stages]time.Duration
}

// Enter ends the stage before and begins s.
func (c *Clock) Enter(s Stage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enterLocked(s)
}

// wait is Enter unless the clock is in StageLink, which only the writer ends.
func (c *Clock) wait(s Stage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage != StageLink {
		c.enterLocked(s)
	}
}

func (c *Clock) enterLocked(s Stage) {
	if s == c.stage {
		return
	}
	now := time.Now()
	if c.stage != StageNone {
		c.spent[c.stage] += now.Sub(c.since)
	}
	c.stage, c.since = s, now
}

// Spent is what has come together, with the stage that has not ended.
func (c *Clock) Spent() Spent {
	c.mu.Lock()
	defer c.mu.Unlock()
	spent := c.spent
	if c.stage != StageNone {
		spent[c.stage] += time.Since(c.since)
	}
	return Spent{
		Content: spent[StageContent].Seconds(), Link: spent[StageLink].Seconds(), Credit: spent[StageCredit].Seconds(),
		Sink: spent[StageSink].Seconds(), Sync: spent[StageSync].Seconds(), Publish: spent[StagePublish].Seconds(),
	}
}
