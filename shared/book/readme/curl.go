package readme

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// playCurl implements curl, as far as READMEs use it:
//
//	curl [-s] [-S] [-i] [-L] [-X METHOD] [-d DATA] [-H HEADER] [--cacert FILE] URL
//
// With -i it prints the headers in the order of their names.
func playCurl(args []string) int {
	args, ca, err := curlCA(args)
	var r *http.Request
	var show, follow bool
	if err == nil {
		r, show, follow, err = curlRequest(args)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "curl: %v; this stand-in takes [-s] [-S] [-i] [-L] [-X METHOD] [-d DATA] [-H HEADER] [--cacert FILE] URL\n", err)
		return 2
	}
	client := &http.Client{Timeout: time.Minute}
	if ca != nil {
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca}}
	}
	if !follow {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	answer, err := client.Do(r)
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		fmt.Fprintln(os.Stderr, "curl: (60) SSL certificate problem: unable to get local issuer certificate")
		return 60
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "curl: (7) Failed to connect to %s port %s: Could not connect to server\n", r.URL.Hostname(), r.URL.Port())
		return 7
	}
	defer answer.Body.Close()
	if show {
		fmt.Printf("%s %s\r\n", answer.Proto, answer.Status)
		for _, name := range slices.Sorted(maps.Keys(answer.Header)) {
			fmt.Printf("%s: %s\r\n", name, strings.Join(answer.Header[name], ", "))
		}
		fmt.Print("\r\n")
	}
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		fmt.Fprintln(os.Stderr, "curl: (18)", err)
		return 18
	}
	return 0
}

// curlCA removes --cacert and its file from the arguments, and returns the certificates
// in the file; nil for none.
func curlCA(args []string) (rest []string, ca *x509.CertPool, err error) {
	i := slices.Index(args, "--cacert")
	switch {
	case i < 0:
		return args, nil, nil
	case i+1 == len(args):
		return nil, nil, errors.New("option --cacert: requires parameter")
	}
	text, err := os.ReadFile(args[i+1])
	if err != nil {
		return nil, nil, err
	}
	ca = x509.NewCertPool()
	if !ca.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("%s has no certificate", args[i+1])
	}
	return slices.Delete(slices.Clone(args), i, i+2), ca, nil
}

// curlRequest returns the request for the arguments, whether to show the
// headers of the answer, and whether to follow redirects.
func curlRequest(args []string) (r *http.Request, show, follow bool, err error) {
	var method, data, address string
	hasData := false
	headers := make(http.Header)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if (arg == "-X" || arg == "-d" || arg == "-H") && i+1 == len(args) {
			return nil, false, false, fmt.Errorf("option %s: requires parameter", arg)
		}
		switch {
		case arg == "-X":
			i++
			method = args[i]
		case arg == "-d":
			i++
			data, hasData = args[i], true
		case arg == "-H":
			i++
			name, value, _ := strings.Cut(args[i], ":")
			headers.Add(name, strings.TrimSpace(value))
		case arg == "-i":
			show = true
		case arg == "-L":
			follow = true
		case arg == "-s", arg == "-S":
		case strings.HasPrefix(arg, "-"), address != "":
			return nil, false, false, fmt.Errorf("option %s: is unknown", arg)
		default:
			address = arg
		}
	}
	if address == "" {
		return nil, false, false, errors.New("no URL specified")
	}
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	if method == "" && hasData {
		method = http.MethodPost
	}
	r, err = http.NewRequest(method, address, strings.NewReader(data))
	if err == nil && hasData {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if err == nil {
		maps.Copy(r.Header, headers)
	}
	return r, show, follow, err
}
