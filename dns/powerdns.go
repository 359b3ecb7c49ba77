package dns

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// powerDNS speaks the HTTP API of the PowerDNS authoritative server. One
// PATCH of a zone is one transaction there: all of it or nothing.
type powerDNS struct {
	api  *apiClient
	base string // URL of the server, below which the zones are
	key  secret
}

func openPowerDNS(o Options) (Provider, error) {
	base, err := o.serverURL(`server = "https://ns1.example.org:8081"`)
	if err != nil {
		return nil, err
	}
	client, err := o.httpClient()
	if err != nil {
		return nil, err
	}
	key, err := o.credential("PDNS_API_KEY")
	if err != nil {
		return nil, err
	}
	p := &powerDNS{
		api:  &apiClient{provider: ProviderPowerDNS, http: client, clock: o.Clock, secret: key},
		base: base + "/api/v1/servers/" + url.PathEscape(cmp.Or(o.ServerID, "localhost")),
		key:  key,
	}
	return &setProvider{backend: p}, nil
}

// httpClient verifies servers with the CA of the options, if there is one. It
// follows no redirect: the credential must not go elsewhere.
func (o Options) httpClient() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	pem, err := o.ca()
	if err != nil {
		return nil, err
	}
	if len(pem) > 0 || o.CAFile != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, optionsf("%s holds no certificate", cmp.Or(o.CAFile, "the CA of the DNS provider "+o.Provider))
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

type pdnsZone struct {
	RRsets []pdnsSet `json:"rrsets"`
}

type pdnsSet struct {
	Name       string       `json:"name"`
	Type       string       `json:"type"`
	TTL        int          `json:"ttl,omitempty"`
	ChangeType string       `json:"changetype,omitempty"`
	Records    []pdnsRecord `json:"records,omitempty"`
}

type pdnsRecord struct {
	Content  string `json:"content"`
	Disabled bool   `json:"disabled"`
}

func (p *powerDNS) sets(ctx context.Context, zone string, only []Key) (map[Key]Set, error) {
	query := ""
	if len(only) == 1 {
		query = "?" + url.Values{"rrset_name": {fqdn(only[0].Name)}, "rrset_type": {only[0].Type}}.Encode()
	}
	var z pdnsZone
	if err := p.call(ctx, http.MethodGet, zone, query, nil, &z); err != nil {
		return nil, err
	}
	out := map[Key]Set{}
	for _, rs := range z.RRsets {
		key := Key{strings.ToLower(strings.TrimSuffix(rs.Name, ".")), rs.Type}
		set := Set{TTL: rs.TTL}
		for _, r := range rs.Records {
			v, err := fromZoneSyntax(rs.Type, r.Content)
			if err != nil {
				v = r.Content
			}
			set.Values = append(set.Values, v)
		}
		slices.Sort(set.Values)
		out[key] = set
	}
	return out, nil
}

func (p *powerDNS) apply(ctx context.Context, zone string, edits []Edit) error {
	var z pdnsZone
	for _, e := range edits {
		rs := pdnsSet{Name: fqdn(e.Name), Type: e.Type, ChangeType: "DELETE"}
		if e.Set != nil {
			rs.ChangeType, rs.TTL = "REPLACE", e.Set.TTL
			for _, v := range e.Set.Values {
				rs.Records = append(rs.Records, pdnsRecord{Content: toZoneSyntax(e.Type, v)})
			}
		}
		z.RRsets = append(z.RRsets, rs)
	}
	return p.call(ctx, http.MethodPatch, zone, "", z, nil)
}

func (p *powerDNS) call(ctx context.Context, method, zone, query string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+"/zones/"+url.PathEscape(fqdn(zone))+query, body)
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", p.key.reveal())
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.api.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return &Error{Provider: ProviderPowerDNS, Kind: KindUnavailable, Msg: "the answer broke off", Err: err}
	}
	if resp.StatusCode >= 300 {
		var said struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(b, &said) != nil || said.Error == "" {
			said.Error = firstLine(string(b))
		}
		said.Error = cmp.Or(p.key.redact(said.Error), resp.Status)
		e := &Error{Provider: ProviderPowerDNS, Kind: KindRefused, Msg: said.Error}
		if resp.StatusCode == http.StatusNotFound || strings.HasPrefix(said.Error, "Could not find domain") {
			e.Kind, e.Msg = KindNoZone, fmt.Sprintf("%s does not have the zone %s", req.URL.Host, zone)
		}
		return e
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &Error{Provider: ProviderPowerDNS, Kind: KindUnavailable, Msg: req.URL.Host + " does not speak the API of PowerDNS", Err: err}
	}
	return nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.TrimSpace(s)
}
