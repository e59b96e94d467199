// Command standin is a stand-in for YouTube, to try sbcast's youtube: sink
// with: it takes uploads as YouTube does, hashes them, and forgets them at its
// end. It writes a token for them, and lists them at /standin/videos.
//
//	go run ./scripts/standin -listen 127.0.0.1:7099 -token standin.token &
//	sbcast reader --sink 'youtube:?endpoint=http://127.0.0.1:7099' --youtube-token standin.token
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/daemon/sink/youtubetest"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	token := flag.String("token", "standin.token", "file to write a token for sbcast reader to")
	client := flag.String("client", "", "file to write an OAuth client for sbcast youtube login to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *token, *client); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It prints its URL once everything is in place.
func run(ctx context.Context, listen, tokenFile, clientFile string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	base := "http://" + ln.Addr().String()
	s := youtubetest.New()
	access, refresh := s.Grant()
	token := sink.YouTubeToken{
		ClientID: youtubetest.ClientID, ClientSecret: youtubetest.Secret(), TokenURL: base + "/token",
		Access: access, Refresh: refresh, Expiry: time.Now().Add(time.Hour),
	}
	if err := token.Save(tokenFile); err != nil {
		return err
	}
	if clientFile != "" {
		if err := os.WriteFile(clientFile, youtubetest.ClientSecret(base), 0o600); err != nil {
			return err
		}
	}
	fmt.Println(base)
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); ctx.Err() == nil {
		return err
	}
	return nil
}
