// Content to push.

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

// makeContent makes a file of n bytes: lines of a log, or noise. It is the
// same in every run.
func makeContent(kind string, n int64) (path string, err error) {
	f, err := os.CreateTemp("", "linkbench-"+kind+"-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	var source io.Reader = rand.NewChaCha8([32]byte{1})
	if kind == "text" {
		source = &logLines{rng: rand.New(rand.NewPCG(1, 2))}
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err = io.CopyN(w, source, n); err == nil {
		err = w.Flush()
	}
	return f.Name(), err
}

// logLines is what a web server writes, without an end.
type logLines struct {
	rng  *rand.Rand
	line []byte
	rest []byte
	at   int64 // ms
}

var (
	methods = []string{"GET", "GET", "GET", "HEAD", "POST", "PUT"}
	paths   = []string{"/api/v1/items/%d", "/static/app.%d.js", "/users/%d/profile", "/search?q=%d&sort=date", "/img/%d.png"}
	agents  = []string{"curl/8.5.0", "Mozilla/5.0 (X11; Linux x86_64)", "Go-http-client/2.0", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"}
)

func (l *logLines) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if len(l.rest) == 0 {
			r := l.rng
			l.at += r.Int64N(20)
			path := fmt.Sprintf(paths[r.IntN(len(paths))], r.IntN(1_000_000))
			l.line = fmt.Appendf(l.line[:0], "10.%d.%d.%d - - [%d.%03d] \"%s %s HTTP/1.1\" %d %d \"%s\"\n",
				r.IntN(4), r.IntN(256), r.IntN(256), 1_700_000_000+l.at/1000, l.at%1000,
				methods[r.IntN(len(methods))], path, 200+r.IntN(5), r.IntN(100_000), agents[r.IntN(len(agents))])
			l.rest = l.line
		}
		m := copy(b[n:], l.rest)
		l.rest, n = l.rest[m:], n+m
	}
	return n, nil
}

// compressed is what share of its size the file at path has on the wire under -C lz4.
func compressed(path string) (ratio float64, total int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	encoder := protocol.NewEncoder(protocol.CompressLZ4)
	b := make([]byte, client.DefaultChunkSize)
	var wire int64
	for {
		n, err := io.ReadFull(f, b)
		if n > 0 {
			wire += int64(encoder.Sample(b[:n]))
			total += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return float64(wire) / float64(total), total, nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
}
