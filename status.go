// The status command.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/client"
)

// statusWait bounds the whole command; daemons wait less for those below them.
const statusWait = 15 * time.Second

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "what a daemon and those below it are doing",
		UsageText: "sbcast status [--json] HOST[:PORT]",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "a JSON object for each daemon"},
		}, clientFlags()...),
		Action: status,
	}
}

func status(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("status needs one HOST[:PORT]")
	}
	session, err := clientSession(c)
	if err != nil {
		return err
	}
	cl, err := client.New(c.Args().First(), session)
	if err != nil {
		return usagef("HOST: %v", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(c.Context, statusWait)
	defer cancel()
	all, err := cl.Status(ctx)
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		for _, st := range all {
			if err := enc.Encode(st); err != nil {
				return err
			}
		}
	} else {
		w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
		for _, st := range all {
			node := st.Node
			if node == "" {
				node = cl.Addr()
			}
			if st.Error != "" {
				fmt.Fprintf(w, "%s\tunreachable\t%s\n", printable(node), printable(st.Error))
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\tup %s\t%d transfers\n", printable(node), printable(st.Sink), printable(st.Agent),
				(time.Duration(st.Uptime) * time.Second), len(st.Transfers))
			if st.MemoryMax > 0 {
				fmt.Fprintf(w, "  memory\t%s of %s\t\t\t\n", humanize.IBytes(uint64(st.Memory)), humanize.IBytes(uint64(st.MemoryMax)))
			}
			for _, t := range st.Transfers {
				size := "?"
				if t.Size >= 0 {
					size = humanize.IBytes(uint64(t.Size))
				}
				fmt.Fprintf(w, "  %s\t%s\t%s of %s\t%.0fs\t\n", printable(t.Name), t.Phase, humanize.IBytes(uint64(t.Offset)), size, t.Seconds)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("status of %s: %w", cl.Addr(), err)
	}
	return nil
}
