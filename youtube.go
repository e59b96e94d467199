// The youtube command: the login that gives readers their token.

package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/oauth2"

	"github.com/sbcast/sbcast/daemon/sink"
)

// What a token is for. A device is not allowed the narrower one:
// https://developers.google.com/identity/protocols/oauth2/limited-input-device#allowedscopes
const (
	uploadScope = "https://www.googleapis.com/auth/youtube.upload"
	deviceScope = "https://www.googleapis.com/auth/youtube"
)

const googleDeviceURL = "https://oauth2.googleapis.com/device/code"

// oauthTimeout bounds each request to the authorisation server.
const oauthTimeout = 30 * time.Second

// closePage is how long the browser has to take the last page.
const closePage = 2 * time.Second

func youtubeCommand() *cli.Command {
	return &cli.Command{
		Name:  "youtube",
		Usage: "log in to YouTube, for reader --sink youtube:",
		UsageText: "sbcast youtube login --client-secret FILE\n\n" +
			"FILE is what the Google Cloud console offers as download for an OAuth client of the type \"Desktop app\".\n" +
			"The token is stored for readers of the same user; docs/sinks.md has all steps.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "client-secret", Usage: "`FILE` of the OAuth client"},
			&cli.StringFlag{Name: "token", Usage: "`FILE` to store the token in (default: sbcast/youtube-token.json in the user's configuration directory)"},
			&cli.BoolFlag{Name: "device", Usage: "log in with a code on another device; the client is of the type \"TVs and Limited Input devices\""},
			&cli.GenericFlag{Name: "timeout", Value: &secondsValue{5 * time.Minute}, Usage: "`SECONDS` to wait for you"},
		},
		Action: youtubeLogin,
	}
}

func youtubeLogin(c *cli.Context) error {
	if c.NArg() != 1 || c.Args().First() != "login" {
		return usagef("youtube takes one word: sbcast youtube login --client-secret FILE")
	}
	if !c.IsSet("client-secret") {
		return usagef("youtube login needs --client-secret, the file of an OAuth client: docs/sinks.md says where it comes from")
	}
	config, err := readClientSecret(c.String("client-secret"))
	if err != nil {
		return configError(err)
	}
	path := c.String("token")
	if path == "" {
		if path, err = sink.DefaultYouTubeToken(); err != nil {
			return configError(err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(c.Context, timeOf(c, "timeout"), errors.New("nobody agreed in time"))
	defer cancel()
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: oauthTimeout})
	login := loginByBrowser
	if c.Bool("device") {
		login = loginByDevice
	}
	token, err := login(ctx, config, c.App.ErrWriter)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("youtube login: %w", err)
	}
	if token.RefreshToken == "" {
		return errors.New("youtube login: the server gave a token that cannot be renewed")
	}
	stored := sink.YouTubeToken{
		ClientID: config.ClientID, ClientSecret: config.ClientSecret, TokenURL: config.Endpoint.TokenURL,
		Access: token.AccessToken, Refresh: token.RefreshToken, Expiry: token.Expiry,
	}
	if err := stored.Save(path); err != nil {
		return fmt.Errorf("youtube login: store the token: %w", err)
	}
	fmt.Fprintln(c.App.Writer, path)
	return nil
}

// readClientSecret reads the file of an OAuth client as Google gives it out.
func readClientSecret(path string) (*oauth2.Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--client-secret: %w", err)
	}
	var file struct {
		Installed *struct {
			ID        string `json:"client_id"`
			Secret    string `json:"client_secret"`
			AuthURL   string `json:"auth_uri"`
			TokenURL  string `json:"token_uri"`
			DeviceURL string `json:"device_auth_uri"` // Google's files have none
		} `json:"installed"`
	}
	if json.Unmarshal(b, &file) != nil || file.Installed == nil || file.Installed.ID == "" || file.Installed.AuthURL == "" || file.Installed.TokenURL == "" {
		return nil, fmt.Errorf("--client-secret: %s is not the file of an OAuth client for an installed application (type \"Desktop app\")", path)
	}
	client := file.Installed
	if client.DeviceURL == "" {
		client.DeviceURL = googleDeviceURL
	}
	return &oauth2.Config{
		ClientID: client.ID, ClientSecret: client.Secret, Scopes: []string{uploadScope},
		Endpoint: oauth2.Endpoint{AuthURL: client.AuthURL, TokenURL: client.TokenURL, DeviceAuthURL: client.DeviceURL, AuthStyle: oauth2.AuthStyleInParams},
	}, nil
}

// loginByBrowser has the user agree in a browser on this machine, which is
// then sent to a port that only this machine reaches (RFC 8252, with PKCE).
func loginByBrowser(ctx context.Context, config *oauth2.Config, w io.Writer) (*oauth2.Token, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	config.RedirectURL = "http://" + ln.Addr().String() + "/"
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	back := &comingBack{state: state, said: make(chan answered, 1)}
	server := &http.Server{Handler: back, ReadTimeout: oauthTimeout, WriteTimeout: oauthTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePage)
		defer cancel()
		_ = server.Shutdown(ctx) // the last page is being sent
		server.Close()
		<-served
	}()
	fmt.Fprintf(w, "Open this page in a browser on this machine, and agree:\n\n%s\n\n",
		config.AuthCodeURL(state, oauth2.AccessTypeOffline, oauth2.ApprovalForce, oauth2.S256ChallengeOption(verifier)))
	select {
	case said := <-back.said:
		if said.err != nil {
			return nil, said.err
		}
		token, err := config.Exchange(ctx, said.code, oauth2.VerifierOption(verifier))
		return token, withoutSecrets(err)
	case err := <-served:
		served <- err
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// answered is what the user said.
type answered struct {
	code string
	err  error
}

// comingBack is the page that the browser is sent to.
type comingBack struct {
	state string
	said  chan answered // capacity 1: the first counts
}

func (b *comingBack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.URL.Path != "/" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(b.state)) != 1 {
		http.Error(w, "This is not the answer that sbcast waits for.", http.StatusBadRequest)
		return
	}
	said := answered{code: q.Get("code")}
	if said.code == "" {
		said.err = fmt.Errorf("the server answered %.100q", q.Get("error"))
	}
	select {
	case b.said <- said:
	default:
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if said.err != nil {
		fmt.Fprintln(w, "No token for sbcast. You can close this page.")
		return
	}
	fmt.Fprintln(w, "sbcast has what it needs. You can close this page.")
}

// loginByDevice has the user type a code on a page, on any device (RFC 8628).
func loginByDevice(ctx context.Context, config *oauth2.Config, w io.Writer) (*oauth2.Token, error) {
	config.Scopes = []string{deviceScope}
	code, err := config.DeviceAuth(ctx)
	if err != nil {
		return nil, withoutSecrets(err)
	}
	fmt.Fprintf(w, "Open %s on any device, and type %s\n", printable(code.VerificationURI), printable(code.UserCode))
	token, err := config.DeviceAccessToken(ctx, code, oauth2.SetAuthURLParam("client_secret", config.ClientSecret))
	return token, withoutSecrets(err)
}

// withoutSecrets is err without what a server may have put into its answer.
func withoutSecrets(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		return fmt.Errorf("the server answered %s %.100q", refused.Response.Status, refused.ErrorCode)
	}
	return err
}
