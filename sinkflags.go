// Flags of the reader that are about one kind of sink.

package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/daemon/sink"
)

func sinkFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "http-method", Value: http.MethodPut, Usage: "http: `METHOD`, PUT or POST"},
		&cli.GenericFlag{Name: "http-header", Value: &listValue{}, Usage: "http: send the field `'NAME: VALUE'` too; may be repeated"},
		&cli.StringFlag{Name: "http-header-file", Usage: "http: `FILE` of further fields, one a line: the place for secrets"},
		&cli.BoolFlag{Name: "http-trailer", Usage: "http: send the digest after the content, which makes the transfer coding chunked"},
		&cli.StringFlag{Name: "http-ca", Usage: "http: `FILE` of PEM certificates to trust, in place of the system's"},
		&cli.GenericFlag{Name: "http-stall-timeout", Value: &secondsValue{sink.DefaultHTTPStall}, Usage: "http: `SECONDS` in which the server may take nothing"},
		&cli.GenericFlag{Name: "http-answer-timeout", Value: &secondsValue{sink.DefaultHTTPAnswer}, Usage: "http: `SECONDS` that the server has to answer when it has all"},

		&cli.StringFlag{Name: "youtube-title", Value: "{name}", Usage: "youtube: `TITLE` of a video; {name} is the name of the file"},
		&cli.StringFlag{Name: "youtube-description", Usage: "youtube: `TEXT` below it; {name} works too"},
		&cli.StringFlag{Name: "youtube-privacy", Value: "private", Usage: "youtube: `WHO` sees it: private, unlisted or public"},
		&cli.StringFlag{Name: "youtube-tags", Usage: "youtube: `TAG,TAG...`"},
		&cli.StringFlag{Name: "youtube-category", Usage: "youtube: `NUMBER` of the category, as in 22 (people and blogs)"},
		&cli.StringFlag{Name: "youtube-token", Usage: "youtube: `FILE` that sbcast youtube login has made (default: where that puts it)"},
		&cli.GenericFlag{Name: "youtube-piece", Value: &sizeValue{n: sink.DefaultYouTubePiece, max: 256 << 20}, Usage: "youtube: `SIZE` of the most that one request sends, and that each upload has in memory; a multiple of 256K"},
	}
}

func httpOptions(c *cli.Context) (sink.HTTPOptions, error) {
	o := sink.HTTPOptions{
		Method: strings.ToUpper(c.String("http-method")), CA: c.String("http-ca"), Trailer: c.Bool("http-trailer"), Header: http.Header{},
		Stall: timeOf(c, "http-stall-timeout"), Answer: timeOf(c, "http-answer-timeout"),
	}
	for _, line := range *c.Generic("http-header").(*listValue) {
		if err := sink.ParseHeader(o.Header, line); err != nil {
			return o, usagef("--http-header: %v", err)
		}
	}
	file := c.String("http-header-file")
	if file == "" {
		return o, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return o, configError(fmt.Errorf("--http-header-file: %w", err))
	}
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := sink.ParseHeader(o.Header, line); err != nil {
			return o, configError(fmt.Errorf("--http-header-file: %s:%d: %w", file, i+1, err))
		}
	}
	return o, nil
}

func youtubeOptions(c *cli.Context) sink.YouTubeOptions {
	o := sink.YouTubeOptions{
		Title: c.String("youtube-title"), Description: c.String("youtube-description"), Privacy: c.String("youtube-privacy"),
		Category: c.String("youtube-category"), Token: c.String("youtube-token"), Piece: int(sizeOf(c, "youtube-piece")),
	}
	for _, tag := range strings.Split(c.String("youtube-tags"), ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			o.Tags = append(o.Tags, tag)
		}
	}
	return o
}

// listValue is a flag that may be repeated. Its values may have commas, which
// those of cli.StringSlice may not.
type listValue []string

func (v *listValue) String() string { return "" }

func (v *listValue) Set(s string) error {
	*v = append(*v, s)
	return nil
}
