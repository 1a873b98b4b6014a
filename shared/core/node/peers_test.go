package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
)

func openPeers(t *testing.T, d disk.Disk, own disk.Incarnation) *Peers {
	t.Helper()
	p, err := OpenPeers(d, own)
	require.NoError(t, err)
	return p
}

// A peer's disk is remembered when Admit returns, and another disk is refused
// from then on, by name.
func TestAPeerIsKnownByItsDisk(t *testing.T) {
	d := disk.NewSim("n1")
	p := openPeers(t, d, 100)
	require.Zero(t, p.Known(2))
	require.NoError(t, p.Admit(2, 7))
	require.NoError(t, p.Admit(3, 8))
	d.CrashWorst()

	p = openPeers(t, d, 100)
	require.Equal(t, disk.Incarnation(7), p.Known(2))
	require.NoError(t, p.Admit(2, 7))
	for _, other := range []disk.Incarnation{9, 0} {
		require.Equal(t, &DiskError{Peer: 2, Known: 7, Now: other}, p.Admit(2, other))
	}
	require.EqualError(t, p.Admit(2, 9), "n2 comes back with another disk (incarnation 0000000000000009, before 0000000000000007), and has forgotten what it promised")
	require.Equal(t, disk.Incarnation(7), p.Known(2))
	require.NoError(t, p.Admit(3, 8))
}

// The power is cut at every disk operation. A peer that was admitted must be
// remembered; a peer whose Admit was cut may be.
func TestAPeerIsRememberedAfterAPowerCut(t *testing.T) {
	for cut := 1; ; cut++ {
		d := disk.NewSim("n1")
		p := openPeers(t, d, 100)
		require.NoError(t, p.Admit(2, 7))
		d.CutPower(cut)
		err := p.Admit(3, 8)
		if err != nil {
			require.Zero(t, p.Known(3))
		}
		d.CrashWorst()
		again := openPeers(t, d, 100)
		require.Equal(t, disk.Incarnation(7), again.Known(2))
		require.NoError(t, again.Admit(3, 8))
		if err == nil {
			require.Greater(t, cut, 5, "creating the file takes several operations, and each must have been cut")
			return
		}
	}
}

// A server without a disk remembers no peers and has no incarnation.
func TestWithoutADisk(t *testing.T) {
	p := openPeers(t, nil, 0)
	require.NoError(t, p.Admit(2, 0))
	require.Zero(t, p.Known(2))
}

func TestPeersOfAnotherJournalAreRefused(t *testing.T) {
	d := disk.NewSim("n1")
	require.NoError(t, openPeers(t, d, 100).Admit(2, 7))
	_, err := OpenPeers(d, 101)
	require.EqualError(t, err, `the file "peers": line 1: it was created next to a journal with incarnation 0000000000000064, and the journal here has 0000000000000065: the journal was lost or replaced, and with it the votes and entries that this server has promised to keep; put the old one back`)
}

func TestDamagedPeersAreRefused(t *testing.T) {
	d := disk.NewSim("n1")
	require.NoError(t, openPeers(t, d, 100).Admit(2, 7))
	text, err := disk.ReadFile(d, peersName)
	require.NoError(t, err)
	for i := range text {
		broken := d.Clone()
		require.True(t, broken.Corrupt(peersName, i, 1))
		_, err := OpenPeers(broken, 100)
		require.Error(t, err, "byte %d", i)
	}
	for _, content := range []string{"", string(text[:len(text)-1]), string(appendSealed(nil, `{"peer":{"id":2,"incarnation":"0000000000000007"}}`)),
		string(appendSealed(nil, `{"peers":{"version":2,"incarnation":"0000000000000064"}}`)), string(text) + string(text)} {
		f, err := disk.Replace(d, peersName, []byte(content))
		require.NoError(t, err)
		require.NoError(t, f.Close())
		_, err = OpenPeers(d, 100)
		require.Error(t, err, "%q", content)
	}
}

func TestPeersAreBounded(t *testing.T) {
	p := openPeers(t, disk.NewSim("n1"), 100)
	for id := range uint64(MaxPeers) {
		p.known[id+1] = 7
	}
	require.ErrorContains(t, p.Admit(MaxPeers+1, 7), "remembers 10000 peers, which is the limit")
	require.NoError(t, p.Admit(1, 7))
}
