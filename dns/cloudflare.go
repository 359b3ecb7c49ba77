package dns

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// cloudflare speaks the API of Cloudflare. A batch is one transaction of its
// database; the comment and the tags of a record are left as they are, and so is
// whether it is proxied, unless [Record.Proxied] says otherwise.
type cloudflare struct {
	api   *apiClient
	base  string
	token secret

	mu    sync.Mutex
	zones map[string]string // identifiers
}

const cloudflareAPI = "https://api.cloudflare.com/client/v4"

func openCloudflare(o Options) (Provider, error) {
	base := strings.TrimSuffix(cmp.Or(o.Server, cloudflareAPI), "/")
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return nil, optionsf("the server of the DNS provider cloudflare is an http:// or https:// URL without a user, and need not be set")
	}
	token, err := o.credential("CLOUDFLARE_API_TOKEN")
	if err != nil {
		return nil, err
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &setProvider{backend: &cloudflare{
		api:  &apiClient{provider: ProviderCloudflare, http: client, clock: o.Clock, secret: token},
		base: base, token: token, zones: map[string]string{},
	}}, nil
}

type cloudflareAnswer struct {
	Success bool            `json:"success"`
	Result  json.RawMessage `json:"result"`
	Errors  []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
	Info struct {
		TotalPages int `json:"total_pages"`
		TotalCount int `json:"total_count"`
		PerPage    int `json:"per_page"`
	} `json:"result_info"`
}

type cloudflareRecord struct {
	ID       string          `json:"id,omitempty"`
	Name     string          `json:"name,omitempty"`
	Type     string          `json:"type,omitempty"`
	Content  string          `json:"content,omitempty"`
	TTL      int             `json:"ttl,omitempty"`
	Proxied  *bool           `json:"proxied,omitempty"`
	Priority *int            `json:"priority,omitempty"` // of an MX record, without it in Content
	Data     *cloudflareData `json:"data,omitempty"`
}

// cloudflareData is how the API wants CAA, SRV and HTTPS records; the data of other types
// is ignored.
type cloudflareData struct {
	Flags    json.Number `json:"flags,omitempty"`
	Tag      string      `json:"tag,omitempty"`
	Value    string      `json:"value,omitempty"`
	Priority *int        `json:"priority,omitempty"`
	Weight   *int        `json:"weight,omitempty"`
	Port     *int        `json:"port,omitempty"`
	Target   string      `json:"target,omitempty"`
}

// fields are the priority, the weight and the port, as far as the type has them.
func (d *cloudflareData) fields(typ string) []**int {
	if typ == TypeSRV {
		return []**int{&d.Priority, &d.Weight, &d.Port}
	}
	return []**int{&d.Priority}
}

type cloudflareBatch struct {
	Deletes []cloudflareRecord `json:"deletes,omitempty"`
	Patches []cloudflareRecord `json:"patches,omitempty"`
	Posts   []cloudflareRecord `json:"posts,omitempty"`
}

// automatic is the TTL 1 of the API, which resolvers see as 300 seconds.
const automatic = 1

func (r cloudflareRecord) key() Key {
	return Key{strings.ToLower(strings.TrimSuffix(r.Name, ".")), r.Type}
}

func (r cloudflareRecord) value() string {
	switch {
	case r.Type == TypeTXT && strings.HasPrefix(r.Content, `"`):
		if text, err := unquoteTXT(r.Content); err == nil {
			return text
		}
	case r.Type == TypeCAA && r.Data != nil && r.Data.Tag != "":
		r.Content = fmt.Sprintf("%s %s %s", cmp.Or(r.Data.Flags.String(), "0"), r.Data.Tag, quoteChunk(r.Data.Value))
	}
	switch {
	case r.Type == TypeMX && r.Priority != nil:
		r.Content = fmt.Sprintf("%d %s", *r.Priority, r.Content)
	case (r.Type == TypeSRV || r.Type == TypeHTTPS) && r.Data != nil && r.Data.Target != "":
		content := ""
		for _, n := range r.Data.fields(r.Type) {
			if *n == nil {
				*n = new(int)
			}
			content += strconv.Itoa(**n) + " "
		}
		r.Content = strings.TrimSpace(content + r.Data.Target + " " + r.Data.Value)
	}
	if slices.Contains(Types(), r.Type) && r.Type != TypeTXT {
		if v, err := normalizeValue(r.Type, r.Content); err == nil {
			return v
		}
	}
	return r.Content
}

func toCloudflare(key Key, v string) cloudflareRecord {
	r := cloudflareRecord{Name: key.Name, Type: key.Type, Content: v}
	switch key.Type {
	case TypeTXT:
		r.Content = quoteTXT(v)
	case TypeMX, TypeSRV, TypeHTTPS:
		n := numbers[key.Type]
		fields := append(strings.SplitN(v, " ", n+2), "") // parameters
		r.Data, r.Content = &cloudflareData{Target: fields[n], Value: fields[n+1]}, ""
		for i, number := range r.Data.fields(key.Type) {
			parsed, _ := strconv.Atoi(fields[i]) // normalized
			*number = &parsed
		}
		if key.Type == TypeMX {
			r.Content, r.Priority, r.Data = fields[n], r.Data.Priority, nil
		}
	case TypeCAA:
		if c, err := parseCAA(v); err == nil {
			r.Data = &cloudflareData{Flags: json.Number(fmt.Sprint(c.flags)), Tag: c.tag, Value: c.value}
		}
	}
	return r
}

func (p *cloudflare) list(ctx context.Context, zone string) (map[Key][]cloudflareRecord, string, error) {
	id, err := p.zoneID(ctx, zone)
	if err != nil {
		return nil, "", err
	}
	out := map[Key][]cloudflareRecord{}
	for page := 1; ; page++ {
		var records []cloudflareRecord
		a, err := p.call(ctx, http.MethodGet, fmt.Sprintf("/zones/%s/dns_records?per_page=100&page=%d", id, page), nil, &records)
		if err != nil {
			return nil, "", err
		}
		for _, r := range records {
			out[r.key()] = append(out[r.key()], r)
		}
		if len(records) == 0 || page >= a.Info.TotalPages {
			return out, id, nil
		}
	}
}

func (p *cloudflare) sets(ctx context.Context, zone string, _ []Key) (map[Key]Set, error) {
	records, _, err := p.list(ctx, zone)
	if err != nil {
		return nil, err
	}
	out := map[Key]Set{}
	for key, rs := range records {
		var set Set
		mixed := false
		if slices.Contains(addressTypes, key.Type) {
			set.Proxied = proxied(rs)
			mixed = set.Proxied == nil
		}
		for _, r := range rs {
			set.Values = append(set.Values, r.value())
			switch {
			case mixed && r.isProxied(): // its TTL is fixed
			case set.TTL == 0:
				set.TTL = ttlOf(r)
			case ttlOf(r) != set.TTL:
				set.TTL = -1
			}
		}
		slices.Sort(set.Values)
		out[key] = set
	}
	return out, nil
}

// proxied reports whether all records of a set are proxied; nil if only some are.
func proxied(rs []cloudflareRecord) *bool {
	all := rs[0].isProxied()
	for _, r := range rs {
		if r.isProxied() != all {
			return nil
		}
	}
	return &all
}

func (r cloudflareRecord) isProxied() bool { return r.Proxied != nil && *r.Proxied }

// settings is the patch that gives r the TTL of set, and whether set is proxied.
// It reports whether r has another one. A proxied record has no other TTL than the
// automatic one: the API drops it without an error.
func (r cloudflareRecord) settings(set Set) (cloudflareRecord, bool) {
	patch := cloudflareRecord{ID: r.ID, TTL: set.TTL, Proxied: set.Proxied}
	to := r
	if set.Proxied != nil {
		to.Proxied = set.Proxied
	}
	if to.isProxied() {
		patch.TTL = automatic
	}
	return patch, to.isProxied() != r.isProxied() || ttlOf(patch) != ttlOf(r)
}

func ttlOf(r cloudflareRecord) int {
	if r.TTL == automatic {
		return DefaultTTL
	}
	return r.TTL
}

func (p *cloudflare) apply(ctx context.Context, zone string, edits []Edit) error {
	have, id, err := p.list(ctx, zone)
	if err != nil {
		return err
	}
	var b cloudflareBatch
	for _, e := range edits {
		var set Set
		if e.Set != nil {
			set = *e.Set
		}
		missing := slices.Clone(set.Values)
		var stale []cloudflareRecord
		for _, r := range have[e.Key] {
			i := slices.Index(missing, r.value())
			if i < 0 {
				stale = append(stale, r)
				continue
			}
			missing = slices.Delete(missing, i, i+1)
			if patch, differs := r.settings(set); differs {
				b.Patches = append(b.Patches, patch)
			}
		}
		for _, r := range stale {
			if len(missing) == 0 {
				b.Deletes = append(b.Deletes, cloudflareRecord{ID: r.ID})
				continue
			}
			patch := toCloudflare(e.Key, missing[0])
			to, _ := r.settings(set)
			patch.ID, patch.TTL, patch.Proxied = to.ID, to.TTL, to.Proxied
			b.Patches, missing = append(b.Patches, patch), missing[1:]
		}
		for _, v := range missing {
			post := toCloudflare(e.Key, v)
			to, _ := cloudflareRecord{}.settings(set)
			post.TTL, post.Proxied = to.TTL, to.Proxied
			b.Posts = append(b.Posts, post)
		}
	}
	if len(b.Deletes)+len(b.Patches)+len(b.Posts) == 0 {
		return nil
	}
	_, err = p.call(ctx, http.MethodPost, "/zones/"+id+"/dns_records/batch", b, nil)
	return err
}

func (p *cloudflare) zoneID(ctx context.Context, zone string) (string, error) {
	p.mu.Lock()
	id := p.zones[zone]
	p.mu.Unlock()
	if id != "" {
		return id, nil
	}
	var found []struct {
		ID string `json:"id"`
	}
	if _, err := p.call(ctx, http.MethodGet, "/zones?name="+url.QueryEscape(zone), nil, &found); err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", &Error{Provider: ProviderCloudflare, Kind: KindNoZone, Msg: fmt.Sprintf("the token sees %d zones named %s", len(found), zone)}
	}
	p.mu.Lock()
	p.zones[zone] = found[0].ID
	p.mu.Unlock()
	return found[0].ID, nil
}

func (p *cloudflare) call(ctx context.Context, method, path string, in, out any) (cloudflareAnswer, error) {
	var (
		a    cloudflareAnswer
		body io.Reader
	)
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return a, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, body)
	if err != nil {
		return a, err
	}
	req.Header.Set("Authorization", "Bearer "+p.token.reveal())
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.api.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		return a, &Error{Provider: ProviderCloudflare, Kind: KindUnavailable, Msg: "the answer (" + resp.Status + ") cannot be read", Err: err}
	}
	if !a.Success || resp.StatusCode >= 300 {
		e := &Error{Provider: ProviderCloudflare, Kind: KindRefused, Msg: resp.Status}
		var said []string
		for _, x := range a.Errors {
			said = append(said, fmt.Sprintf("%s (%d)", x.Message, x.Code))
			if x.Code == 6003 || x.Code == 10000 { // an invalid token, or one without this right
				e.Kind = KindDenied
			}
		}
		if len(said) > 0 {
			e.Msg = p.token.redact(strings.Join(said, "; "))
		}
		return a, e
	}
	if out != nil {
		if err := json.Unmarshal(a.Result, out); err != nil {
			return a, &Error{Provider: ProviderCloudflare, Kind: KindUnavailable, Msg: "the answer cannot be read", Err: err}
		}
	}
	return a, nil
}
