package grpc

import (
	"testing"

	"example.com/raftsteps/shared/core/transport/conform"
)

func TestConform(t *testing.T) {
	conform.Run(t, conform.Subject{Name: Name, Network: "tcp", Before: `{"term":1,"installSnapshot":{"data":"`, After: `"}}`})
}
