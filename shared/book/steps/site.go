package steps

import (
	"context"
	"errors"
	"fmt"

	"example.com/raftsteps/shared/book/site"
)

const siteHelp = `steps site writes a folder of static files: the lab of every stage, with the stage's
own code as WebAssembly. Any web server can serve it, for example

  go run ./shared/cmd/steps site --out DIR
  python3 -m http.server --bind 127.0.0.1 --directory DIR 8000

With the names or numbers of stages, the site has only these: site --out DIR 02 05.

DIR must be new, empty, or a site that this command has made before: that one is
replaced.
`

// siteCommand is the command site.
func siteCommand(ctx context.Context, c *call) error {
	out := c.flags.String("out", "", "the folder to write; it must be new, empty, or a site already")
	typed, err := c.parse(0, 100)
	if err != nil {
		return err
	}
	if *out == "" {
		return usageError{errors.New("--out is missing: name the folder to write")}
	}
	repo, err := Open(c.dir)
	if err != nil {
		return err
	}
	rungs, err := repo.Ladder()
	if err != nil {
		return err
	}
	o := site.Options{Root: repo.Root, Out: *out, Texts: make(map[string]site.Text), Log: c.stdout}
	for _, r := range rungs {
		o.Texts[r.Stage] = site.Text{Adds: r.Adds, Lacks: r.Lacks}
	}
	for _, name := range typed {
		stage, err := repo.Stage(name)
		if err != nil {
			return usageError{err}
		}
		o.Stages = append(o.Stages, stage.Name)
	}
	err = site.Write(ctx, o)
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.New("interrupted; the folder is as it was")
	case err != nil:
		return err
	}
	fmt.Fprintf(c.stdout, "The site is in %s. Serve it with any web server.\n", *out)
	return nil
}
