// Package cluster runs a cluster on one machine: it has the configuration, the
// data folder, and the servers as real processes.
//
// A cluster.json ([File], [Load], [New]) lists the members. A data folder ([Open])
// holds it, belongs to one stage and one cluster, and is used by one supervisor at
// a time.
//
// A supervisor ([Run]) starts each server as its own process, shows the output of
// the servers with their names, and ends them all on request. A server that
// crashes stays down until an operator restarts it: that is the lesson. From
// another terminal, [Connect] reaches the supervisor to kill, pause, resume and restart
// servers and to cut the links between them.
//
// Servers never outlive their supervisor, however it ends: each holds the
// reading end of a pipe, and stops when the other end is gone.
package cluster
