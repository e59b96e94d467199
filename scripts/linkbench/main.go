// Command linkbench times pushes of one file with -C none, auto and lz4, one
// after the other and again, over loopback and over links of limited rate:
//
//	go run ./scripts/linkbench                      # log lines, then noise
//	go run ./scripts/linkbench -link 0 -readers 2   # loopback, through a broadcaster
//	go run ./scripts/linkbench -link 5M,50M -file big.csv
//
// The daemons, which discard what comes, and the link, a proxy that passes so
// many bytes a second on, are processes of their own. Printed are medians; the
// ratios are what to go by, for the times of two runs differ.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

var (
	links   = flag.String("link", "0,10M,100M", "`rates` of the link in bytes a second; 0: loopback")
	size    = flag.String("size", "256M", "`bytes` of content to make")
	file    = flag.String("file", "", "push this `file` and make none")
	digest  = flag.String("digest", "xxh128", "digest `algorithm`")
	readers = flag.Int("readers", 0, "behind a broadcaster; 0: push to one reader directly")
	rounds  = flag.Int("rounds", 5, "of every mode")
	chunk   = flag.Int("chunk", 0, "`bytes` of a chunk (default: as push does, by the rate)")
	only    = flag.String("mode", "none,auto,lz4", "`modes` to compare, none being the first")
	kinds   = flag.String("content", "text,random", "`kinds` of content to make")
	modes   []protocol.Compression
)

func main() {
	log.SetFlags(0)
	if role(os.Args[1:]) {
		return
	}
	flag.Parse()
	for name := range strings.SplitSeq(*only, ",") {
		mode, err := protocol.ParseCompression(name)
		check(err)
		modes = append(modes, mode)
	}
	chunks := "chunks by the rate"
	if *chunk > 0 {
		chunks = "chunks of " + humanize.IBytes(uint64(*chunk))
	}
	fmt.Printf("%d cores, digest %s, %s, %d rounds, medians\n", runtime.GOMAXPROCS(0), *digest, chunks, *rounds)
	if *file != "" {
		bench(*file)
		return
	}
	n, err := bytesOf(*size)
	check(err)
	for kind := range strings.SplitSeq(*kinds, ",") {
		path, err := makeContent(kind, n)
		check(err)
		bench(path)
		check(os.Remove(path))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal("linkbench: ", err)
	}
}

// bytesOf reads 10M as 10 MiB.
func bytesOf(s string) (int64, error) {
	if s != "" && strings.ContainsAny(s[len(s)-1:], "KMG") {
		s += "iB"
	}
	n, err := humanize.ParseBytes(s)
	return int64(n), err
}

// bench pushes the file at path over every link.
func bench(path string) {
	ratio, total, err := compressed(path)
	check(err)
	fmt.Printf("\n%s: %s, compressed by LZ4 to %.3f\n", path, humanize.IBytes(uint64(total)), ratio)
	for link := range strings.SplitSeq(*links, ",") {
		limit, err := bytesOf(link)
		check(err)
		one(path, limit, total)
	}
}

// one pushes the file at path over one link in every mode.
func one(path string, limit, total int64) {
	host, stop := network(*readers, limit)
	defer stop()
	took := map[protocol.Compression][]float64{}
	n := *rounds
	if limit > 0 { // the link is the clock: there is little noise
		n = min(n, 2)
	}
	for round := range n {
		for i := range modes {
			mode := modes[(round+i)%len(modes)]
			took[mode] = append(took[mode], push(host, path, mode))
		}
	}
	name := "loopback"
	if limit > 0 {
		name = humanize.IBytes(uint64(limit)) + "/s"
	}
	none := median(took[protocol.CompressNone])
	for _, mode := range modes {
		t := median(took[mode])
		fmt.Printf("%-12s %-4s  %8.3f s  %8.1f MB/s  %5.2f times as fast as none", name, mode, t, float64(total)/t/1e6, none/t)
		if mode != protocol.CompressNone { // of pushes that are neighbours, which noise spoils least
			var pairs []float64
			for i, other := range took[protocol.CompressNone] {
				pairs = append(pairs, other/took[mode][i])
			}
			fmt.Printf("  (by pairs %.2f)", median(pairs))
		}
		fmt.Println()
	}
}

// push pushes once and returns the seconds that it took.
func push(host, path string, mode protocol.Compression) float64 {
	src, err := client.File(path)
	check(err)
	begun := time.Now()
	_, err = client.Push(context.Background(), src, client.Options{
		Host: host, Compress: mode, Force: true, Digest: protocol.DigestAlg(*digest), ChunkSize: *chunk,
	})
	check(err)
	return time.Since(begun).Seconds()
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
