package cli

import (
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// build describes how the program was built.
type build struct {
	Stage  string `json:"stage"`
	Module string `json:"module"`
	Go     string `json:"go"`

	// Revision is the commit; "" if the go command did not record one, as with
	// go run. Modified is true if files differed from it.
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
}

// build reads what the go command has recorded in the program.
func (a *app) build() build {
	b := build{Stage: a.stage.Name}
	info, known := debug.ReadBuildInfo()
	if !known {
		return b
	}
	b.Module, b.Go = info.Main.Path, info.GoVersion
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	words := []string{b.Stage}
	if b.Module != "" {
		words = append(words, "module "+b.Module, b.Go)
	}
	if b.Revision != "" {
		words = append(words, "revision "+b.Revision)
	}
	if b.Modified {
		words = append(words, "modified since")
	}
	return strings.Join(words, ", ")
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the stage and how it was built", GroupID: groupLearn,
		Long: "Prints the stage, its module, the version of Go and, if the program was built with go build, the revision of its source.",
		Args: a.takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			b := a.build()
			if a.flags.output != "json" {
				fmt.Fprintln(a.stdout, b)
				return nil
			}
			text, err := json.Marshal(b)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s\n", text)
			return nil
		},
	}
}
