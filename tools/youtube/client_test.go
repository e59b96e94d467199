// Package youtube checks the stand-in for YouTube with Google's own client:
// what the client does, the stand-in has to take, and what the client expects
// it has to answer. It is a module of its own so that sbcast does not depend
// on the client.
package youtube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/youtube/v3"

	"github.com/sbcast/sbcast/daemon/sink/youtubetest"
)

// service is Google's client, for a stand-in.
func service(t *testing.T) (*youtubetest.Server, *youtube.Service) {
	t.Helper()
	s := youtubetest.New()
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	_, refresh := s.Grant()
	config := oauth2.Config{ClientID: youtubetest.ClientID, ClientSecret: youtubetest.Secret(), Endpoint: oauth2.Endpoint{TokenURL: web.URL + "/token"}}
	client, err := youtube.NewService(t.Context(),
		option.WithEndpoint(web.URL), option.WithTokenSource(config.TokenSource(context.Background(), &oauth2.Token{RefreshToken: refresh})))
	require.NoError(t, err)
	return s, client
}

func film(size int) []byte {
	b := make([]byte, size)
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// onlyReader hides the size of what it reads.
type onlyReader struct{ io.Reader }

func insert(t *testing.T, client *youtube.Service, content io.Reader, title string) (*youtube.Video, error) {
	t.Helper()
	call := client.Videos.Insert([]string{"snippet", "status"}, &youtube.Video{
		Snippet: &youtube.VideoSnippet{Title: title, Description: "about it", Tags: []string{"a", "b"}, CategoryId: "22"},
		Status:  &youtube.VideoStatus{PrivacyStatus: "unlisted"},
	})
	return call.Media(content, googleapi.ChunkSize(2*youtubetest.Unit), googleapi.ContentType("application/octet-stream"), googleapi.ChunkRetryDeadline(20*time.Second)).Do()
}

func TestGooglesClientUploads(t *testing.T) {
	for _, size := range []int{2*youtubetest.Unit + 1, 4 * youtubetest.Unit, 7*youtubetest.Unit + 5} {
		for name, faults := range map[string][]youtubetest.Fault{
			"well":          nil,
			"piece busy":    {{On: youtubetest.Piece, Status: 503}, {On: youtubetest.Piece, Status: 429, Reason: "rateLimitExceeded"}},
			"piece, second": {{On: youtubetest.Piece}, {On: youtubetest.Piece, Status: 502}},
		} {
			t.Run(name+" "+strconv.Itoa(size), func(t *testing.T) {
				t.Parallel()
				s, client := service(t)
				s.Fail(faults...)
				content := film(size)
				video, err := insert(t, client, onlyReader{bytes.NewReader(content)}, "Our film")
				require.NoError(t, err, "%q", s.Requests())
				assert.Zero(t, s.Pending(), "a fault did not come about")
				sum := sha256.Sum256(content)
				want := youtubetest.Video{
					ID: video.Id, Title: "Our film", Description: "about it", Tags: []string{"a", "b"}, CategoryID: "22",
					Privacy: "unlisted", Size: int64(size), SHA256: hex.EncodeToString(sum[:]),
				}
				assert.Equal(t, []youtubetest.Video{want}, s.Videos())
				assert.Equal(t, "Our film", video.Snippet.Title)
				assert.Equal(t, "uploaded", video.Status.UploadStatus)
				assert.GreaterOrEqual(t, strings.Count(strings.Join(s.Requests(), "\n"), "piece bytes"), size/(2*youtubetest.Unit))
			})
		}
	}
}

// The client understands the errors of the stand-in as those of YouTube.
func TestGooglesClientIsRefused(t *testing.T) {
	content := film(3 * youtubetest.Unit)
	refused := func(t *testing.T, prepare func(*youtubetest.Server), title string) *googleapi.Error {
		t.Helper()
		s, client := service(t)
		prepare(s)
		_, err := insert(t, client, onlyReader{bytes.NewReader(content)}, title)
		var e *googleapi.Error
		require.True(t, errors.As(err, &e), "%v", err)
		assert.Empty(t, s.Videos())
		return e
	}
	e := refused(t, func(s *youtubetest.Server) { s.SetQuota(youtubetest.UnitsOfInsert - 1) }, "Our film")
	assert.Equal(t, 403, e.Code)
	assert.Equal(t, "quotaExceeded", e.Errors[0].Reason)

	e = refused(t, func(*youtubetest.Server) {}, "<no title>")
	assert.Equal(t, 400, e.Code)

	e = refused(t, func(s *youtubetest.Server) { s.Fail(youtubetest.Fault{On: youtubetest.Piece, Forget: true}) }, "Our film")
	assert.Equal(t, 404, e.Code)

	s, client := service(t)
	s.Expire(true)
	_, err := insert(t, client, onlyReader{bytes.NewReader(content)}, "Our film")
	require.ErrorContains(t, err, "invalid_grant")
}
