// Command steps is the tool for learners: it lists the stages, shows
// what a stage changes, and checks the stages against what their READMEs say.
//
//	go run ./shared/cmd/steps help
package main

import (
	"context"
	"os"
	"os/signal"

	"example.com/raftsteps/shared/book/steps"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := steps.Run(ctx, ".", os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
