package main

import "embed"

// sources is the code of the stage. The lab shows the function that has made a
// decision.
//
//go:embed */*.go
var sources embed.FS
