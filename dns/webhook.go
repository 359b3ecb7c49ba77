package dns

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// webhook speaks the webhook protocol of external-dns, version 1, to a server that
// knows a provider. The protocol has no zones: a server returns all records that it
// may change, and names the domains of these (api/webhook.yaml in external-dns).
type webhook struct {
	api  *apiClient
	base string
	key  secret // of a proxy in front of the server; the protocol has no credentials
}

const webhookMediaType = "application/external.dns.webhook+json;version=1"

func openWebhook(o Options) (Provider, error) {
	base, err := o.serverURL(`server = "http://127.0.0.1:8888"`)
	if err != nil {
		return nil, err
	}
	client, err := o.httpClient()
	if err != nil {
		return nil, err
	}
	w := &webhook{base: base}
	if o.CredentialSecret+o.CredentialFile+o.CredentialEnv != "" || o.given.text != "" {
		if w.key, err = o.credential(""); err != nil {
			return nil, err
		}
	}
	// Servers answer 500 to every error of their provider, even for one record.
	w.api = &apiClient{provider: ProviderWebhook, http: client, clock: o.Clock, secret: w.key, refuses: http.StatusInternalServerError}
	return &setProvider{backend: w}, nil
}

// webhookEndpoint is a record set as the protocol has it.
type webhookEndpoint struct {
	Name       string            `json:"dnsName"`
	Targets    []string          `json:"targets"`
	Type       string            `json:"recordType"`
	Identifier string            `json:"setIdentifier,omitempty"`
	TTL        int               `json:"recordTTL,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Specific   json.RawMessage   `json:"providerSpecific,omitempty"` // kept as it is
}

type webhookChanges struct {
	Create    []webhookEndpoint `json:"create,omitempty"`
	UpdateOld []webhookEndpoint `json:"updateOld,omitempty"`
	UpdateNew []webhookEndpoint `json:"updateNew,omitempty"`
	Delete    []webhookEndpoint `json:"delete,omitempty"`
}

func (e webhookEndpoint) key() Key {
	name := strings.ToLower(strings.TrimSuffix(e.Name, "."))
	if n, err := normalizeName(name); err == nil {
		name = n
	}
	return Key{name, strings.ToUpper(e.Type)}
}

// set returns the content of e. The TTL is 0 if the server leaves it to its provider.
func (e webhookEndpoint) set() Set {
	s := withTTL(Set{TTL: e.TTL})
	for _, target := range e.Targets {
		if numbers[e.Type] > 0 && strings.HasSuffix(target, " ") {
			target += "." // external-dns cuts the last dot off
		}
		v := target
		if e.Type != TypeTXT || strings.HasPrefix(target, `"`) {
			if n, err := fromZoneSyntax(e.Type, target); err == nil {
				v = n
			}
		}
		s.Values = append(s.Values, v)
	}
	slices.Sort(s.Values)
	s.Values = slices.Compact(s.Values)
	return s
}

// toWebhook returns an endpoint with a set, and with everything else that old has.
func toWebhook(key Key, s Set, old webhookEndpoint) webhookEndpoint {
	e := webhookEndpoint{Name: key.Name, Type: key.Type, TTL: s.TTL, Labels: old.Labels, Specific: old.Specific}
	for _, v := range s.Values {
		switch key.Type {
		case TypeTXT, TypeSRV, TypeHTTPS: // the others are without the dot
			v = toZoneSyntax(key.Type, v)
		}
		e.Targets = append(e.Targets, v)
	}
	return e
}

// domains are the domains that a server may change. Exclusions win over inclusions.
type domains struct {
	Include      []string `json:"include"`
	Exclude      []string `json:"exclude"`
	RegexInclude string   `json:"regexInclude"`
	RegexExclude string   `json:"regexExclude"`
}

func (d domains) match(name string) (bool, error) {
	if d.RegexInclude+d.RegexExclude != "" {
		include, err := regexp.Compile(d.RegexInclude)
		if err != nil {
			return false, err
		}
		exclude, err := regexp.Compile(d.RegexExclude)
		if err != nil {
			return false, err
		}
		return include.MatchString(name) && (d.RegexExclude == "" || !exclude.MatchString(name)), nil
	}
	in := func(list []string) bool {
		return slices.ContainsFunc(list, func(f string) bool {
			if strings.HasPrefix(f, ".") {
				return strings.HasSuffix(name, strings.ToLower(f)) // not the domain itself
			}
			f, err := normalizeName(f)
			return err == nil && inZone(name, f)
		})
	}
	return (len(d.Include) == 0 || in(d.Include)) && !in(d.Exclude), nil
}

func (w *webhook) fail(kind Kind, msg string, err error) error {
	return &Error{Provider: ProviderWebhook, Kind: kind, Msg: msg, Err: err}
}

// negotiate agrees on the version, and returns the domains of the server.
func (w *webhook) negotiate(ctx context.Context) (domains, error) {
	var d domains
	return d, w.call(ctx, http.MethodGet, "/", nil, &d)
}

// mayChange returns an error if the server may not change name.
func (w *webhook) mayChange(d domains, name string) error {
	ok, err := d.match(name)
	if err != nil {
		return w.fail(KindUnavailable, "the domains of the server cannot be read", err)
	}
	if !ok {
		return w.fail(KindRefused, "the server does not have "+name+" among its domains", nil)
	}
	return nil
}

func (w *webhook) read(ctx context.Context, zone string) (map[Key][]webhookEndpoint, domains, error) {
	d, err := w.negotiate(ctx)
	if err != nil {
		return nil, d, err
	}
	var refused *Error
	if err := w.mayChange(d, zone); errors.As(err, &refused) && refused.Kind == KindRefused && !d.below(zone) {
		return nil, d, w.fail(KindNoZone, "the server does not have the zone "+zone+" among its domains", nil)
	} else if err != nil && refused.Kind != KindRefused {
		return nil, d, err
	}
	var all []webhookEndpoint
	if err := w.call(ctx, http.MethodGet, "/records", nil, &all); err != nil {
		return nil, d, err
	}
	out := map[Key][]webhookEndpoint{}
	for _, e := range all {
		if key := e.key(); inZone(key.Name, zone) {
			out[key] = append(out[key], e)
		}
	}
	return out, d, nil
}

// below reports whether the server may change something below zone.
func (d domains) below(zone string) bool {
	return d.RegexInclude+d.RegexExclude != "" || slices.ContainsFunc(d.Include, func(f string) bool {
		return inZone(strings.ToLower(strings.Trim(f, ".")), zone)
	})
}

// joined is what a resolver may get of several endpoints with one name and type,
// which a routing policy tells apart. It is equal to no desired set.
func joined(es []webhookEndpoint) Set {
	s := es[0].set()
	for _, e := range es[1:] {
		s.Values = append(s.Values, e.set().Values...)
	}
	if len(es) > 1 || es[0].Identifier != "" {
		s.TTL = -1
		slices.Sort(s.Values)
		s.Values = slices.Compact(s.Values)
	}
	return s
}

func (w *webhook) sets(ctx context.Context, zone string, _ []Key) (map[Key]Set, error) {
	have, _, err := w.read(ctx, zone)
	out := map[Key]Set{}
	for key, es := range have {
		out[key] = joined(es)
	}
	return out, err
}

func (w *webhook) apply(ctx context.Context, zone string, edits []Edit) error {
	have, d, err := w.read(ctx, zone)
	if err != nil {
		return err
	}
	var (
		c       webhookChanges
		wanted  []webhookEndpoint
		updated = map[Key]webhookEndpoint{}
	)
	for _, e := range edits {
		if err := w.mayChange(d, e.Name); err != nil {
			return err
		}
		es := have[e.Key]
		var now *Set
		if len(es) > 0 {
			s := joined(es)
			now = &s
		}
		switch {
		case e.Set == nil && now == nil, e.Set != nil && now != nil && e.Set.Equal(*now):
			continue // done by a batch that failed later
		case !e.Blind && (e.Old == nil) != (now == nil), !e.Blind && now != nil && !e.Old.Equal(*now):
			return w.fail(KindRefused, e.Key.String()+" has changed since the plan was made; plan again", nil)
		case len(es) > 1 || len(es) == 1 && es[0].Identifier != "":
			return w.fail(KindRefused, e.Key.String()+" has a routing policy at the provider, which drover does not change", nil)
		case e.Set == nil:
			c.Delete = append(c.Delete, es[0])
		case now == nil:
			wanted = append(wanted, toWebhook(e.Key, *e.Set, webhookEndpoint{}))
		default:
			updated[e.Key] = es[0]
			wanted = append(wanted, toWebhook(e.Key, *e.Set, es[0]))
		}
	}
	adjusted, err := w.adjusted(ctx, wanted)
	if err != nil {
		return err
	}
	for _, e := range wanted {
		key := e.key()
		a, there := adjusted[key]
		if !there {
			return w.fail(KindRefused, "the server does not take "+key.String(), nil)
		}
		if old, update := updated[key]; update {
			c.UpdateOld, c.UpdateNew = append(c.UpdateOld, old), append(c.UpdateNew, a)
		} else {
			c.Create = append(c.Create, a)
		}
	}
	// Servers may create before they delete. That fails if a CNAME has to be deleted
	// first.
	var room webhookChanges
	c.Delete = slices.DeleteFunc(c.Delete, func(e webhookEndpoint) bool {
		makes := slices.ContainsFunc(c.Create, func(n webhookEndpoint) bool {
			return n.key().Name == e.key().Name && (n.Type == TypeCNAME || e.Type == TypeCNAME)
		})
		if makes {
			room.Delete = append(room.Delete, e)
		}
		return makes
	})
	if err := w.change(ctx, room); err != nil {
		return err
	}
	err = w.change(ctx, c)
	if err != nil && len(room.Delete) > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, w.change(ctx, webhookChanges{Create: room.Delete}))
	}
	return err
}

func (w *webhook) change(ctx context.Context, c webhookChanges) error {
	if len(c.Create)+len(c.UpdateNew)+len(c.Delete) == 0 {
		return nil
	}
	return w.call(ctx, http.MethodPost, "/records", c, nil)
}

// adjusted returns endpoints as the provider can store them. It leaves out those that
// the provider cannot store.
func (w *webhook) adjusted(ctx context.Context, es []webhookEndpoint) (map[Key]webhookEndpoint, error) {
	if len(es) == 0 {
		return nil, nil
	}
	var list []webhookEndpoint
	if err := w.call(ctx, http.MethodPost, "/adjustendpoints", es, &list); err != nil {
		return nil, err
	}
	out := map[Key]webhookEndpoint{}
	for _, e := range list {
		out[e.key()] = e
	}
	return out, nil
}

func (w *webhook) adjust(ctx context.Context, _ string, want map[Key]Set) (map[Key]Set, error) {
	var es []webhookEndpoint
	for _, key := range sortedKeys(want) {
		es = append(es, toWebhook(key, want[key], webhookEndpoint{}))
	}
	adjusted, err := w.adjusted(ctx, es)
	out := map[Key]Set{}
	for key, e := range adjusted {
		out[key] = e.set()
	}
	return out, err
}

func (w *webhook) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", webhookMediaType)
	if in != nil {
		req.Header.Set("Content-Type", webhookMediaType)
	}
	if w.key.text != "" {
		req.Header.Set("Authorization", "Bearer "+w.key.reveal())
	}
	resp, err := w.api.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		kind := KindRefused
		if method == http.MethodGet {
			kind = KindUnavailable
		}
		return w.fail(kind, fmt.Sprintf("%s %s answered %s%s", method, path, resp.Status, w.api.said(b)), nil)
	}
	if out == nil {
		return nil
	}
	if media, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media+";version="+params["version"] != webhookMediaType {
		return w.fail(KindUnavailable, fmt.Sprintf("%s does not speak version 1 of the webhook protocol: its answer is %s", req.URL.Host, cmp.Or(resp.Header.Get("Content-Type"), "of no type")), nil)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(out); err != nil {
		return w.fail(KindUnavailable, "the answer to "+method+" "+path+" cannot be read", err)
	}
	return nil
}

// serverURL returns the URL of an HTTP API without a slash at its end.
func (o Options) serverURL(example string) (string, error) {
	if o.Server == "" {
		return "", optionsf("the DNS provider %s needs the URL of its API: %s", o.Provider, example)
	}
	u, err := url.Parse(o.Server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return "", optionsf("the server of the DNS provider %s is an http:// or https:// URL without a user", o.Provider)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}
