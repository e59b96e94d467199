//go:build linux

// Who runs, and with which commands.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// contender is one way to send a file to many readers.
type contender struct {
	name    string
	version string
	about   string // its commands, for the report
	// stage starts readers and relay and returns the client's command, which
	// is all that is left to do.
	stage func(c *cast, j job) (client []string, err error)
	// check finds out, when all processes have ended, whether every reader
	// has had every byte.
	check func(c *cast, j job) error
}

// contenders are those that are here, and for those that are not, how to get them.
func contenders(ctx context.Context, c config, work string) (all []contender, skipped []string, err error) {
	wanted := func(name string) bool { return len(c.only) == 0 || slices.Contains(c.only, name) }
	unknown := slices.DeleteFunc(slices.Clone(c.only), func(name string) bool {
		return slices.Contains([]string{sbcastName, oldName, bareName, mbufferName, pipingName}, name)
	})
	if len(unknown) > 0 {
		return nil, nil, fmt.Errorf("-only: no contender %q", unknown[0])
	}
	if wanted(sbcastName) {
		path := c.sbcast
		if path == "" {
			path = filepath.Join(work, "sbcast")
			build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "github.com/sbcast/sbcast")
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				return nil, nil, fmt.Errorf("go build: %w: %s", err, out)
			}
		}
		all = append(all, sbcast(sbcastName, path, c.pushFlags))
	}
	if c.compare != "" && wanted(oldName) {
		all = append(all, sbcast(oldName, c.compare, c.pushFlags))
	}
	if wanted(bareName) {
		self, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		all = append(all, bareLoop(self))
	}
	for name, find := range map[string]func() (contender, error){mbufferName: mbuffer, pipingName: pipingServer} {
		if !wanted(name) {
			continue
		}
		who, err := find()
		switch {
		case err == nil:
			all = append(all, who)
		case len(c.only) > 0:
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		default:
			skipped = append(skipped, fmt.Sprintf("%s: %v", name, err))
		}
	}
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("-only: there is nobody to run (%s needs -compare)", oldName)
	}
	slices.SortFunc(all, func(a, b contender) int { return slices.Index(order, a.name) - slices.Index(order, b.name) })
	slices.Sort(skipped)
	return all, skipped, nil
}

const (
	sbcastName  = "sbcast"
	oldName     = "sbcast-old"
	mbufferName = "mbuffer"
	pipingName  = "piping-server"
)

// order is that of the report.
var order = []string{bareName, sbcastName, oldName, mbufferName, pipingName}

// addReader starts a reader.
func (c *cast) addReader(daemon bool, argv ...string) (*process, error) {
	p, err := c.start(fmt.Sprintf("reader %d", len(c.readers)+1), daemon, argv...)
	if err == nil {
		c.readers = append(c.readers, p)
	}
	return p, err
}

// version is the first line of what a command prints.
func version(argv ...string) string {
	out, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func sbcast(name, path string, pushFlags []string) contender {
	flags := strings.TrimSpace("--json " + strings.Join(pushFlags, " "))
	return contender{
		name:    name,
		version: version(path, "version"),
		about:   "`sbcast reader --sink discard:` or `dir:PATH`, `sbcast broadcaster --reader ...`, `sbcast push " + flags + " FILE HOST`, otherwise with defaults",
		stage: func(c *cast, j job) (client []string, err error) {
			var hops []string
			for i := range j.readers {
				sink := "discard:"
				if j.kind == dir {
					sink = "dir:" + j.file(i)
					if err := os.Mkdir(j.file(i), 0o755); err != nil {
						return nil, err
					}
				}
				r, err := c.addReader(true, path, "reader", "-q", "--listen", "127.0.0.1:0", "--sink", sink)
				if err != nil {
					return nil, err
				}
				addr, err := c.address(r)
				if err != nil {
					return nil, err
				}
				hops = append(hops, "--reader", addr)
			}
			if c.relay, err = c.start("relay", true, append([]string{path, "broadcaster", "-q", "--listen", "127.0.0.1:0"}, hops...)...); err != nil {
				return nil, err
			}
			host, err := c.address(c.relay)
			return slices.Concat([]string{path, "push", "--json"}, pushFlags, []string{j.path, host}), err
		},
		check: func(c *cast, j job) error {
			if err := checkReceipts(c.client.stdout.String(), j); err != nil {
				return err
			}
			return checkFiles(j, func(i int) string { return filepath.Join(j.file(i), filepath.Base(j.path)) })
		},
	}
}

// checkReceipts demands that the last line of a push is a result that says
// that all readers have published all of the content.
func checkReceipts(out string, j job) error {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var res struct {
		Type, Status string
		Readers      []struct {
			Status string
			Bytes  int64
		}
	}
	last := lines[len(lines)-1]
	if err := json.Unmarshal([]byte(last), &res); err != nil {
		return fmt.Errorf("the push's result: %w: %q", err, last)
	}
	good := res.Type == "result" && res.Status == "published" && len(res.Readers) == j.readers
	for _, r := range res.Readers {
		good = good && r.Status == "published" && r.Bytes == j.size
	}
	if !good {
		return fmt.Errorf("want %d readers that have published %d bytes, the push says %s", j.readers, j.size, last)
	}
	return nil
}

func bareLoop(self string) contender {
	return contender{
		name:  bareName,
		about: "this program: read 256 KiB, write it to each connection in turn; no framing, no check, no acknowledgement",
		stage: func(c *cast, j job) (client []string, err error) {
			argv := []string{self, bareCommand, "relay"}
			for i := range j.readers {
				sink := []string{self, bareCommand, "sink"}
				if j.kind == dir {
					sink = append(sink, j.file(i))
				}
				r, err := c.addReader(false, sink...)
				if err != nil {
					return nil, err
				}
				addr, err := c.address(r)
				if err != nil {
					return nil, err
				}
				argv = append(argv, addr)
			}
			if c.relay, err = c.start("relay", false, argv...); err != nil {
				return nil, err
			}
			host, err := c.address(c.relay)
			return []string{self, bareCommand, "send", j.path, host}, err
		},
		check: func(c *cast, j job) error {
			return checkCounts(c, j, func(r *process) (int64, error) {
				return strconv.ParseInt(strings.TrimSpace(r.stdout.String()), 10, 64)
			}, 0)
		},
	}
}

// checkCounts demands that every reader says that it had all of the content,
// give or take slack of it, and has it in its file.
func checkCounts(c *cast, j job, count func(r *process) (int64, error), slack float64) error {
	for _, r := range c.readers {
		n, err := count(r)
		if err != nil {
			return fmt.Errorf("%s: how much it had: %w", r.role, err)
		}
		if math.Abs(float64(n-j.size)) > slack*float64(j.size) {
			return fmt.Errorf("%s had %d bytes of %d", r.role, n, j.size)
		}
	}
	return checkFiles(j, j.file)
}

func mbuffer() (contender, error) {
	path, err := exec.LookPath("mbuffer")
	if err != nil {
		return contender{}, fmt.Errorf("not installed (apt install mbuffer)")
	}
	// Blocks as large as the bare loop's, and the buffer with which it is fastest:
	// one that stays in a cache. With 64 MiB, of which it touches every page first,
	// it is about half as fast with a file of 1 GiB; its defaults, 4 MiB blocks and
	// 2 % of the memory, are for tapes.
	flags := []string{"-4", "-s", "256k", "-m", "2M"}
	return contender{
		name:    mbufferName,
		version: version(path, "--version"),
		about:   "`mbuffer -Q -I PORT -o /dev/null` or `-o FILE`, `mbuffer -q -I PORT -O HOST:PORT ...`, `mbuffer -q -i FILE -O HOST:PORT`, all with `" + strings.Join(flags, " ") + "`",
		stage: func(c *cast, j job) (client []string, err error) {
			ports, err := freePorts(j.readers + 1)
			if err != nil {
				return nil, err
			}
			relay := slices.Concat([]string{path, "-q"}, flags, []string{"-I", strconv.Itoa(ports[j.readers])})
			for i, port := range ports[:j.readers] {
				out := "/dev/null"
				if j.kind == dir {
					out = j.file(i)
				}
				// With -Q in place of -q it says at the end how much it had.
				if _, err := c.addReader(false, slices.Concat([]string{path, "-Q"}, flags, []string{"-I", strconv.Itoa(port), "-o", out})...); err != nil {
					return nil, err
				}
				if err := c.awaitTCP(port, tcpListen, 1); err != nil {
					return nil, err
				}
				relay = append(relay, "-O", fmt.Sprintf("127.0.0.1:%d", port))
			}
			if c.relay, err = c.start("relay", false, relay...); err != nil {
				return nil, err
			}
			host := fmt.Sprintf("127.0.0.1:%d", ports[j.readers])
			return slices.Concat([]string{path, "-q"}, flags, []string{"-i", j.path, "-O", host}), c.awaitTCP(ports[j.readers], tcpListen, 1)
		},
		check: func(c *cast, j job) error {
			// The summary is rounded: 1.5 GiByte.
			return checkCounts(c, j, func(r *process) (int64, error) { return mbufferSummary(r.stderr.String()) }, 0.05)
		},
	}, nil
}

var summaryLine = regexp.MustCompile(`summary: +([0-9.]+) ([kMGT]?)i?B`)

func mbufferSummary(stderr string) (int64, error) {
	m := summaryLine.FindStringSubmatch(stderr)
	if m == nil {
		return 0, fmt.Errorf("no summary in %q", stderr)
	}
	f, err := strconv.ParseFloat(m[1], 64)
	return int64(f * float64(int64(1)<<(10*strings.Index(" kMGT", m[2])))), err
}

func pipingServer() (contender, error) {
	path, err := findPipingServer()
	if err != nil {
		return contender{}, err
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		return contender{}, fmt.Errorf("curl, its client, is not installed (apt install curl)")
	}
	return contender{
		name:    pipingName,
		version: version(path, "--version"),
		about:   "`curl -s -o /dev/null` or `-o FILE` `URL?n=N`, `piping-server`, `curl -sST FILE URL?n=N`",
		stage: func(c *cast, j job) (client []string, err error) {
			ports, err := freePorts(1)
			if err != nil {
				return nil, err
			}
			c.relay, err = c.start("relay", true, path, "--host=127.0.0.1", "--http-port="+strconv.Itoa(ports[0]))
			if err != nil {
				return nil, err
			}
			if err := c.awaitTCP(ports[0], tcpListen, 1); err != nil {
				return nil, err
			}
			url := fmt.Sprintf("http://127.0.0.1:%d/bench?n=%d", ports[0], j.readers)
			for i := range j.readers {
				out := "/dev/null"
				if j.kind == dir {
					out = j.file(i)
				}
				if _, err := c.addReader(false, curl, "--noproxy", "*", "-sS", "-o", out, "-w", "%{size_download}", url); err != nil {
					return nil, err
				}
			}
			return []string{curl, "--noproxy", "*", "-sS", "-T", j.path, url}, c.awaitTCP(ports[0], tcpEstablished, j.readers)
		},
		check: func(c *cast, j job) error {
			return checkCounts(c, j, func(r *process) (int64, error) { return strconv.ParseInt(r.stdout.String(), 10, 64) }, 0)
		},
	}, nil
}

// pipingCache is where the advice below puts it, relative to the repository.
const pipingCache = ".cache/bench"

func findPipingServer() (string, error) {
	if path := os.Getenv("PIPING_SERVER"); path != "" {
		return exec.LookPath(path)
	}
	if path, err := exec.LookPath("piping-server"); err == nil {
		return path, nil
	}
	at, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; at != "/"; at = filepath.Dir(at) {
		path := filepath.Join(at, pipingCache, "node_modules/.bin/piping-server")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("not installed (npm install --prefix %s piping-server, or set PIPING_SERVER to its path)", pipingCache)
}
