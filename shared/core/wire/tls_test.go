package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// certificate returns a certificate for 127.0.0.1 that signs itself, and a pool that
// trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// A client that speaks TLS verifies the server's certificate before it sends
// anything.
func TestDialWithTLS(t *testing.T) {
	own, trusted := certificate(t)
	_, others := certificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := serve(t, &Server{Ops: api.Commands(), Handler: store()}, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{own}}))
	address := ln.Addr().String()
	dial := func(how ...DialOption) error {
		c, err := Dial(t.Context(), address, Limits{}, how...)
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = c.Do(ctx, api.Request{Op: kv.Put, Key: "x", Value: "1"})
		return err
	}
	require.NoError(t, dial(WithTLS(&tls.Config{RootCAs: trusted})))
	err = dial(WithTLS(&tls.Config{RootCAs: others}))
	var e *api.Error
	require.True(t, errors.As(err, &e))
	require.Equal(t, api.Unavailable, e.Code)
	require.True(t, e.Definite)
	require.ErrorContains(t, err, "certificate")
	require.Error(t, dial(), "the server speaks TLS, and this client does not")
	require.NoError(t, r.end())
}
