package wire

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

// The first byte of a connection decides between HTTP and lines of JSON.
func TestHTTPOnTheSamePort(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello "+r.URL.Path) })
	r := serve(t, &Server{Ops: api.Commands(), Handler: store(), HTTP: hello}, listen(t))
	other := newBystander(t, r.ln.Addr().String())
	for range 3 {
		a, err := http.Get("http://" + r.ln.Addr().String() + "/you")
		require.NoError(t, err)
		body, err := io.ReadAll(a.Body)
		require.NoError(t, err)
		require.NoError(t, a.Body.Close())
		require.Equal(t, "hello /you", string(body))
	}
	c := r.dial()
	c.send("\r\n" + put1)
	require.Equal(t, `{"id":1,"ok":true}`, c.line())
	other.unharmed(t)
	other.end(t)
	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, r.end())
}

// A stopping server also answers the HTTP requests in flight.
func TestStopAnswersHTTP(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		select {
		case <-end:
			fmt.Fprint(w, "done")
		case <-r.Context().Done():
			fmt.Fprint(w, "given up")
		}
	})
	r := serve(t, &Server{Ops: api.Commands(), Handler: store(), HTTP: slow}, listen(t))
	answer := make(chan string, 1)
	go func() {
		a, err := http.Get("http://" + r.ln.Addr().String() + "/")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer a.Body.Close()
		body, err := io.ReadAll(a.Body)
		answer <- fmt.Sprint(string(body), err)
	}()
	<-begun
	idle := r.dial()
	r.stop()
	require.Equal(t, stopNo, idle.line()) // by now the stop has reached every connection
	close(end)
	require.Equal(t, "done<nil>", <-answer)
	require.NoError(t, <-r.done)
}
