package udp_test

import (
	"testing"

	"example.com/raftsteps/shared/core/transport/conform"
	"example.com/raftsteps/shared/core/transport/udp"
)

func TestMain(m *testing.M) { conform.Main(m) }

func TestConform(t *testing.T) {
	conform.Run(t, conform.Subject{Name: udp.Name, Network: "udp", Loses: true})
}

// With TLS, the servers agree on their keys over it.
func TestConformTLS(t *testing.T) {
	conform.Run(t, conform.Subject{Name: udp.Name, Network: "udp", Loses: true, TLS: true})
}
