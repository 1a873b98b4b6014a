package cli

import (
	"cmp"
	"context"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) talkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "talk [ADDRESS]", Short: "Talk to a server in lines of JSON, as nc does", GroupID: groupClient,
		Long: `Opens a connection to a server, sends what you type and prints what it answers, as nc does: lines of JSON, such as

  {"op":"put","key":"x","value":"1"}

^C ends it. At the end of its input it waits until the server has answered everything.`,
		Args:              a.takes(0, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := a.talkAddress(args)
			if err != nil {
				return err
			}
			return a.talk(cmd.Context(), address)
		},
	}
}

// talkAddress returns the server to talk to: the named one, or the first that a
// client would ask.
func (a *app) talkAddress(args []string) (string, error) {
	if len(args) == 0 {
		targets, err := a.targets()
		if err != nil {
			return "", err
		}
		return targets[0], nil
	}
	members, err := a.members()
	if err != nil {
		return "", err
	}
	e, err := a.resolve(args[0], members)
	if err != nil {
		return "", usagef("%v", err)
	}
	return e.address, nil
}

// talk copies in both directions until the server closes, or ctx is done.
func (a *app) talk(ctx context.Context, address string) error {
	soon, cancel := context.WithTimeout(ctx, cmp.Or(a.flags.timeout, defaultTimeout))
	defer cancel()
	conn, err := a.open(soon, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go func() {
		// A read from standard input cannot be stopped: this goroutine stays
		// until its input or the process ends.
		lines := &lastByte{Writer: conn, last: '\n'}
		io.Copy(lines, a.stdin)
		if lines.last != '\n' {
			// The end of the input also ends the last line.
			io.WriteString(conn, "\n")
		}
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}()
	// However the connection ends, there is no more output.
	io.Copy(a.stdout, conn)
	return nil
}

// lastByte remembers the last byte written.
type lastByte struct {
	io.Writer
	last byte
}

func (w *lastByte) Write(b []byte) (int, error) {
	if len(b) > 0 {
		w.last = b[len(b)-1]
	}
	return w.Writer.Write(b)
}
