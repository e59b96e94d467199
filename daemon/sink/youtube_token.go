// The token that lets a reader upload: its file, and its renewal.

package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/sbcast/sbcast/protocol"
)

// youtubeRenew bounds asking for a new token.
const youtubeRenew = 15 * time.Second

// YouTubeToken is what sbcast youtube login stores: who uploads, and by which
// client. It holds secrets.
type YouTubeToken struct {
	ClientID     string    `json:"client_id"`
	ClientSecret string    `json:"client_secret"`
	TokenURL     string    `json:"token_uri"`
	Access       string    `json:"access_token,omitempty"`
	Refresh      string    `json:"refresh_token"`
	Expiry       time.Time `json:"expiry,omitzero"` // of Access
}

// DefaultYouTubeToken is the file for the token where none is named.
func DefaultYouTubeToken() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("where the YouTube token is: %w; name the file with a flag", err)
	}
	return filepath.Join(dir, "sbcast", "youtube-token.json"), nil
}

// Save writes the token to a file that only its owner can read. A crash leaves
// the old file or the new one.
func (t *YouTubeToken) Save(path string) error {
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".youtube-token-*") // made with 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails when all went well
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// youtubeKey gives out the token and renews it. It is safe for concurrent use.
type youtubeKey struct {
	path string

	mu    sync.Mutex
	token YouTubeToken
}

func openYouTubeKey(path string) (*youtubeKey, error) {
	if path == "" {
		var err error
		if path, err = DefaultYouTubeToken(); err != nil {
			return nil, err
		}
	}
	k := &youtubeKey{path: path}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no token at %s: run sbcast youtube login, or name its file with --youtube-token", path)
	}
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the token at %s can be read by others: chmod 600 it", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &k.token); err != nil || k.token.Refresh == "" || k.token.ClientID == "" || k.token.TokenURL == "" {
		return nil, fmt.Errorf("%s holds no token: run sbcast youtube login again", path)
	}
	return k, nil
}

// get returns a token to upload with, which is not the one that was refused.
func (k *youtubeKey) get(ctx context.Context, client *http.Client, refused string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := &oauth2.Token{AccessToken: k.token.Access, RefreshToken: k.token.Refresh, Expiry: k.token.Expiry}
	if now.AccessToken != refused && now.Valid() {
		return now.AccessToken, nil
	}
	ctx, cancel := context.WithTimeout(ctx, youtubeRenew)
	defer cancel()
	config := oauth2.Config{ClientID: k.token.ClientID, ClientSecret: k.token.ClientSecret, Endpoint: oauth2.Endpoint{TokenURL: k.token.TokenURL}}
	fresh, err := config.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client), &oauth2.Token{RefreshToken: k.token.Refresh}).Token()
	if err != nil {
		return "", renewError(err)
	}
	changed := fresh.RefreshToken != "" && fresh.RefreshToken != k.token.Refresh
	if changed {
		k.token.Refresh = fresh.RefreshToken
	}
	k.token.Access, k.token.Expiry = fresh.AccessToken, fresh.Expiry
	if err := k.token.Save(k.path); err != nil && changed { // without, a restart would need another login
		return "", fmt.Errorf("youtube: store the new token: %w", err)
	}
	return fresh.AccessToken, nil
}

// renewError is err without what a server may have put into it.
func renewError(err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case !errors.As(err, &refused):
		return &temporary{err: fmt.Errorf("youtube: renew the token: %w", webError(err))}
	case refused.Response.StatusCode >= 500 || refused.Response.StatusCode == http.StatusTooManyRequests:
		return &temporary{err: protocol.Errorf(protocol.CodeBusy, "youtube: renew the token: the server answered %s", refused.Response.Status)}
	default:
		return protocol.Errorf(protocol.CodeDenied, "youtube: renew the token: %q: it was withdrawn or has expired, run sbcast youtube login again", refused.ErrorCode)
	}
}
