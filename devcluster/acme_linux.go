package devcluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
)

// add adds Pebble or PowerDNS to a cluster that runs. When that fails the
// cluster is what it was.
func (l *layout) add(ctx context.Context, opts Options) (err error) {
	before := *l
	before.Programs = maps.Clone(l.Programs)
	l.ACME, l.DNS = l.ACME || opts.ACME, l.DNS || opts.DNS
	var added []*agentSpec
	if l.DNS && !before.DNS {
		added = append(added, l.powerdns())
	}
	if l.ACME && !before.ACME {
		added = append(added, l.pebble())
	}
	for _, a := range added {
		if l.Programs[a.program], err = opts.Finder.agent(ctx, a.program); err != nil {
			return err
		}
	}
	if err := l.portsFree(ctx, added); err != nil {
		return err
	}
	for _, a := range added {
		if err := l.configure(ctx, a); err != nil {
			return fmt.Errorf("adding %s to the dev cluster: %w", a.name, err)
		}
	}
	ctl := control{l.dir}
	defer func() {
		if err != nil {
			for _, a := range added {
				_ = ctl.post(context.WithoutCancel(ctx), "/agent/"+a.name+"/stop") // if it runs
			}
			*l = before
			err = errors.Join(err, l.save())
		}
	}()
	if err := l.save(); err != nil {
		return err
	}
	if before.ACME && !before.DNS && l.DNS { // it asks another server for names now
		if err := ctl.post(ctx, "/agent/"+l.pebble().name+"/stop"); err != nil {
			return err
		}
		added = append(added, l.pebble())
	}
	for _, a := range added {
		opts.Events(Event{Subject: a.name, Text: "starting on " + a.httpAddr(l.Ports)})
		if err := ctl.post(ctx, "/agent/"+a.name+"/start"); err != nil {
			return err
		}
	}
	return l.awaitReady(ctx, opts.Timeout, added)
}

// acmeFiles makes the certificate of Pebble's own HTTPS, unless a good one is
// there. The key of its CA is thrown away.
func (l *layout) acmeFiles() error {
	if err := mkdir(l.path("acme"), 0o755); err != nil {
		return err
	}
	now := time.Now()
	if l.acmeFilesGood(now) {
		return nil
	}
	ca, caKey, err := pki.NewCA("drover dev", now)
	if err != nil {
		return err
	}
	cert, key, err := pki.Sign(pki.Leaf{
		CommonName: "pebble", DNSNames: []string{"localhost"}, IPAddresses: []string{l.pebble().addr},
		Lifetime: pki.CALifetime,
	}, ca, caKey, now)
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(l.path("acme", "api-key.pem"), []byte(key), 0o600),
		writeFile(l.path("acme", "api.pem"), []byte(cert), 0o644),
		writeFile(l.path("acme", acmeAPICA), []byte(pki.EncodeCertificate(ca.Raw)), 0o644))
}

func (l *layout) acmeFilesGood(now time.Time) bool {
	read := func(name string) string {
		b, _ := os.ReadFile(l.path("acme", name))
		return string(b)
	}
	ca, cert := pki.First(read(acmeAPICA)), pki.First(read("api.pem"))
	key, err := pki.ParseKey(read("api-key.pem"))
	return err == nil && ca != nil && cert != nil && pki.Fits(cert, key) &&
		cert.CheckSignatureFrom(ca) == nil && !pki.Due(cert, now)
}

// pebbleReady returns an error that names what Pebble still lacks. When it
// returns nil, it has written Pebble's root certificate to its file.
func (l *layout) pebbleReady(ctx context.Context) error {
	b, err := os.ReadFile(l.path("acme", acmeAPICA))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr, Timeout: 5 * time.Second}
	a := l.pebble()
	var dir struct {
		NewOrder string `json:"newOrder"`
	}
	if err := get(ctx, hc, a.httpAddr(l.Ports)+"/dir", &dir); err != nil {
		return err
	}
	if dir.NewOrder == "" {
		return errors.New("no ACME directory yet")
	}
	root, err := fetch(ctx, hc, fmt.Sprintf("https://%s:%d/roots/0", a.addr, l.Ports.ACMEManage))
	if err != nil {
		return err
	}
	if pki.First(string(root)) == nil {
		return errors.New("no root certificate yet")
	}
	return writeFile(l.path("acme", acmeCA), root, 0o644)
}
