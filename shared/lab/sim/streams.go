package sim

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Every part of the world has its own random stream: each message of each link,
// each life of each server, each client and each fault. All streams are derived
// from the seed. So if one message is lost, by a filter or by a user who tries
// "what if", the run differs only in the consequences of that loss.

// stream returns the random stream of one part of the world.
func (w *World) stream(kind string, numbers ...uint64) *rand.Rand {
	return rand.New(rand.NewPCG(w.options.Seed, streamSeed(w.options.Seed, kind, numbers...)))
}

func streamSeed(seed uint64, kind string, numbers ...uint64) uint64 {
	h := fnv.New64a()
	h.Write([]byte(kind))
	for _, n := range append([]uint64{seed}, numbers...) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
	return mix(h.Sum64())
}

// mix spreads neighboring numbers over all 64 bits (the finalizer of
// SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// messages is the random stream of one link, connection or disk. It restarts
// for each message, request or moment, so that the fate of one does not depend
// on how many came before it.
type messages struct {
	seed   uint64
	source rand.PCG
	rng    *rand.Rand
}

func (m *messages) init(seed uint64) {
	m.seed = seed
	m.rng = rand.New(&m.source)
}

// of returns the stream of the message with that number.
func (m *messages) of(number uint64) *rand.Rand {
	m.source.Seed(m.seed, mix(number))
	return m.rng
}

// between draws a duration from a range, both ends included.
func between(rng *rand.Rand, r [2]time.Duration) time.Duration {
	if r[1] <= r[0] {
		return r[0]
	}
	return r[0] + time.Duration(rng.Int64N(int64(r[1]-r[0])+1))
}

// chance is true with probability p.
func chance(rng *rand.Rand, p float64) bool { return rng.Float64() < p }
