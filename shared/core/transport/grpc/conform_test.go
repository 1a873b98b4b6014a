package grpc

import (
	"testing"

	"example.com/raftsteps/shared/core/transport/conform"
)

// subject is gRPC, which carries only what a server would send.
var subject = conform.Subject{Name: Name, Network: "tcp", Before: `{"term":1,"installSnapshot":{"data":"`, After: `"}}`}

func TestMain(m *testing.M) { conform.Main(m) }

func TestConform(t *testing.T) { conform.Run(t, subject) }

func TestConformTLS(t *testing.T) {
	s := subject
	s.TLS = true
	conform.Run(t, s)
}
