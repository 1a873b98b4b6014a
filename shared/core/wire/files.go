package wire

import "log/slog"

// Of the files that a process may open, clients get those that neither the disk
// nor the peers need. For these, at most keptFiles are reserved, and at least
// fewFiles.
const (
	keptFiles = 384
	fewFiles  = 40
)

// fitFiles lowers Conns and Newcomers to fit the number of files that the process
// may open: a connection must not use up the file that the next snapshot needs.
func (l *Limits) fitFiles(files int, log *slog.Logger) {
	kept := min(keptFiles, max(fewFiles, files*3/8))
	l.Newcomers = min(l.Newcomers, kept/4)
	if free := max(1, files-kept); free < l.Conns {
		log.Warn("this process may open few files, so it takes fewer clients; raise the limit (ulimit -n) for more",
			"files", files, "kept_for_disk_and_peers", kept, "clients", free, "instead_of", l.Conns)
		l.Conns = free
	}
	if l.PerAddress == 0 {
		l.PerAddress = max(1, l.Conns/2)
	}
}
