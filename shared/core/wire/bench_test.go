package wire

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

func benchServer(b *testing.B, h Handler) (address string) {
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &Server{Ops: api.Commands(), Handler: h}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), ln) }()
	b.Cleanup(func() {
		s.Close()
		<-done
	})
	return ln.Addr().String()
}

// BenchmarkServer measures the server alone: the client sends the same lines
// again and again and allocates nothing.
func BenchmarkServer(b *testing.B) {
	line := append(api.Request{ID: 123456, Op: kv.Put, Key: "k1234", Value: strings.Repeat("abcdefgh", 8)}.AppendJSON(nil), '\n')
	for _, c := range []struct {
		name  string
		depth int
	}{{"one at a time", 1}, {"64 at a time", 64}} {
		b.Run(c.name, func(b *testing.B) {
			do := store()
			conn, err := net.Dial("tcp", benchServer(b, func(r api.Request, reply func(api.Response)) { do(r, reply) }))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			var batch []byte
			for i := range c.depth {
				batch = append(api.Request{ID: uint64(i + 1), Op: kv.Put, Key: "k1234", Value: strings.Repeat("abcdefgh", 8)}.AppendJSON(batch), '\n')
			}
			in := bufio.NewReaderSize(conn, 64<<10)
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += c.depth {
				if _, err := conn.Write(batch); err != nil {
					b.Fatal(err)
				}
				for range c.depth {
					if _, err := in.ReadSlice('\n'); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkDo measures client and server together, with one or many requests at
// once, on one connection or on one connection each.
func BenchmarkDo(b *testing.B) {
	for _, c := range []struct {
		name           string
		workers, conns int
	}{{"1 on 1", 1, 1}, {"64 on 64", 64, 64}, {"64 on 1", 64, 1}} {
		b.Run(c.name, func(b *testing.B) {
			address := benchServer(b, store())
			conns := make([]*Conn, c.conns)
			for i := range conns {
				var err error
				if conns[i], err = Dial(b.Context(), address, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var g errgroup.Group
			for w := range c.workers {
				g.Go(func() error {
					r := api.Request{Op: kv.Put, Key: "k1234", Value: strings.Repeat("abcdefgh", 8)}
					for i := w; i < b.N; i += c.workers {
						if _, err := conns[w%c.conns].Do(context.Background(), r); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			for _, conn := range conns {
				conn.Close()
			}
		})
	}
}

// BenchmarkSeal measures what a message of a peer costs for its MAC, both sides.
func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{100, 1000, 100_000} {
		b.Run(fmt.Sprintf("%d bytes", size), func(b *testing.B) {
			message := []byte(strings.Repeat("x", size))
			here, there := newSeal([]byte("key")), newSeal([]byte("key"))
			var out []byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				out = here.append(out[:0], message)
				if _, err := there.open(out[:len(out)-1]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
