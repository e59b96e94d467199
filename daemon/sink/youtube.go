// The store that uploads videos to YouTube.

package sink

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sbcast/sbcast/protocol"
)

const (
	youtubeEndpoint = "https://www.googleapis.com"
	youtubeWatch    = "https://youtu.be/"

	// youtubeUnit is what the length of a piece is a multiple of, but for the
	// last (docs of the resumable upload protocol, "Uploading a file in chunks").
	youtubeUnit = 256 << 10

	// youtubeUploads is how many files a reader uploads at once. What comes
	// beyond is told to try again, so youtubeUploads times YouTubeOptions.Piece
	// is the most memory that all of them take.
	youtubeUploads = 4

	// What YouTube takes of a title and a description.
	maxTitle       = 100  // characters
	maxDescription = 5000 // bytes
)

// The defaults of YouTubeOptions. A broadcaster gives a reader up after 30 s
// without an ack, and would not know why.
const (
	DefaultYouTubePiece    = 8 << 20
	DefaultYouTubePatience = 25 * time.Second
)

// YouTubeOptions say how the store youtube: uploads.
type YouTubeOptions struct {
	Title       string // of a video; {name} stands for the name of the file; "": {name}
	Description string // the same
	Privacy     string // private, unlisted or public; "": private
	Tags        []string
	Category    string // its number; "": YouTube's default
	Token       string // file that sbcast youtube login has made; "": DefaultYouTubeToken

	Piece    int           // most bytes in one request, and in memory for a file; 0: DefaultYouTubePiece
	Patience time.Duration // how long it tries again without getting further; 0: DefaultYouTubePatience
}

// youtube uploads each file as a video, by the resumable upload protocol of
// the YouTube Data API. The last bytes, at most youtubeUnit, are held back
// until commit: a session that does not get them never becomes a video. What
// is needed to go on after a restart is in a record.
//
// https://developers.google.com/youtube/v3/guides/using_resumable_upload_protocol
type youtube struct {
	spec     string
	endpoint string
	opts     YouTubeOptions
	client   *http.Client
	key      *youtubeKey
	ttl      time.Duration // of sessions
	notes    *records
	slots    chan struct{} // one for each upload under way
}

// youtubeRecord is what is kept of an upload: first its session, then the
// video that came of it. Content up to Offset is confirmed; Marks are the
// CRC32Cs after each further youtubeUnit of what was being sent, as how much
// of that has arrived is known only to the service.
type youtubeRecord struct {
	Name   string          `json:"name"`
	ID     string          `json:"id"` // of the transfer
	Source string          `json:"source"`
	Size   int64           `json:"size"`            // as offered
	Total  int64           `json:"total,omitempty"` // once all is known
	Digest protocol.Digest `json:"digest,omitempty"`

	Session string   `json:"session,omitempty"`
	Offset  int64    `json:"offset,omitempty"`
	CRC     uint32   `json:"crc,omitempty"`
	Marks   []uint32 `json:"marks,omitempty"`

	Video string    `json:"video,omitempty"`
	When  time.Time `json:"when,omitzero"`
}

func openYouTube(rest string, o Options) (*youtube, error) {
	opts := o.YouTube
	y := &youtube{spec: "youtube:" + rest, endpoint: youtubeEndpoint, slots: make(chan struct{}, youtubeUploads)}
	query, err := url.ParseQuery(strings.TrimPrefix(rest, "?"))
	if err != nil || rest != "" && rest[0] != '?' {
		return nil, fmt.Errorf("sink %s: want youtube: or youtube:?endpoint=URL", y.spec)
	}
	for name := range query {
		if name != "endpoint" {
			return nil, fmt.Errorf("sink %s: %q is not known: titles and the like are flags, --youtube-title and so on", y.spec, name)
		}
		if y.endpoint, err = checkEndpoint(query.Get(name)); err != nil {
			return nil, fmt.Errorf("sink %s: %w", y.spec, err)
		}
	}
	if opts.Title == "" {
		opts.Title = nameInURL
	}
	if opts.Privacy == "" {
		opts.Privacy = "private"
	}
	if opts.Piece == 0 {
		opts.Piece = DefaultYouTubePiece
	}
	if opts.Patience == 0 {
		opts.Patience = DefaultYouTubePatience
	}
	switch opts.Privacy {
	case "private", "unlisted", "public":
	default:
		return nil, fmt.Errorf("sink %s: --youtube-privacy is private, unlisted or public, not %q", y.spec, opts.Privacy)
	}
	if opts.Piece < youtubeUnit || opts.Piece%youtubeUnit != 0 {
		return nil, fmt.Errorf("sink %s: --youtube-piece must be a multiple of 256K", y.spec)
	}
	y.opts = opts
	if y.key, err = openYouTubeKey(opts.Token); err != nil {
		return nil, fmt.Errorf("sink %s: %w", y.spec, err)
	}
	if y.client, err = httpClient(""); err != nil {
		return nil, fmt.Errorf("sink %s: %w", y.spec, err)
	}
	y.client.Transport.(*http.Transport).DisableKeepAlives = false // many requests, one after the other
	y.client.Transport.(*http.Transport).IdleConnTimeout = time.Minute
	if y.notes, err = openRecords(o.State, y.spec); err == nil {
		err = y.notes.lock()
	}
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", y.spec, err)
	}
	y.ttl = min(cmp.Or(o.PartTTL, DefaultPartTTL), publishedFor)
	y.clean()
	return y, nil
}

// clean forgets sessions that nobody came back for, which expire by
// themselves, and videos that were published long ago.
func (y *youtube) clean() {
	y.notes.expire(y.ttl, func(_ context.Context, text json.RawMessage) bool {
		var r youtubeRecord
		return json.Unmarshal(text, &r) != nil || r.Video == "" || time.Since(r.When) > publishedFor
	})
}

// Close is for when no file is under way any more.
func (y *youtube) Close() error {
	y.notes.close()
	y.client.CloseIdleConnections()
	return nil
}

// checkEndpoint refuses to send tokens over the network in the clear.
func checkEndpoint(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return "", fmt.Errorf("%q is not the URL of an endpoint", text)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())) {
		return "", fmt.Errorf("the endpoint %s gets tokens: want https, or this machine", text)
	}
	return strings.TrimSuffix(text, "/"), nil
}

func (y *youtube) String() string { return y.spec }

// serial asks for one file after the other: they share one uplink.
func (y *youtube) serial() {}

// Create implements Store. YouTube has no names, so nothing is ever replaced:
// --force makes another video of what is there already, once for each push.
func (y *youtube) Create(ctx context.Context, r Request) (_ File, have Have, err error) {
	y.clean()
	if err := y.check(r.Offer); err != nil {
		return nil, have, err
	}
	if err := y.notes.take(string(r.Name)); err != nil {
		return nil, have, err
	}
	select {
	case y.slots <- struct{}{}:
	default:
		y.notes.release(string(r.Name))
		return nil, have, protocol.Errorf(protocol.CodeBusy, "youtube: %d uploads are under way, which is the most at once", youtubeUploads)
	}
	f := &youtubeFile{youtube: y, offer: r.Offer, life: ctx, piece: youtubeUnit}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	f.record = youtubeRecord{Name: string(r.Name), ID: r.ID, Source: sourceKey(r.Offer), Size: r.Size}
	have = Have{ByCRC: true}
	var old youtubeRecord
	if !y.notes.load(string(r.Name), &old) {
		return f, have, nil
	}
	same := old.Source == f.record.Source && old.Size == r.Size
	switch {
	case same && old.Video != "" && (!r.Force || old.ID == r.ID) && old.Digest.Algorithm() == r.Digest:
		f.record, f.published = old, true
		return f, Have{Offset: old.Total, Published: true, Digest: old.Digest}, nil
	case old.Session == "":
		return f, have, nil
	case same:
		return f.resume(old)
	}
	y.cancel(old.Session)
	return f, have, y.forget(string(r.Name))
}

func (y *youtube) forget(name string) error {
	if err := y.notes.drop(name); err != nil {
		return fmt.Errorf("youtube: forget the upload of %q: %w", name, err)
	}
	return nil
}

// check refuses what YouTube would.
func (y *youtube) check(o *protocol.Offer) error {
	if o.Size == 0 {
		return errNoVideo(o.Name)
	}
	title, about := y.text(y.opts.Title, string(o.Name)), y.text(y.opts.Description, string(o.Name))
	switch n := utf8.RuneCountInString(title); {
	case n > maxTitle:
		return protocol.Errorf(protocol.CodeName, "youtube: the title %q has %d characters, YouTube takes %d: see --youtube-title", title, n, maxTitle)
	case strings.ContainsAny(title+about, "<>"):
		return protocol.Errorf(protocol.CodeName, "youtube: YouTube takes no < or > in titles and descriptions: %q", title)
	case len(about) > maxDescription:
		return protocol.Errorf(protocol.CodeName, "youtube: the description has %d bytes, YouTube takes %d", len(about), maxDescription)
	}
	return nil
}

func errNoVideo(name protocol.Name) error {
	return protocol.Errorf(protocol.CodeUnsupported, "youtube: %q is empty, which YouTube does not take", name)
}

func (y *youtube) text(template, name string) string {
	return strings.ReplaceAll(template, nameInURL, name)
}

// metadata is the description of a video, as the API has it.
func (y *youtube) metadata(name string) ([]byte, error) {
	snippet := map[string]any{"title": y.text(y.opts.Title, name)}
	if about := y.text(y.opts.Description, name); about != "" {
		snippet["description"] = about
	}
	if len(y.opts.Tags) > 0 {
		snippet["tags"] = y.opts.Tags
	}
	if y.opts.Category != "" {
		snippet["categoryId"] = y.opts.Category
	}
	return json.Marshal(map[string]any{"snippet": snippet, "status": map[string]string{"privacyStatus": y.opts.Privacy}})
}

// errGone says that a session cannot be gone on with.
var errGone = errors.New("the upload session is gone")
