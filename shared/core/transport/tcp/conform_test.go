package tcp_test

import (
	"testing"

	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/conform"
)

func TestMain(m *testing.M) { conform.Main(m) }

func TestConform(t *testing.T) {
	conform.Run(t, conform.Subject{Name: transport.TCP, Network: "tcp"})
}

func TestConformTLS(t *testing.T) {
	conform.Run(t, conform.Subject{Name: transport.TCP, Network: "tcp", TLS: true})
}
