// Events: the progress of uploads, as server-sent events.

package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

const (
	maxWatchers  = 256              // of all uploads
	watchTimeout = time.Minute      // for an upload to begin
	heartbeat    = 15 * time.Second // so that a watcher that is gone is noticed
	eventTimeout = 10 * time.Second // for a watcher to take an event
)

// events are the uploads that are watched, by their ids. A watcher may come
// before the upload.
type events struct {
	mu       sync.Mutex
	topics   map[string]*topic
	watchers int
}

// topic is one upload. Each state replaces the one before: a slow watcher sees
// fewer of them, and none is queued.
type topic struct {
	// Guarded by events.mu.
	watchers  int
	uploading bool

	mu    sync.Mutex
	now   *Progress     // the latest
	done  *answer       // the last word
	later chan struct{} // closed and replaced at each change
}

func newEvents() *events { return &events{topics: map[string]*topic{}} }

func (e *events) topicLocked(id string) *topic {
	t := e.topics[id]
	if t == nil {
		t = &topic{later: make(chan struct{})}
		e.topics[id] = t
	}
	return t
}

// begin is for an upload. There is one for each id at a time.
func (e *events) begin(id string) (*topic, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.topicLocked(id)
	if t.uploading {
		return nil, refuse(http.StatusConflict, protocol.CodeConflict, "another upload has the id %s", id)
	}
	t.uploading = true
	return t, nil
}

// end tells the watchers of t, which may be nil, how the upload ended.
func (e *events) end(id string, t *topic, a answer) {
	if t == nil {
		return
	}
	t.change(func() { t.done = &a })
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.topics, id) // those who watch have it
}

// join is for a watcher, until leave.
func (e *events) join(id string) (*topic, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watchers == maxWatchers {
		return nil, refuse(http.StatusServiceUnavailable, protocol.CodeBusy, "%d watch already, the most at once", maxWatchers)
	}
	t := e.topicLocked(id)
	t.watchers++
	e.watchers++
	return t, nil
}

func (e *events) leave(id string, t *topic) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers--
	if t.watchers--; t.watchers == 0 && !t.uploading {
		delete(e.topics, id)
	}
}

func (e *events) uploading(t *topic) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return t.uploading
}

func (t *topic) set(p Progress) { t.change(func() { t.now = &p }) }

func (t *topic) change(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.later)
	t.later = make(chan struct{})
}

// state is the latest, and what is closed when there is something later.
func (t *topic) state() (now *Progress, done *answer, later <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now, t.done, t.later
}

// watch serves the events of an upload: "progress" with a Progress, and at
// last "done" with the answer of the upload.
func (g *Gateway) watch(w http.ResponseWriter, r *http.Request, id string) {
	if err := checkID(id); err != nil {
		failure(badRequest("the id of an upload: %v", err)).write(w)
		return
	}
	t, err := g.events.join(id)
	if err != nil {
		failure(err).write(w)
		return
	}
	defer g.events.leave(id, t)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // of nginx, which would hold events back
	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	out.comment("watching")

	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	vain := time.NewTimer(watchTimeout)
	defer vain.Stop()
	var seen *Progress
	for out.err == nil {
		now, done, later := t.state()
		if now != nil && now != seen {
			seen = now
			out.event("progress", now)
		}
		if done != nil {
			out.event("done", done)
			return
		}
		select {
		case <-later:
		case <-beat.C:
			out.comment("still here")
		case <-vain.C:
			if !g.events.uploading(t) {
				return
			}
		case <-r.Context().Done():
			return
		case <-g.ctx.Done():
			if !g.events.uploading(t) {
				return
			}
			<-later // the upload ends too
		}
	}
}

// eventWriter writes events, each at once. The first error stays.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error
}

func (o *eventWriter) event(kind string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("gateway: " + err.Error())
	}
	o.write(fmt.Sprintf("event: %s\ndata: %s\n\n", kind, b)) // JSON has no line breaks
}

func (o *eventWriter) comment(text string) { o.write(": " + text + "\n\n") }

func (o *eventWriter) write(text string) {
	if o.err != nil {
		return
	}
	_ = o.control.SetWriteDeadline(time.Now().Add(eventTimeout))
	if _, o.err = o.w.Write([]byte(text)); o.err == nil {
		o.err = o.control.Flush()
	}
}
