//go:build unix

// The front door: scripts that drive the real binary, many processes at once.

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptsWait bounds all scripts together: a command that hangs is then killed
// and shows where. They need a quarter of it, on a machine with nothing else to do.
const scriptsWait = 8 * time.Minute

// TestMain makes the test binary be sbcast itself when a script runs sbcast.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sbcast": main})
}

// TestScripts runs testdata/script. A script is a text that says what sbcast
// does; besides the commands of testscript it may use:
//
//	start NAME sbcast reader|broadcaster|dev ...
//	                           a daemon in the background; once it listens, $NAME is its address,
//	                           and with --http $NAME_http the URL of its gateway,
//	                           with --admin $NAME_admin what it is asked at
//	background NAME [<FILE] CMD...
//	                           any other command in the background, with FILE as its input
//	logged NAME REGEXP         wait until the standard error of NAME matches
//	signal NAME INT|TERM|HUP|KILL
//	                           send the signal
//	ends NAME CODE             wait until NAME has ended, demand the exit code; stdout
//	                           and stderr are then those of NAME
//	end NAME SIGNAL [CODE]     both
//	unit NAME UNIT [SOCKET...] start a service of scripts/systemd as systemd does, with
//	                           the sockets open, their addresses in $NAME or $NAME_http;
//	                           /etc, /run and /var are below the script's directory
//	told NAME REGEXP           wait until what NAME has told systemd matches
//	reload NAME                run the unit's ExecReload
//	compose SERVICE            start a service of docker-compose.yml, on a free port, with
//	                           its volumes below the script's directory; $SERVICE is its address
//	healthy SERVICE            run its healthcheck
//	picky SERVICE              demand that it refuses a bad value of each of its variables
//	exits CODE [<FILE] CMD...  run a command, demand the exit code
//	complains REGEXP...        stderr is one line, of sbcast, that matches them all
//	eventually CMD...          try a command or one of the checks below until it succeeds
//
//	random FILE SIZE           bytes that do not compress, the same for the same FILE
//	text FILE SIZE             lines that do
//	http NAME                  a server of something else; $NAME is its address
//	get ADDRESS PATH [HOST]    ask an admin listener, HOST:PORT or unix:PATH, and print its answer;
//	                           the script fails unless that is 200
//	metrics ADDRESS LINE...    its /metrics has a line that matches each regexp
//	slowlink NAME ADDRESS RATE a way to ADDRESS of so many bytes a second; $NAME is its address
//	jsonlines NAME [N]         all that NAME has said on standard error are JSON objects, N of them
//	s3 start|stop              an S3 server, see cmdS3; [s3] says whether there is one
//	s3faults NAME WHAT         a proxy before it, see cmdS3Faults
//	uploads N                  that many uploads to it are under way
//
//	receiver NAME DIR          a web server that keeps in DIR what is sent to it; DIR/log says
//	                           what it was asked; $NAME is its URL
//	youtube NAME [FAULT...]    a stand-in for YouTube; $NAME is its URL, NAME.token a token and
//	                           NAME.client an OAuth client for it; again, it only fails as
//	                           told: STEP:STATUS[:REASON], STEP:lose, STEP:forget, STEP:cut=N
//	visit NAME                 open the page that NAME asks for on standard error
//
//	videos NAME [FILE...]      the stand-in has these, and no other
//	asked COUNT NAME REGEXP    so many requests to it match
//	peak SIZE NAME...          no process has ever had more memory (the race detector doubles it)
//
//	same FILE FILE...          they have the same bytes
//	sameattr FILE FILE         they have the same mode and modification time
//	nofiles DIR...             there is no file beneath, hidden ones included
//	parts DIR...               there is an unfinished file beneath each
//	result FIELD VALUE...      stdout is JSON lines, the last and only the last has the
//	                           type "result", and FIELD of it is VALUE (a regexp for all
//	                           of it); readers.FIELD has a VALUE for each reader
//	event TYPE FIELD VALUE...  the same for any line of the TYPE
//
// Whatever a script leaves running is interrupted at its end and must exit
// with 130; no process may report a data race or a panic.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Deadline:           time.Now().Add(scriptsWait),
		Setup: func(env *testscript.Env) error {
			// Without this a process that was built with -race sleeps for a
			// second at its end, and exits with 66 (no input) after a race.
			env.Setenv("GORACE", strings.TrimSpace("atexit_sleep_ms=0 exitcode=99 "+os.Getenv("GORACE")))
			env.Values[processesKey{}] = newProcesses(env)
			env.Values[s3Key{}] = &s3Server{}
			return nil
		},
		Condition: s3Condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":      always(cmdStart),
			"background": always(cmdBackground),
			"logged":     always(cmdLogged),
			"signal":     always(cmdSignal),
			"end":        always(cmdEnd),
			"ends":       always(cmdEnds),
			"unit":       always(cmdUnit),
			"told":       always(cmdTold),
			"reload":     always(cmdReload),
			"compose":    always(cmdCompose),
			"healthy":    always(cmdHealthy),
			"picky":      always(cmdPicky),
			"exits":      always(cmdExits),
			"complains":  always(cmdComplains),
			"eventually": always(cmdEventually),
			"random":     always(cmdRandom),
			"text":       always(cmdText),
			"http":       always(cmdHTTP),
			"get":        either(cmdGet),
			"metrics":    either(cmdMetrics),
			"slowlink":   always(cmdSlowLink),
			"jsonlines":  always(cmdJSONLines),
			"s3":         always(cmdS3),
			"s3faults":   always(cmdS3Faults),
			"uploads":    either(cmdUploads),
			"peak":       always(cmdPeak),
			"receiver":   always(cmdReceiver),
			"youtube":    always(cmdYouTube),
			"visit":      always(cmdVisit),
			"videos":     either(cmdVideos),
			"asked":      either(cmdAsked),
			"same":       either(cmdSame),
			"sameattr":   either(cmdSameAttr),
			"nofiles":    either(cmdNoFiles),
			"parts":      either(cmdParts),
			"result":     either(cmdResult),
			"event":      either(cmdEvent),
		},
	})
}

// command is a command of scripts.
type command func(ts *testscript.TestScript, args []string) error

// checks are the commands that eventually knows, besides programs.
var checks = map[string]command{
	"same": cmdSame, "sameattr": cmdSameAttr, "nofiles": cmdNoFiles, "parts": cmdParts, "videos": cmdVideos, "asked": cmdAsked, "metrics": cmdMetrics, "uploads": cmdUploads,
}

// always makes a command that must succeed.
func always(c command) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("unsupported: !")
		}
		ts.Check(c(ts, args))
	}
}

// either makes a command that a script may also demand to fail.
func either(c command) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := c(ts, args)
		if neg && err == nil {
			ts.Fatalf("unexpected success")
		}
		if !neg {
			ts.Check(err)
		}
	}
}
