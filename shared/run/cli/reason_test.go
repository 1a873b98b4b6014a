package cli

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

// TestReason checks that the cause of an error is found by its type, not by its
// text.
func TestReason(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for want, err := range map[string]error{
		"connection refused":                       &api.Error{Message: "x", Cause: refused},
		"no such host":                             &api.Error{Message: "x", Cause: &net.DNSError{IsNotFound: true}},
		"no route to host":                         &api.Error{Message: "x", Cause: fmt.Errorf("dialing: %w", syscall.EHOSTUNREACH)},
		"a proxy says connection refused":          &api.Error{Message: "a proxy says connection refused"},
		"n1 has not answered; connection refused?": &api.Error{Message: "n1 has not answered; connection refused?", Definite: true},
		"what else":                                fmt.Errorf("what else"),
	} {
		require.Equal(t, want, (&app{}).reason(err))
	}
	late := &api.Error{Message: "late", Cause: &api.Error{Message: "x", Cause: refused}}
	require.Equal(t, "connection refused", (&app{}).reason(late), "the cause must be found inside another error")
}
