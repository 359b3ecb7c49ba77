package devcluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/drover-nomad/drover/devcluster/pdns"
)

// agent is Path, and finds what is not built.
func (t Tools) agent(ctx context.Context, name string) (string, error) {
	if name == PowerDNS {
		return pdns.Path()
	}
	return t.Path(ctx, name)
}

// dnsFiles makes what PowerDNS keeps, unless it is there, and its
// configuration.
func (l *layout) dnsFiles(ctx context.Context, a *agentSpec) error {
	if err := mkdir(l.path("dns"), 0o700); err != nil {
		return err
	}
	c := l.pdns()
	key, err := os.ReadFile(l.path("dns", dnsKeyFile))
	if errors.Is(err, os.ErrNotExist) {
		key = []byte(rand.Text())
		err = writeFile(l.path("dns", dnsKeyFile), key, 0o600)
	}
	if err != nil {
		return err
	}
	c.Key = string(key)
	a.config = c.Text()
	return c.Create(ctx)
}

// powerdnsReady returns an error that names what PowerDNS still lacks. When it
// returns nil, PowerDNS answers for the zone.
func (l *layout) powerdnsReady(ctx context.Context, hc *http.Client) error {
	key, err := os.ReadFile(l.path("dns", dnsKeyFile))
	if err != nil {
		return err
	}
	call := func(method, path, body string) (int, error) {
		req, err := http.NewRequestWithContext(ctx, method, l.powerdns().httpAddr(l.Ports)+"/api/v1/servers/localhost/zones"+path, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		req.Header.Set("X-API-Key", string(key))
		res, err := hc.Do(req)
		if err != nil {
			return 0, err
		}
		defer func() { _ = res.Body.Close() }()
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, err
	}
	status, err := call(http.MethodGet, "/"+DNSZone+".", "")
	if err == nil && status == http.StatusNotFound {
		status, err = call(http.MethodPost, "", fmt.Sprintf(`{"name":"%[1]s.","kind":"Native","nameservers":["ns1.%[1]s."]}`, DNSZone))
	}
	if err != nil {
		return err
	}
	if status >= http.StatusMultipleChoices {
		return fmt.Errorf("its API answers %d", status)
	}
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, l.dnsServer())
	}}
	_, err = r.LookupNS(ctx, DNSZone+".")
	return err
}
