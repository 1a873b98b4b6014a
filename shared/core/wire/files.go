package wire

import "log/slog"

// Clients may use the files that a process may open except for those that the
// disk and the peers need. For the disk and the peers, at least fewFiles and at
// most keptFiles are reserved.
const (
	keptFiles = 384
	fewFiles  = 40
)

// fitFiles lowers Conns and Newcomers to fit the number of files that the process
// may open: a client's connection must not take the last file, which the next
// snapshot may need.
func (l *Limits) fitFiles(files int, log *slog.Logger) {
	kept := min(keptFiles, max(fewFiles, files*3/8))
	l.Newcomers = min(l.Newcomers, kept/4)
	if free := max(1, files-kept); free < l.Conns {
		log.Warn("this process may open only few files, so it accepts fewer clients; raise the limit (ulimit -n) for more",
			"files", files, "kept_for_disk_and_peers", kept, "clients", free, "instead_of", l.Conns)
		l.Conns = free
	}
	if l.PerAddress == 0 {
		l.PerAddress = max(1, l.Conns/2)
	}
}
