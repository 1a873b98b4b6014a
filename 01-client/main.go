// Stage 01 is the server of stage 00 and a client that says whether a write
// happened.
package main

import (
	"context"
	"log/slog"
	"net"

	"example.com/raftsteps/01-client/client"
	"example.com/raftsteps/01-client/server"
	"example.com/raftsteps/shared/run/cli"
)

var stage = cli.Stage{
	Name:  "01-client",
	About: "A key-value store and a client that says whether a write happened.",
	Ops:   server.Ops,
	Serve: func(ctx context.Context, ln net.Listener, log *slog.Logger) error {
		return server.New().Serve(ctx, ln, log)
	},
	Dial: func(endpoints []string, how ...cli.DialOption) cli.Client { return client.New(endpoints, how...) },
	Demo: demo,
}

func main() { cli.Main(stage) }
