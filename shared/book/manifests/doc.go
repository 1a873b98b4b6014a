// Package manifests has no code. Its tests read the files in 07-membership/deploy as
// Kubernetes, Docker Compose, systemd and Prometheus do: a field that these do not know
// is an error. They start the program with the arguments in the files.
//
// It is a module outside of the repository's go.work, because it needs the types of
// Kubernetes, Compose, PromQL and Docker's ignore files, and nothing else does. Its own
// go.work makes "go test" work in this folder (with -count=1, since go test does not
// notice changed files elsewhere):
//
//	go test -C shared/book/manifests -count=1 .
package manifests
