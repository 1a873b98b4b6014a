// Package page holds the page of the lab: the files that a browser needs, and
// nothing that runs on the server. There is no build step: what is here is what the
// browser gets.
package page

import (
	"embed"
	"io/fs"
)

//go:embed index.html *.js *.css tours/*.json
var files embed.FS

// Files are the files of the page; index.html is the page itself.
var Files fs.FS = files
