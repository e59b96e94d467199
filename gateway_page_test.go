//go:build unix

// The gateway's page in a real browser: a headless Chromium, driven as a
// person would, with and without a mouse.

package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// browserWait bounds each test with the browser.
const browserWait = time.Minute

// screenshots is a directory for pictures of the page, to look at.
var screenshots = os.Getenv("SBCAST_SCREENSHOTS")

// findChromium is a Chromium on this machine, or the end of the test.
func findChromium(t *testing.T) string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("SKIPPED: THE GATEWAY'S PAGE IS NOT TESTED, there is no Chromium on this machine: apt-get install chromium")
	return ""
}

// page is a tab with the gateway's page of a running sbcast dev.
type page struct {
	*testing.T
	ctx context.Context
	dir string // of the readers
	url string

	mu       sync.Mutex
	messages []string // of the console, but for what the test makes fail
}

// openPage starts sbcast dev and opens its page, in a browser of its own.
func openPage(t *testing.T) *page {
	chromium := findChromium(t)
	p := &page{T: t, dir: t.TempDir()}
	dev := startDaemon(t, "gateway", "dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--dir", p.dir)
	p.url = "http://" + dev.addr + "/"

	opts := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1100, 900),
	}, quietBrowser...)
	allocated, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocated)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); cancel() }) // waits for the browser
	p.ctx = ctx
	p.do() // starts the browser, for as long as ctx
	within, late := context.WithTimeout(ctx, browserWait)
	t.Cleanup(late)
	p.ctx = within
	require.NoError(t, chromedp.Listen(within, p.hear))
	p.do(chromedp.Navigate(p.url))
	p.visible("#send")
	t.Cleanup(p.quiet)
	return p
}

// quietBrowser keeps it from talking to anybody but the page.
var quietBrowser = func() (opts []chromedp.ExecAllocatorOption) {
	for _, f := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync",
		"disable-default-apps", "disable-extensions", "disable-dev-shm-usage", "metrics-recording-only",
	} {
		opts = append(opts, chromedp.Flag(f, true))
	}
	return opts
}()

// hear keeps what the page, or the browser about it, has to complain of.
func (p *page) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		p.messages = append(p.messages, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		p.messages = append(p.messages, e.ExceptionDetails.Text+": "+e.ExceptionDetails.Exception.Description)
	case *runtime.EventConsoleAPICalled:
		for _, arg := range e.Args {
			p.messages = append(p.messages, string(arg.Value))
		}
	}
}

// quiet demands that there was nothing to complain of, above all no breach of
// the Content-Security-Policy. What was refused, as the test wants it, is logged too.
func (p *page) quiet() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.messages {
		if !strings.Contains(m, "the server responded with a status of 4") && !strings.Contains(m, "BLOCKED_BY_RESPONSE") {
			assert.Fail(p, "the console has a message", m)
		}
	}
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	require.NoError(p, chromedp.Do(p.ctx, steps...))
}

// act is the value of an action.
func act[V any](p *page, a chromedp.Action[V]) V {
	p.Helper()
	v, err := chromedp.Run(p.ctx, a)
	require.NoError(p, err)
	return v
}

// call sends a command to the tab.
func call[P, R any](p *page, c cdp.Command[P, R], params P) {
	p.Helper()
	act(p, func(ctx context.Context, t *chromedp.Target) (*R, error) {
		r, err := cdp.Call(ctx, t, c, params)
		return &r, err
	})
}

// eval is the value of an expression in the page.
func eval[V any](p *page, js string) V {
	p.Helper()
	return act(p, chromedp.Evaluate[V](js))
}

// until waits until an expression is true in the page.
func (p *page) until(js string) {
	p.Helper()
	act(p, chromedp.Poll[bool](js))
}

// visible waits for an element, and click clicks it.
func (p *page) visible(css string) { p.Helper(); p.do(chromedp.WaitVisible(chromedp.CSS(css))) }
func (p *page) click(css string)   { p.Helper(); p.do(chromedp.Click(chromedp.CSS(css))) }

// file makes a file of size to push.
func (p *page) file(name string, size int) string {
	path := filepath.Join(p.TempDir(), name)
	require.NoError(p, os.WriteFile(path, bytes.Repeat([]byte(name+"\n"), size/(len(name)+1)+1)[:size], 0o644))
	return path
}

// choose puts files into the input as its dialogue would.
func (p *page) choose(paths ...string) { p.do(chromedp.SetUploadFiles(chromedp.CSS("#files"), paths)) }

// await waits until the last transfer is in a state.
func (p *page) await(state string) {
	p.Helper()
	p.visible(".transfer:last-child." + state)
}

// same demands that both readers have what is in path.
func (p *page) same(path string) {
	p.Helper()
	want, err := os.ReadFile(path)
	require.NoError(p, err)
	for _, reader := range []string{"reader-1", "reader-2"} {
		got, err := os.ReadFile(filepath.Join(p.dir, reader, filepath.Base(path)))
		require.NoError(p, err)
		assert.True(p, bytes.Equal(want, got), "%s has other bytes", reader)
	}
}

// picture takes one, where they are wanted.
func (p *page) picture(name string) {
	if screenshots == "" {
		return
	}
	png := act(p, chromedp.FullScreenshot(100))
	require.NoError(p, os.MkdirAll(screenshots, 0o755))
	require.NoError(p, os.WriteFile(filepath.Join(screenshots, name+".png"), png, 0o644))
}

// slowLink is a command that Debian's Chromium and newer ones know, which the
// library has only as later ones have it.
var slowLink = cdp.Command[linkParams, cdp.Empty]{Method: "Network.emulateNetworkConditions"}

type linkParams struct {
	Offline  bool    `json:"offline"`
	Latency  float64 `json:"latency"`
	Download float64 `json:"downloadThroughput"` // bytes a second, -1 as it is
	Upload   float64 `json:"uploadThroughput"`
}

// A file is chosen, sent, seen to move for each reader, and receipted.
func TestPagePush(t *testing.T) {
	p := openPage(t)
	p.until(`document.getElementById("readers").textContent === "To reader-1, reader-2."`)
	path := p.file("video.mp4", 6<<20)
	p.choose(path)
	assert.Equal(t, "video.mp4, 6.0 MiB", eval[string](p, `document.getElementById("hint").textContent`))
	p.picture("chosen")

	// A link of 3 MiB/s, and note of each value that a reader's bar shows.
	call(p, slowLink, linkParams{Download: -1, Upload: 3 << 20})
	eval[any](p, `window.seen = {};
		new MutationObserver(() => {
			for (const row of document.querySelectorAll(".row.receiving")) {
				const name = row.querySelector(".reader").textContent;
				(seen[name] ??= new Set()).add(row.querySelector("progress").value);
			}
		}).observe(document.getElementById("transfers"), {subtree: true, childList: true, attributes: true, characterData: true}); 0`)
	p.click("#send")
	p.until(`Object.values(seen).some((s) => s.size > 4)`)
	p.picture("moving")
	p.await("done")
	for _, reader := range []string{"reader-1", "reader-2"} {
		values := eval[[]float64](p, `Array.from(seen["`+reader+`"] ?? [])`)
		assert.Greater(t, len(values), 3, "the bar of %s moved: %v", reader, values)
		assert.IsIncreasing(t, values)
	}
	p.same(path)
	assert.Equal(t, []string{"published", "published"}, eval[[]string](p, `Array.from(document.querySelectorAll(".word"), (w) => w.textContent)`))
	detail := eval[string](p, `document.querySelector(".detail").textContent`)
	assert.Contains(t, detail, filepath.Join(p.dir, "reader-1", "video.mp4"))
	assert.Contains(t, detail, "xxh128:")
	assert.Equal(t, "video.mp4 is on all readers.", eval[string](p, `document.getElementById("status").textContent`))
	p.picture("done")
}

// One reader has another file of the name: its error can be read, the file can
// be replaced, or pushed to whom can take it.
func TestPageError(t *testing.T) {
	p := openPage(t)
	there := filepath.Join(p.dir, "reader-2", "notes.txt")
	require.NoError(t, os.WriteFile(there, []byte("older"), 0o644))
	path := p.file("notes.txt", 300<<10)
	p.choose(path)
	p.click("#send")
	p.await("failed")
	message := eval[string](p, `document.querySelector(".message").textContent`)
	assert.Contains(t, message, "reader-2")
	assert.Contains(t, message, "exists")
	assert.NoFileExists(t, filepath.Join(p.dir, "reader-1", "notes.txt"))
	assert.NotContains(t, message, "force")
	assert.Equal(t, []string{"not published", "failed"}, eval[[]string](p, `Array.from(document.querySelectorAll(".word"), (w) => w.textContent)`))
	p.picture("failed")

	// On a phone, with any reader enough.
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 375, Height: 740, DeviceScaleFactor: 2, Mobile: true})
	p.choose(path)
	p.do(chromedp.SetValue(chromedp.CSS("#require"), "any"), chromedp.Click(chromedp.CSS("#send")))
	p.await("partly")
	assert.Equal(t, "1 of 2 readers failed", eval[string](p, `document.querySelector(".partly .message").textContent`))
	assert.LessOrEqual(t, eval[int](p, `document.documentElement.scrollWidth`), 375, "the page is wider than a phone")
	p.picture("phone")

	p.click(".failed .replace")
	p.visible(".transfer:first-child.done")
	p.same(path)
}

// What is refused while a browser is still sending is told: it does not look
// for an answer before it has sent everything.
func TestPageEarlyAnswer(t *testing.T) {
	p := openPage(t)
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "reader-2", "large"), []byte("older"), 0o644))
	call(p, slowLink, linkParams{Download: -1, Upload: 256 << 10})
	p.choose(p.file("large", 32<<20))
	p.click("#send")
	p.await("failed")
	assert.Contains(t, eval[string](p, `document.querySelector(".message").textContent`), `reader-2: "large" exists`)
	p.visible(".replace")
}

// The focus stays on the card when the button that had it goes, and names of
// any length fit on a phone.
func TestPageCancel(t *testing.T) {
	p := openPage(t)
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 320, Height: 640, DeviceScaleFactor: 2, Mobile: true})
	call(p, slowLink, linkParams{Download: -1, Upload: 256 << 10})
	path := p.file(strings.Repeat("a long name ", 20)+"<b>&amp;", 4<<20)
	p.choose(path)

	// A number that is out of sight does not hold the form up.
	p.do(chromedp.SetValue(chromedp.CSS("#require"), "number"))
	eval[any](p, `$("require").dispatchEvent(new Event("change")); $("number").value = "0"; 0`)
	assert.False(t, eval[bool](p, `$("form").checkValidity()`))
	p.do(chromedp.SetValue(chromedp.CSS("#require"), "all"))
	eval[any](p, `$("require").dispatchEvent(new Event("change")); 0`)
	p.click("#send")
	p.visible(".row.receiving")
	p.picture("narrow")
	assert.LessOrEqual(t, eval[int](p, `document.documentElement.scrollWidth`), 320, "the page is wider than a phone")
	eval[any](p, `document.querySelector(".cancel").focus(); 0`)
	p.do(chromedp.KeyEvent(kb.Enter))
	p.await("failed")
	p.until(`document.activeElement.className === "retry"`)
	assert.Equal(t, "cancelled", eval[string](p, `document.querySelector(".state").textContent`))
	call(p, slowLink, linkParams{Download: -1, Upload: -1})
	p.do(chromedp.KeyEvent(kb.Enter))
	p.await("done")
	p.same(path)
	assert.True(t, eval[bool](p, `document.querySelector(".transfer").contains(document.activeElement)`))
	p.picture("narrow-done")
}

// The keyboard alone is enough, and dark is dark.
func TestPageKeyboard(t *testing.T) {
	p := openPage(t)
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}, //nolint:misspell // its name in CSS
	})
	assert.Equal(t, "rgb(18, 22, 20)", eval[string](p, `getComputedStyle(document.body).backgroundColor`))
	focus := func() string { return eval[string](p, `document.activeElement.id || document.activeElement.className`) }
	tab := func() string { p.do(chromedp.KeyEvent(kb.Tab)); return focus() }

	require.Equal(t, "files", tab())
	assert.NotEqual(t, "none", eval[string](p, `getComputedStyle(document.getElementById("drop")).outlineStyle`), "the focus can be seen")
	one, two := p.file("one", 1000), p.file("two", 2000)
	p.choose(one, two) // the dialogue itself is the browser's
	require.Equal(t, "require", tab())
	require.Equal(t, "force", tab())
	p.do(chromedp.KeyEvent(" "))
	assert.True(t, eval[bool](p, `document.getElementById("force").checked`))
	require.Equal(t, "send", tab())
	assert.Equal(t, "Send 2 files", eval[string](p, `document.activeElement.textContent`))
	p.do(chromedp.KeyEvent(kb.Enter))
	p.visible(".transfer:first-child.done")
	p.await("done")
	p.same(one)
	p.same(two)
	p.picture("dark")
	require.Equal(t, "remove", tab())
	p.do(chromedp.KeyEvent(kb.Enter))
	assert.Equal(t, 1, eval[int](p, `document.querySelectorAll(".transfer").length`))
	assert.Equal(t, "files", focus())
}

// Without events there is no progress of readers, and everything else.
func TestPageWithoutEvents(t *testing.T) {
	p := openPage(t)
	eval[any](p, `window.EventSource = undefined; 0`)
	path := p.file("plain", 100<<10)
	p.choose(path)
	p.click("#send")
	p.await("done")
	p.same(path)

	// What is not the page's own does not run, and this test would hear of it.
	eval[any](p, `document.body.append(Object.assign(document.createElement("script"), {textContent: "window.foreign = 1"})); 0`)
	assert.Equal(t, "undefined", eval[string](p, `typeof window.foreign`))
	require.Eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		heard := len(p.messages) > 0 && strings.Contains(p.messages[0], "Content Security Policy")
		p.messages = nil
		return heard
	}, browserWait, 5*time.Millisecond)

	// A file that is dropped is as good as one that is chosen.
	eval[any](p, `{
		const data = new DataTransfer();
		data.items.add(new File(["dropped content"], "dropped"));
		document.querySelector(".drop-title").dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: data}));
	} 0`)
	p.click("#send")
	p.visible(".transfer:nth-child(2).done")
	got, err := os.ReadFile(filepath.Join(p.dir, "reader-2", "dropped"))
	require.NoError(t, err)
	assert.Equal(t, "dropped content", string(got))
}

// A page from elsewhere cannot push through the gateway.
func TestPageForeign(t *testing.T) {
	p := openPage(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>elsewhere</title>"))
	}))
	defer other.Close()
	p.do(chromedp.Navigate(other.URL))
	act(p, chromedp.Evaluate[string](`{
		const form = new FormData();
		form.append("file", new File(["content"], "foreign"));
		fetch("`+p.url+`broadcast", {method: "POST", mode: "no-cors", body: form}).then(() => "sent", (e) => "not sent: " + e);
	}`, chromedp.EvalAwaitPromise))
	for _, reader := range []string{"reader-1", "reader-2"} {
		assert.NoFileExists(t, filepath.Join(p.dir, reader, "foreign"))
	}
}
