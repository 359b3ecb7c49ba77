package dns

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/libdns/libdns"
)

// acmeDNS speaks the API of acme-dns, a name server that only answers DNS-01: a CNAME
// _acme-challenge.NAME leads to the name of an account there. The server keeps the two
// newest answers of an account, and deletes none.
type acmeDNS struct {
	api      *apiClient
	base     string
	accounts []acmeDNSAccount
}

// acmeDNSAccount is what the API returns to a registration.
type acmeDNSAccount struct {
	Username   string `json:"username"`
	Password   string `json:"password"`
	FullDomain string `json:"fulldomain"`
	Subdomain  string `json:"subdomain"`
}

func (a acmeDNSAccount) valid() bool {
	return a.Username != "" && a.Password != "" && a.FullDomain != "" && a.Subdomain != ""
}

// openACMEDNS takes a credential as the API returns it, or as its clients keep it: an
// object of one account, or of accounts by any names.
func openACMEDNS(o Options) (Provider, error) {
	base, err := o.serverURL(`server = "https://auth.example.org"`)
	if err != nil {
		return nil, err
	}
	client, err := o.httpClient()
	if err != nil {
		return nil, err
	}
	key, err := o.credential("ACME_DNS_ACCOUNT")
	if err != nil {
		return nil, err
	}
	p := &acmeDNS{api: &apiClient{provider: ProviderACMEDNS, http: client, clock: o.Clock}, base: base}
	var one acmeDNSAccount
	many := map[string]acmeDNSAccount{}
	if json.Unmarshal([]byte(key.reveal()), &one) == nil && one.valid() {
		p.accounts = append(p.accounts, one)
	} else if json.Unmarshal([]byte(key.reveal()), &many) == nil {
		for _, a := range many {
			p.accounts = append(p.accounts, a)
		}
	}
	for _, a := range p.accounts {
		if !a.valid() {
			p.accounts = nil
			break
		}
	}
	if len(p.accounts) == 0 {
		return nil, optionsf("the credential of the DNS provider acme-dns is not JSON of an account, or of accounts by name, with username, password, fulldomain and subdomain: POST %s/register returns it", base)
	}
	return p, nil
}

// GetRecords returns nothing: the API does not list.
func (p *acmeDNS) GetRecords(context.Context, string) ([]libdns.Record, error) { return nil, nil }

// AppendRecords adds the TXT records of accounts.
func (p *acmeDNS) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	for _, r := range records {
		rr := r.RR()
		if err := p.update(ctx, absolute(rr.Name, bareZone(zone)), strings.ToUpper(rr.Type), rr.Data); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// SetRecords refuses everything: the server keeps no other records.
func (p *acmeDNS) SetRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, &Error{Provider: ProviderACMEDNS, Kind: KindRefused, Msg: "it holds nothing but the answers to DNS-01"}
}

// DeleteRecords deletes nothing: a newer answer replaces an older one.
func (p *acmeDNS) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, nil
}

func (p *acmeDNS) update(ctx context.Context, name, typ, text string) error {
	fail := func(kind Kind, format string, args ...any) error {
		return &Error{Provider: ProviderACMEDNS, Kind: kind, Msg: fmt.Sprintf(format, args...)}
	}
	var account acmeDNSAccount
	for _, a := range p.accounts {
		if strings.EqualFold(strings.TrimSuffix(a.FullDomain, "."), name) {
			account = a
		}
	}
	if account.Username == "" || typ != TypeTXT {
		return fail(KindRefused, "the credential has no account for %s %s; a CNAME must lead to the fulldomain of an account", name, typ)
	}
	body, err := json.Marshal(map[string]string{"subdomain": account.Subdomain, "txt": text})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+"/update", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Api-User", account.Username)
	req.Header.Set("X-Api-Key", account.Password)
	api := *p.api
	api.secret = secret{account.Password}
	resp, err := api.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fail(KindRefused, "%s answered %s%s", req.URL.Host, resp.Status, api.said(b))
	}
	return nil
}
