// Package page is the page of the lab: HTML, CSS and JavaScript modules that show
// films. Nothing is built and nothing is loaded from elsewhere.
package page

import "embed"

// Files are the files of the page; index.html is the first.
//
//go:embed index.html
var Files embed.FS
