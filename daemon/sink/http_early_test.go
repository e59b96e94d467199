// An answer that comes when all is staged, and before the end of the content.

package sink

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol"
)

func TestHTTPSuccessBeforeTheCommit(t *testing.T) {
	staged := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 1))
		<-staged
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
	}))
	defer s.Close()
	store, err := Open(s.URL+"/", Options{HTTP: HTTPOptions{Method: http.MethodPost}})
	require.NoError(t, err)
	f, _, err := store.Create(t.Context(), Request{Offer: &protocol.Offer{ID: "x", Name: "f", Size: -1}})
	require.NoError(t, err)
	_, err = f.Write([]byte("content"))
	require.NoError(t, err)
	require.NoError(t, f.Stage(t.Context(), ""))
	close(staged)
	<-f.(*httpFile).answer
	_, err = f.Publish(t.Context())
	require.ErrorContains(t, err, "answered 200 OK before it had all content")
	assert.True(t, protocol.HasCode(err, protocol.CodeIO))
	f.Discard(true)
}
