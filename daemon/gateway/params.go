// Parameters: the options of an upload, in the query of its URL.

package gateway

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// params are the options of an upload. Their names are those of the flags of
// sbcast push.
type params struct {
	push PushOptions
	name protocol.Name // "": the file's own
	id   string        // of its events; "": nobody watches
}

// parameters are the words known, with what reads their values.
var parameters = map[string]func(p *params, value string) error{
	"require": func(p *params, v string) (err error) { p.push.Require, err = protocol.ParsePolicy(v); return err },
	"force":   func(p *params, v string) (err error) { p.push.Force, err = parseBool(v); return err },
	"compress": func(p *params, v string) (err error) {
		p.push.Compress, err = protocol.ParseCompression(v)
		return err
	},
	"digest":  func(p *params, v string) (err error) { p.push.Digest, err = protocol.ParseDigestAlg(v); return err },
	"timeout": func(p *params, v string) (err error) { p.push.Timeout, err = parseSeconds(v); return err },
	"dry-run": func(p *params, v string) (err error) { p.push.DryRun, err = parseBool(v); return err },
	"name":    func(p *params, v string) (err error) { p.name, err = protocol.ParseName(v); return err },
	"id":      func(p *params, v string) error { p.id = v; return checkID(v) },
}

// parseParams reads a query. Every mistake is a refusal that names it: a
// misspelt force that is ignored would be found out too late.
func parseParams(query string) (params, error) {
	var p params
	values, err := url.ParseQuery(query)
	if err != nil {
		return p, badRequest("the query of the URL: %v", err)
	}
	for key, all := range values {
		parse := parameters[strings.ReplaceAll(key, "_", "-")]
		if parse == nil {
			return p, badRequest("unknown parameter %q: %s are known", key, strings.Join(known(), ", "))
		}
		if len(all) > 1 {
			return p, badRequest("parameter %s is there %d times", key, len(all))
		}
		if err := parse(&p, all[0]); err != nil {
			return p, badRequest("parameter %s: %v", key, err)
		}
	}
	return p, nil
}

func known() []string {
	var all []string
	for name := range parameters {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// parseBool reads a switch: ?force, ?force=1 or ?force=true.
func parseBool(s string) (bool, error) {
	if s == "" {
		return true, nil
	}
	on, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%q is neither true nor false", s)
	}
	return on, nil
}

// maxTimeout bounds how long an upload may wait without progress.
const maxTimeout = time.Hour

// parseSeconds reads a time: 30 is 30 s, and 500ms, 2m work too.
func parseSeconds(s string) (time.Duration, error) {
	text := s
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxTimeout {
		return 0, fmt.Errorf("%q is not a time of up to %v: 30 (seconds), 500ms or 2m", s, maxTimeout)
	}
	return d, nil
}

var goodID = regexp.MustCompile(`^[A-Za-z0-9-]{8,64}$`)

func checkID(id string) error {
	if !goodID.MatchString(id) {
		return fmt.Errorf("want 8 to 64 letters, digits and dashes")
	}
	return nil
}
