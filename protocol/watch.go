// Files that are read again when they change.

package protocol

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// recheckEvery is how often watched files are looked at, when they are asked for.
const recheckEvery = time.Second

// watched is what was read from files, read again when they have changed. What
// cannot be read leaves what there was.
type watched[T any] struct {
	paths []string // "" for one that is not there
	load  func() (T, error)
	told  func(error) // of each reload

	mu      sync.Mutex
	now     T
	stamp   string // of the files that now is from
	checked time.Time
}

func watch[T any](paths []string, load func() (T, error), told func(error)) (*watched[T], error) {
	if told == nil {
		told = func(error) {}
	}
	w := &watched[T]{paths: paths, load: load, told: told, stamp: stamp(paths), checked: time.Now()}
	var err error
	w.now, err = load()
	return w, err
}

// get is what the files say, at most recheckEvery ago.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.checked) > recheckEvery {
		w.checked = now
		if s := stamp(w.paths); s != w.stamp {
			w.reloadLocked(s)
		}
	}
	return w.now
}

// reload reads the files, changed or not.
func (w *watched[T]) reload() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reloadLocked(stamp(w.paths))
}

func (w *watched[T]) reloadLocked(stamp string) {
	w.stamp = stamp
	fresh, err := w.load()
	if err == nil {
		w.now = fresh
	}
	w.told(err)
}

// stamp changes when one of the files does.
func stamp(paths []string) (s string) {
	for _, path := range paths {
		if info, err := os.Stat(path); path != "" && err == nil {
			s += fmt.Sprintf("%d %d", info.ModTime().UnixNano(), info.Size())
		}
		s += ";"
	}
	return s
}
