package dns

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
)

// Wanted are the desired DNS records of one stack, evaluated, so that the
// controller needs no files of the stack. It holds no credential.
type Wanted struct {
	Owner     string   `json:"owner"` // see [BlockOwner]
	Options   Options  `json:"options"`
	Zones     []string `json:"zones"`
	Policy    Policy   `json:"policy"`
	Repair    bool     `json:"repair,omitempty"`    // see Input
	Cluster   string   `json:"cluster,omitempty"`   // see Input
	TTL       int      `json:"ttl,omitempty"`       // seconds, of the records of routes
	Targets   []string `json:"targets,omitempty"`   // where routes lead; empty for the instances of the edge
	Resolvers []string `json:"resolvers,omitempty"` // that must show a record of DNS-01
	// NoChallenges is true if DNS-01 is not answered here.
	NoChallenges bool     `json:"no_challenges,omitempty"`
	Records      []Record `json:"records,omitempty"` // of its own
	Routes       bool     `json:"routes,omitempty"`  // hosts of routes get records
	Hosts        []string `json:"hosts,omitempty"`   // those; see [RoutedHosts]
	// Settings are those of Hosts that differ from the others; see [RouteSettings].
	Settings map[string]Host `json:"settings,omitempty"`
	// Pending is true until the release that wants the records is rolled out.
	// Until then nothing is deleted.
	Pending bool `json:"pending,omitempty"`
}

// OfEdge reports whether the records need the address of the edge.
func (w *Wanted) OfEdge() bool { return slices.ContainsFunc(w.Hosts, w.needsEdge) }

// Routed returns the records of its routes, which lead to targets.
func (w *Wanted) Routed(targets []string) ([]Record, error) {
	return w.routed(targets)
}

// Manager keeps the records of w through p, and has what [NomadStore] knows
// of them; the second result is what is wanted now. edge are the addresses of
// the edge's instances, which count when w is OfEdge.
func (w *Wanted) Manager(p Provider, s Store, edge []string) (*Manager, []Record, error) {
	m := &Manager{Owner: w.Owner, Provider: p, Zones: w.Zones, Policy: w.Policy, Repair: w.Repair, Cluster: w.Cluster, Place: w.Options.place(), Store: s, Held: map[string]string{}}
	if w.Pending && w.Policy == Sync {
		m.Policy = UpsertOnly
	}
	targets := w.Targets
	if w.OfEdge() {
		if targets = edge; len(edge) == 0 {
			for _, h := range w.Hosts {
				if !w.needsEdge(h) {
					continue
				}
				m.Held[h] = "no instance of the edge passes its check in Consul, so its address is unknown; start one, or set targets in the dns block"
			}
		}
	}
	routed, err := w.Routed(targets)
	return m, slices.Concat(w.Records, routed), err
}

// encode returns w as it is stored: without paths of the stack's files, and with the CA
// instead of the name of its file.
func (w *Wanted) encode() (string, error) {
	c := *w
	pem, err := c.Options.ca()
	if err != nil {
		return "", err
	}
	c.Options.CA = string(pem)
	c.Records = slices.Clone(w.Records)
	for i := range c.Records {
		c.Records[i].Source = ""
	}
	text, err := json.Marshal(c)
	return string(text), err
}

// Digest returns a text that is equal for records of the same blocks. It leaves out the
// hosts of routes, which depend on the jobs that run.
func (w *Wanted) Digest() (string, error) {
	c := *w
	c.Hosts, c.Settings, c.Pending = nil, nil, false
	text, err := c.encode()
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16]), err
}

// Folders of what [DesiredRecords] keeps.
const (
	WantedFolder     = "drover/dns-wanted"
	CredentialFolder = "drover/dns-credentials" // #nosec G101 -- a path
)

const (
	wantedItem       = "wanted"
	wantedPackedItem = "wanted_gz" // the same, when it is too long
	credentialItem   = "credential"
)

// DesiredRecords stores the desired DNS records of stacks in Nomad Variables, for the
// controller, which has neither files nor secrets of a stack: one object for each
// stack at WantedFolder/OWNER. If the credential is a secret of the stack, it is at
// CredentialFolder/OWNER.
type DesiredRecords struct{ Client *api.Client }

func wantedPath(owner string) string     { return ownerPath(WantedFolder+"/", owner) }
func credentialPath(owner string) string { return ownerPath(CredentialFolder+"/", owner) }

// Get returns the desired records of an owner, nil if there are none.
func (s DesiredRecords) Get(ctx context.Context, owner string) (*Wanted, error) {
	v, err := peek(ctx, s.Client, wantedPath(owner))
	if v == nil {
		return nil, err
	}
	return decodeWanted(v)
}

func decodeWanted(v *api.Variable) (*Wanted, error) {
	text := []byte(v.Items[wantedItem])
	if packed := v.Items[wantedPackedItem]; packed != "" {
		var err error
		if text, err = variables.UnpackText(packed); err != nil {
			return nil, fmt.Errorf("the variable %s is not readable: %w", v.Path, err)
		}
	}
	var w Wanted
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("the variable %s is not readable: %w", v.Path, err)
	}
	if wantedPath(w.Owner) != v.Path { // the credential and the claims of another stack
		return nil, fmt.Errorf("the variable %s holds the DNS records of %q, which has no right to that path", v.Path, w.Owner)
	}
	return &w, nil
}

// Put stores the desired records of an owner, and reports whether they are new. It
// returns ErrChanged if another process writes at the same time.
func (s DesiredRecords) Put(ctx context.Context, w *Wanted) (bool, error) {
	items, err := w.items()
	if err != nil {
		return false, err
	}
	return s.write(ctx, wantedPath(w.Owner), items)
}

// items returns the items of the variable in which w is stored.
func (w *Wanted) items() (api.VariableItems, error) {
	text, err := w.encode()
	if err != nil || len(text) <= 48<<10 {
		return api.VariableItems{wantedItem: text}, err
	}
	packed, err := variables.PackText([]byte(text))
	return api.VariableItems{wantedPackedItem: packed}, err
}

// PutCredential stores the credential of an owner in CredentialFolder, and reports
// whether it is new.
func (s DesiredRecords) PutCredential(ctx context.Context, owner, text string) (bool, error) {
	return s.write(ctx, credentialPath(owner), api.VariableItems{credentialItem: text})
}

// HasCredential reports whether PutCredential was called for an owner.
func (s DesiredRecords) HasCredential(ctx context.Context, owner string) (bool, error) {
	v, err := peek(ctx, s.Client, credentialPath(owner))
	return v != nil, err
}

// Has reports whether w is stored already.
func (s DesiredRecords) Has(ctx context.Context, w *Wanted) (bool, error) {
	old, err := s.Get(ctx, w.Owner)
	if old == nil {
		return false, err
	}
	was, err := old.encode()
	if err != nil {
		return false, err
	}
	now, err := w.encode()
	return was == now, err
}

// write gives a variable just these items, and reports whether it had others before.
func (s DesiredRecords) write(ctx context.Context, path string, items api.VariableItems) (bool, error) {
	items[variables.LayoutItem] = strconv.Itoa(Layout)
	old, err := peek(ctx, s.Client, path)
	if err != nil {
		return false, err
	}
	changed, err := variables.WriteChanged(ctx, s.Client, old, path, items)
	if nomad.IsConflict(err) {
		err = fmt.Errorf("writing %s: %w", path, ErrChanged)
	}
	return changed, err
}

// Runs has the jobs of an owner that run.
type Runs struct {
	Jobs []*api.Job
	// Deployed are the Digests of what its release left to be kept in DNS, with commas
	// between; "" if it left nothing.
	Deployed string
}

// Follow updates the desired records of a stack to the routes of its running jobs,
// and reports whether they changed. It clears Pending if the running release stored
// the records. Follow calls runs only if there may be something to change. It
// changes nothing if the token may not read the desired records.
func (s DesiredRecords) Follow(ctx context.Context, owner string, runs func(context.Context) (Runs, error)) (bool, error) {
	owners, err := s.blocks(ctx, owner, WantedFolder+"/")
	if err != nil {
		return false, err
	}
	var known *Runs
	once := func(ctx context.Context) (Runs, error) {
		if known == nil {
			r, err := runs(ctx)
			if err != nil {
				return r, err
			}
			known = &r
		}
		return *known, nil
	}
	changed := false
	for _, o := range owners {
		more, err := s.follow(ctx, o, once)
		if changed = changed || more; err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func (s DesiredRecords) follow(ctx context.Context, owner string, runs func(context.Context) (Runs, error)) (bool, error) {
	w, err := s.Get(ctx, owner)
	if nomad.IsForbidden(err) { // as in Delete
		return false, nil
	}
	if w == nil {
		return false, err
	}
	if !w.Routes && !w.Pending {
		return false, nil
	}
	running, err := runs(ctx)
	if err != nil {
		return false, err
	}
	if w.Routes {
		_ = w.SetRoutes(running.Jobs) // a deploy has refused bad tags
	}
	if w.Pending && running.Deployed != "" {
		is, err := w.Digest()
		if err != nil {
			return false, err
		}
		w.Pending = !slices.Contains(strings.Split(running.Deployed, ","), is)
	}
	return s.Put(ctx, w)
}

// Include adds the hosts of a part of the jobs to the desired records of an owner, before
// the jobs run. It does nothing if the owner wants no records of routes.
func (s DesiredRecords) Include(ctx context.Context, owner string, hosts []string, settings map[string]Host) error {
	w, err := s.Get(ctx, owner)
	if w == nil || !w.Routes {
		return err
	}
	w.Hosts = slices.Compact(slices.Sorted(slices.Values(slices.Concat(w.Hosts, hosts))))
	for host, set := range settings {
		if w.Settings == nil {
			w.Settings = map[string]Host{}
		}
		w.Settings[host] = set
	}
	_, err = s.Put(ctx, w)
	return err
}

// Delete removes the desired records of all dns blocks of a stack and their credentials,
// but not those of the owners to keep. It treats 403 as "nothing stored".
func (s DesiredRecords) Delete(ctx context.Context, owner string, keep ...string) error {
	owners, err := s.blocks(ctx, owner, WantedFolder+"/", CredentialFolder+"/")
	errs := []error{err}
	for _, o := range owners {
		if slices.Contains(keep, o) {
			continue
		}
		for _, path := range []string{wantedPath(o), credentialPath(o)} {
			errs = append(errs, s.delete(ctx, path))
		}
	}
	return errors.Join(errs...)
}

// Stored reports whether there is anything that Delete would remove
// (GET /v1/vars, once for each folder).
func (s DesiredRecords) Stored(ctx context.Context, owner string) (bool, error) {
	for _, folder := range []string{WantedFolder + "/", CredentialFolder + "/"} {
		own := ownerPath(folder, owner)
		paths, err := s.list(ctx, own)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(paths, func(p string) bool { return p == own || strings.HasPrefix(p, own+"/") }) {
			return true, nil
		}
	}
	return false, nil
}

// Blocks returns the names of the dns blocks of a stack of which something is stored,
// and "" for the one without a name.
func (s DesiredRecords) Blocks(ctx context.Context, owner string) ([]string, error) {
	owners, err := s.blocks(ctx, owner, WantedFolder+"/", CredentialFolder+"/", storeRoot)
	var out []string
	for _, o := range owners {
		_, block := StackOwner(o)
		out = append(out, block)
	}
	return out, err
}

// blocks returns owner, and the owners of its named dns blocks that have something below
// one of the folders. It treats 403 as "nothing stored".
func (s DesiredRecords) blocks(ctx context.Context, owner string, folders ...string) ([]string, error) {
	out := []string{owner}
	for _, folder := range folders {
		prefix := ownerPath(folder, owner) + "/"
		paths, err := s.list(ctx, prefix)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if block := strings.TrimPrefix(path, prefix); !strings.Contains(block, "/") {
				out = append(out, BlockOwner(owner, block))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// list returns the paths that begin with prefix. It treats 403 as "nothing stored".
func (s DesiredRecords) list(ctx context.Context, prefix string) ([]string, error) {
	list, _, err := s.Client.Variables().PrefixList(prefix, (&api.QueryOptions{}).WithContext(ctx))
	if nomad.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing %s*: %w", prefix, err)
	}
	out := make([]string, len(list))
	for i, meta := range list {
		out[i] = meta.Path
	}
	return out, nil
}

// DeleteCredential removes the credential alone.
func (s DesiredRecords) DeleteCredential(ctx context.Context, owner string) error {
	return s.delete(ctx, credentialPath(owner))
}

func (s DesiredRecords) delete(ctx context.Context, path string) error {
	v, err := variables.Read(ctx, s.Client, path)
	if nomad.IsForbidden(err) {
		return nil // what the token may not read, it has not written
	}
	if v == nil {
		return err
	}
	if err := variables.Delete(ctx, s.Client, path, 0, &api.WriteOptions{}); err != nil {
		return fmt.Errorf("deleting %s: %w", path, err)
	}
	return nil
}

// List returns the desired records of all stacks, sorted by owner. It leaves out
// an object that cannot be read and returns its error together with the others.
// With an index of an earlier call, it waits up to wait for a change.
func (s DesiredRecords) List(ctx context.Context, index uint64, wait time.Duration) ([]*Wanted, uint64, error) {
	opts := (&api.QueryOptions{WaitIndex: index, WaitTime: wait}).WithContext(ctx)
	metas, meta, err := s.Client.Variables().PrefixList(WantedFolder+"/", opts)
	if err != nil {
		return nil, 0, fmt.Errorf("listing the desired DNS records of stacks: %w", err)
	}
	var (
		out  []*Wanted
		errs []error
	)
	for _, m := range metas {
		v, err := peek(ctx, s.Client, m.Path)
		if v == nil { // deleted since, or an error
			errs = append(errs, err)
			continue
		}
		w, err := decodeWanted(v)
		if err == nil {
			out = append(out, w)
		}
		errs = append(errs, err)
	}
	slices.SortFunc(out, func(a, b *Wanted) int { return strings.Compare(a.Owner, b.Owner) })
	return out, meta.LastIndex, errors.Join(errs...)
}

// Open makes the provider of w, if it is allowed. A credential that is a
// secret of the stack is the one that the deployer of w.Owner stored.
func (s DesiredRecords) Open(ctx context.Context, w *Wanted, allowed Allowed) (Provider, error) {
	o, err := allowed.Options(w)
	if err != nil {
		return nil, err
	}
	if o.CredentialSecret != "" {
		v, err := peek(ctx, s.Client, credentialPath(w.Owner))
		if err != nil {
			return nil, err
		}
		if v != nil {
			o = o.WithCredential(v.Items[credentialItem])
		}
	}
	return Open(o)
}
