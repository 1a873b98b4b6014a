package server

import "strconv"

// status describes this server as a JSON object.
func (s *Server) status() []byte {
	b := append([]byte(nil), `{"id":`...)
	b = strconv.AppendUint(b, s.world.ID, 10)
	b = append(b, `,"role":"`...)
	b = append(b, s.role()...)
	b = append(b, `","leader":`...)
	b = strconv.AppendUint(b, uint64(s.rules.Leader()), 10)
	b = append(b, `,"keys":`...)
	b = strconv.AppendInt(b, int64(s.store.Len()), 10)
	return append(b, '}')
}
