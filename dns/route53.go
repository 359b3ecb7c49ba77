//go:build route53

package dns

import (
	"context"

	"github.com/libdns/libdns"
	"github.com/libdns/route53"
)

// route53Provider is libdns/route53, whose credentials come from where every
// AWS program takes them: environment, shared configuration, instance role.
// It retries by itself, and changes one record set at a time.
type route53Provider struct{ *route53.Provider }

func openRoute53(o Options) (Provider, error) {
	if o.CredentialEnv != "" || o.CredentialFile != "" {
		return nil, optionsf("the DNS provider route53 takes its credentials from AWS_* or the shared configuration; leave credential_file and credential_env out")
	}
	return route53Provider{&route53.Provider{}}, nil
}

func (p route53Provider) GetRecords(ctx context.Context, zone string) ([]libdns.Record, error) {
	records, err := p.Provider.GetRecords(ctx, fqdn(zone))
	return records, p.err(err)
}

func (p route53Provider) SetRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	records, err := p.Provider.SetRecords(ctx, fqdn(zone), records)
	return records, p.err(err)
}

func (p route53Provider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	records, err := p.Provider.AppendRecords(ctx, fqdn(zone), records)
	return records, p.err(err)
}

func (p route53Provider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	records, err := p.Provider.DeleteRecords(ctx, fqdn(zone), records)
	return records, p.err(err)
}

func (route53Provider) err(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Provider: ProviderRoute53, Kind: kindOf(err), Msg: "the request failed", Err: err}
}
