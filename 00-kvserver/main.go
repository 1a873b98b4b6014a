// Stage 00 is a hash map behind a TCP socket: one server, lines of JSON.
package main

import (
	"context"
	"log/slog"
	"net"

	"example.com/raftsteps/00-kvserver/server"
	"example.com/raftsteps/shared/run/cli"
)

var stage = cli.Stage{
	Name:  "00-kvserver",
	About: "A key-value store that answers lines of JSON over TCP.",
	Ops:   server.Ops,
	Serve: func(ctx context.Context, ln net.Listener, log *slog.Logger) error {
		return server.New().Serve(ctx, ln, log)
	},
	Demo: demo,
}

func main() { cli.Main(stage) }
