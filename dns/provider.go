package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libdns/libdns"
)

// Provider is where zones live, in the shape of libdns. The ACME client's
// DNS-01 solver uses the same values. All methods are safe for concurrent
// use and obey their context; zones may be given with or without the dot.
type Provider interface {
	libdns.RecordGetter
	libdns.RecordAppender
	libdns.RecordSetter
	libdns.RecordDeleter
}

// Edit is one record set that a batch writes, or deletes when Set is nil.
// Old is what was there when the batch was planned, nil for nothing, and not
// known when Blind.
type Edit struct {
	Key
	Old, Set *Set
	Blind    bool
}

// Batcher is a Provider that can change several record sets of a zone at
// once: all of them or, with an error, none.
type Batcher interface {
	ApplyBatch(ctx context.Context, zone string, edits []Edit) error
}

// Adjuster is a Provider that cannot hold every set as it is desired, for instance
// not with every TTL. Adjust returns what it can hold instead, so that the plan
// compares with that; a set that is missing in the result is not changed by it.
type Adjuster interface {
	Adjust(ctx context.Context, zone string, want map[Key]Set) (map[Key]Set, error)
}

// Kind of an [Error]: what the error is about, and so whether a retry can help.
type Kind string

// Kinds of errors.
const (
	KindRefused     Kind = "refused"     // the provider refuses this content, and works otherwise
	KindDenied      Kind = "denied"      // the credentials
	KindNoZone      Kind = "no-zone"     // the provider does not have the zone
	KindUnavailable Kind = "unavailable" // down, overloaded, or not answering in time
)

// Error is what a provider says. It never holds a credential.
type Error struct {
	Provider string
	Kind     Kind
	Msg      string
	Err      error // the cause, may be nil
}

func (e *Error) Error() string {
	s := e.Provider + ": " + e.Msg
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// kindOf is the kind of err, "" when a provider did not say.
func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return KindUnavailable
	}
	return ""
}

// stopsZone reports whether all other changes in the zone would fail too.
func stopsZone(err error) bool {
	k := kindOf(err)
	return k == KindDenied || k == KindNoZone || k == KindUnavailable
}

func fqdn(zone string) string { return strings.TrimSuffix(zone, ".") + "." }

// bareZone returns a zone in our form, as a caller of a provider names it.
func bareZone(zone string) string { return strings.ToLower(strings.TrimSuffix(zone, ".")) }

func relative(name, zone string) string {
	if name == zone {
		return "@"
	}
	return strings.TrimSuffix(name, "."+zone)
}

// absolute is the complete form of a name of libdns.
func absolute(name, zone string) string {
	bare := strings.ToLower(strings.TrimSuffix(name, "."))
	switch {
	case bare == "" || bare == "@":
		return zone
	case strings.HasSuffix(name, ".") && inZone(bare, zone):
		return bare
	}
	return bare + "." + zone
}

// toLibdns is a set as libdns records, one for each value.
func toLibdns(zone string, key Key, set Set) []libdns.Record {
	out := make([]libdns.Record, 0, len(set.Values))
	for _, v := range set.Values {
		rr := libdns.RR{Name: relative(key.Name, zone), TTL: time.Duration(set.TTL) * time.Second, Type: key.Type, Data: v}
		switch key.Type {
		case TypeCAA:
			if c, err := parseCAA(v); err == nil {
				out = append(out, libdns.CAA{Name: rr.Name, TTL: rr.TTL, Flags: c.flags, Tag: c.tag, Value: c.value})
				continue
			}
		case TypeTXT:
		default:
			rr.Data = toZoneSyntax(key.Type, v)
		}
		// A record of another type that libdns cannot read is no reason to
		// lose sight of the zone.
		if r, err := rr.Parse(); err == nil {
			out = append(out, r)
		} else {
			out = append(out, rr)
		}
	}
	return out
}

// value is the content of one record in our form.
func value(r libdns.Record) string {
	rr := r.RR()
	raw := rr.Data
	if c, ok := r.(libdns.CAA); ok {
		raw = caa{c.Flags, strings.ToLower(c.Tag), c.Value}.String()
	}
	if !slices.Contains(Types(), rr.Type) {
		return raw
	}
	if v, err := normalizeValue(rr.Type, raw); err == nil {
		return v
	}
	return raw
}

// fromLibdns groups records into sets.
func fromLibdns(zone string, records []libdns.Record) map[Key]Set {
	out := map[Key]Set{}
	for _, r := range records {
		rr := r.RR()
		key := Key{absolute(rr.Name, zone), strings.ToUpper(rr.Type)}
		if n, err := normalizeName(key.Name); err == nil {
			key.Name = n
		}
		ttl := int(rr.TTL / time.Second)
		set, there := out[key]
		if there && set.TTL != ttl {
			ttl = -1 // the values do not agree: differs from everything desired
		}
		set.TTL = ttl
		if v := value(r); !slices.Contains(set.Values, v) {
			set.Values = append(set.Values, v)
		}
		out[key] = set
	}
	for key, set := range out {
		slices.Sort(set.Values)
		out[key] = set
	}
	return out
}

// signatures are made by a server that signs its zones; they stand next to
// everything.
func signature(typ string) bool {
	switch typ {
	case "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "CDS", "CDNSKEY":
		return true
	}
	return false
}

// readZone is what a zone holds, without what a signing server adds.
func readZone(ctx context.Context, p Provider, zone string) (map[Key]Set, error) {
	var (
		sets map[Key]Set
		err  error
	)
	if s, ok := p.(interface {
		readSets(ctx context.Context, zone string) (map[Key]Set, error)
	}); ok {
		sets, err = s.readSets(ctx, zone)
	} else {
		var records []libdns.Record
		records, err = p.GetRecords(ctx, fqdn(zone))
		sets = fromLibdns(zone, records)
	}
	if err != nil {
		return nil, err
	}
	for key := range sets {
		if signature(key.Type) {
			delete(sets, key)
		}
	}
	return sets, nil
}

// setBackend is a provider whose unit is the record set.
type setBackend interface {
	// sets are those of the zone; only, when not nil, are the ones of interest.
	sets(ctx context.Context, zone string, only []Key) (map[Key]Set, error)
	apply(ctx context.Context, zone string, edits []Edit) error
}

// setProvider gives a setBackend the shape of libdns. Reading and writing
// back is serialized here, so that two ACME challenges for one name do not
// lose each other's value.
type setProvider struct {
	backend setBackend
	mu      sync.Mutex
}

// readSets is GetRecords with what libdns has no fields for.
func (p *setProvider) readSets(ctx context.Context, zone string) (map[Key]Set, error) {
	return p.backend.sets(ctx, bareZone(zone), nil)
}

func (p *setProvider) GetRecords(ctx context.Context, zone string) ([]libdns.Record, error) {
	zone = bareZone(zone)
	sets, err := p.backend.sets(ctx, zone, nil)
	if err != nil {
		return nil, err
	}
	var out []libdns.Record
	for _, key := range sortedKeys(sets) {
		out = append(out, toLibdns(zone, key, sets[key])...)
	}
	return out, nil
}

func sortedKeys(sets map[Key]Set) []Key {
	keys := make([]Key, 0, len(sets))
	for k := range sets {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

// Adjust implements [Adjuster].
func (p *setProvider) Adjust(ctx context.Context, zone string, want map[Key]Set) (map[Key]Set, error) {
	b, ok := p.backend.(interface {
		adjust(ctx context.Context, zone string, want map[Key]Set) (map[Key]Set, error)
	})
	if !ok {
		return want, nil
	}
	return b.adjust(ctx, bareZone(zone), want)
}

// ApplyBatch implements [Batcher].
func (p *setProvider) ApplyBatch(ctx context.Context, zone string, edits []Edit) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.backend.apply(ctx, bareZone(zone), edits)
}

func (p *setProvider) SetRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	zone = bareZone(zone)
	want := fromLibdns(zone, records)
	var edits []Edit
	for _, key := range sortedKeys(want) {
		set := withTTL(want[key])
		edits = append(edits, Edit{Key: key, Set: &set, Blind: true})
	}
	if len(edits) == 0 {
		return nil, nil
	}
	if err := p.ApplyBatch(ctx, zone, edits); err != nil {
		return nil, err
	}
	return records, nil
}

func withTTL(s Set) Set {
	if s.TTL <= 0 {
		s.TTL = DefaultTTL
	}
	return s
}

func (p *setProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	zone = bareZone(zone)
	add := fromLibdns(zone, records)
	p.mu.Lock()
	defer p.mu.Unlock()
	have, err := p.backend.sets(ctx, zone, sortedKeys(add))
	if err != nil {
		return nil, err
	}
	var edits []Edit
	for _, key := range sortedKeys(add) {
		set := withTTL(add[key])
		e := Edit{Key: key, Set: &set}
		if old, there := have[key]; there {
			e.Old = &old
			set.TTL, set.Proxied = old.TTL, old.Proxied
			set.Values = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(old.Values), set.Values...))))
			if set.Equal(old) {
				continue
			}
		}
		edits = append(edits, e)
	}
	if len(edits) == 0 {
		return records, nil
	}
	if err := p.backend.apply(ctx, zone, edits); err != nil {
		return nil, err
	}
	return records, nil
}

func (p *setProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	zone = bareZone(zone)
	p.mu.Lock()
	defer p.mu.Unlock()
	have, err := p.backend.sets(ctx, zone, nil)
	if err != nil {
		return nil, err
	}
	left := map[Key]Set{}
	var deleted []libdns.Record
	for _, r := range records {
		rr := r.RR()
		name := absolute(rr.Name, zone)
		for _, key := range sortedKeys(have) {
			if key.Name != name || rr.Type != "" && !strings.EqualFold(rr.Type, key.Type) {
				continue
			}
			set, touched := left[key]
			if !touched {
				set = have[key]
				set.Values = slices.Clone(set.Values)
			}
			if rr.TTL >= time.Second && int(rr.TTL/time.Second) != set.TTL {
				continue
			}
			gone := set
			if rr.Data != "" {
				i := slices.Index(set.Values, value(r))
				if i < 0 {
					continue
				}
				gone.Values = []string{set.Values[i]}
				set.Values = slices.Delete(slices.Clone(set.Values), i, i+1)
			} else {
				set.Values = nil
			}
			deleted = append(deleted, toLibdns(zone, key, gone)...)
			left[key] = set
		}
	}
	var edits []Edit
	for _, key := range sortedKeys(left) {
		old, set := have[key], left[key]
		e := Edit{Key: key, Old: &old}
		if len(set.Values) > 0 {
			e.Set = &set
		}
		edits = append(edits, e)
	}
	if len(edits) == 0 {
		return nil, nil
	}
	if err := p.backend.apply(ctx, zone, edits); err != nil {
		return nil, err
	}
	return deleted, nil
}

// Options say which provider is meant. Credentials are not among them: they
// are given by [Options.WithCredential], or come from CredentialFile, or from
// the environment variable CredentialEnv, by default the one that the
// provider's users know.
type Options struct {
	Provider string `json:"provider"` // one of the names below

	Server   string   `json:"server,omitempty"`    // powerdns, cloudflare, webhook, acme-dns: URL of the API; rfc2136: HOST or HOST:PORT
	ServerID string   `json:"server_id,omitempty"` // powerdns: "localhost" when empty
	Command  []string `json:"command,omitempty"`   // exec: program and arguments
	CAFile   string   `json:"-"`                   // powerdns, webhook, acme-dns: CA bundle of Server
	CA       string   `json:"ca,omitempty"`        // powerdns: the same in PEM, instead of a file

	KeyName      string `json:"key_name,omitempty"`      // rfc2136: name of the TSIG key
	KeyAlgorithm string `json:"key_algorithm,omitempty"` // rfc2136: hmac-sha256 when empty

	// CredentialSecret is the secret of the stack that the caller looks up and
	// passes to WithCredential; the other two are ignored then.
	CredentialSecret string `json:"credential_secret,omitempty"`
	CredentialFile   string `json:"credential_file,omitempty"`
	CredentialEnv    string `json:"credential_env,omitempty"`

	// Getenv is os.Getenv in a program.
	Getenv func(string) string `json:"-"`
	// Clock is for retries; the real one when nil.
	Clock Clock `json:"-"`

	given secret
}

// WithCredential has the credential itself. No way of printing shows it.
func (o Options) WithCredential(text string) Options {
	o.given = secret{strings.TrimSpace(text)}
	return o
}

// Names of the providers.
const (
	ProviderPowerDNS     = "powerdns"
	ProviderRFC2136      = "rfc2136"
	ProviderCloudflare   = "cloudflare"
	ProviderDigitalOcean = "digitalocean"
	ProviderHetzner      = "hetzner"
	ProviderRoute53      = "route53"
	ProviderWebhook      = "webhook"
	ProviderACMEDNS      = "acme-dns"
	ProviderExec         = "exec"
)

// Providers are the names of all providers.
func Providers() []string {
	return []string{ProviderPowerDNS, ProviderRFC2136, ProviderCloudflare, ProviderDigitalOcean, ProviderHetzner, ProviderRoute53, ProviderWebhook, ProviderACMEDNS, ProviderExec}
}

// OptionsError is a mistake in [Options]. No request was made.
type OptionsError struct{ Msg string }

func (e *OptionsError) Error() string { return e.Msg }

func optionsf(format string, args ...any) error { return &OptionsError{fmt.Sprintf(format, args...)} }

// CredentialError means that the credential is missing. The other options are
// valid as far as that can be checked without a request.
type CredentialError struct {
	Provider string
	Secret   string // Options.CredentialSecret
	Env      string // the environment variable that would have had it
}

func (e *CredentialError) Error() string {
	if e.Secret != "" {
		return fmt.Sprintf("the DNS provider %s needs its credential, the secret %s of the stack, which has no value; set it with `drover secrets set`", e.Provider, e.Secret)
	}
	return fmt.Sprintf("the DNS provider %s needs its credential: name a secret of the stack with credential_secret, set the environment variable %s, or name a file with credential_file", e.Provider, e.Env)
}

// Open makes a provider. It reads the credential and sends nothing.
func Open(o Options) (Provider, error) {
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	if o.Clock == nil {
		o.Clock = realClock{}
	}
	open, known := map[string]func(Options) (Provider, error){
		ProviderPowerDNS:     openPowerDNS,
		ProviderRFC2136:      openRFC2136,
		ProviderCloudflare:   openCloudflare,
		ProviderDigitalOcean: openDigitalOcean,
		ProviderHetzner:      openHetzner,
		ProviderRoute53:      openRoute53,
		ProviderWebhook:      openWebhook,
		ProviderACMEDNS:      openACMEDNS,
		ProviderExec:         openExec,
	}[o.Provider]
	if !known {
		return nil, optionsf("unknown DNS provider %q; it is one of %s", o.Provider, strings.Join(Providers(), ", "))
	}
	return open(o)
}

// ca is the CA bundle of the server in PEM, nil for the system's.
func (o Options) ca() ([]byte, error) {
	if o.CA != "" || o.CAFile == "" {
		return []byte(o.CA), nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the CA of the DNS provider: %w", err)
	}
	return pem, nil
}

// credential reads the secret of a provider. It is what a provider asks for
// last: see [CredentialError].
func (o Options) credential(defaultEnv string) (secret, error) {
	env := cmp.Or(o.CredentialEnv, defaultEnv)
	switch {
	case o.given.text != "":
		return o.given, nil
	case o.CredentialSecret != "":
	case o.CredentialFile != "":
		return readSecret(o.CredentialFile)
	default:
		if v := strings.TrimSpace(o.Getenv(env)); v != "" {
			return secret{v}, nil
		}
	}
	return secret{}, &CredentialError{Provider: o.Provider, Secret: o.CredentialSecret, Env: env}
}
