package record

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// Layout of what this package stores.
const Layout = 1

const (
	infoItem   = "_info"   // in the master: when each secret was made, as JSON
	markerItem = "_drover" // in a job's variable: drover made it; its layout
	ownerItem  = "_owner"  // in a job's variable: the stack and environment that own it
)

// Secrets are the secrets of one stack in one environment: a master copy in
// the Nomad Variable drover/stacks/STACK/ENV/secrets, with an item for each,
// and for each job a variable at nomad/jobs/JOB_ID with just what it needs.
type Secrets struct {
	client     *api.Client
	reach      func(target string) *api.Client // nil if no jobs are elsewhere
	stack, env string
	now        func() time.Time
	own        *ownLines
}

// OpenSecrets makes no request. now is the clock for certificates; nil is
// time.Now.
func OpenSecrets(client *api.Client, stackName, env string, now func() time.Time) *Secrets {
	if now == nil {
		now = time.Now
	}
	return &Secrets{client: client, stack: stackName, env: env, now: now, own: &ownLines{}}
}

// At returns the same secrets, which make the variables of jobs by the client of their
// target. Jobs of a target for which reach returns nil have theirs where the master copy
// is.
func (s *Secrets) At(reach func(target string) *api.Client) *Secrets {
	copied := *s
	copied.reach = reach
	return &copied
}

// of is the client that leads to a job.
func (s *Secrets) of(j render.Job) *api.Client {
	if s.reach != nil {
		if c := s.reach(j.Target); c != nil {
			return c
		}
	}
	return s.client
}

// Path of the master variable.
func (s *Secrets) Path() string {
	return Folder(s.stack, s.env) + "/secrets"
}

// ErrNotFound means that a stack has no secret of that name.
var ErrNotFound = errors.New("no such secret")

// master is the content of the master variable.
type master struct {
	items map[string]string
	info  map[string]info
	index uint64 // 0 when there is none yet
}

type info struct {
	Made time.Time `json:"made"`
}

func (m *master) clone() *master {
	return &master{items: maps.Clone(m.items), info: maps.Clone(m.info), index: m.index}
}

func (s *Secrets) read(ctx context.Context) (*master, error) {
	m := &master{items: map[string]string{}, info: map[string]info{}}
	v, _, err := s.client.Variables().Peek(s.Path(), (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading the secrets of stack %s: %w", s.stack, err)
	}
	if v == nil {
		return m, nil
	}
	if err := checkLayout(v.Items[variables.LayoutItem], "the secrets at "+s.Path()); err != nil {
		return nil, err
	}
	if text := v.Items[infoItem]; text != "" {
		if err := json.Unmarshal([]byte(text), &m.info); err != nil {
			return nil, fmt.Errorf("item %s of %s is not readable: %w", infoItem, s.Path(), err)
		}
	}
	for k, val := range v.Items {
		if k != variables.LayoutItem && k != infoItem {
			m.items[k] = val
		}
	}
	m.index = v.ModifyIndex
	return m, nil
}

// checkLayout checks the layout number of an object of this package.
func checkLayout(text, what string) error { return variables.CheckLayout(text, what, Layout) }

func (s *Secrets) write(ctx context.Context, m *master) error {
	text, err := json.Marshal(m.info)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", infoItem, err)
	}
	v := &api.Variable{Path: s.Path(), Items: api.VariableItems(maps.Clone(m.items)), ModifyIndex: m.index}
	v.Items[variables.LayoutItem], v.Items[infoItem] = strconv.Itoa(Layout), string(text)
	if err := checkSize("the secrets of "+s.owner().String(), v.Items); err != nil {
		return err
	}
	out, err := variables.Write(ctx, s.client, v, &api.WriteOptions{})
	if err != nil {
		return fmt.Errorf("writing the secrets of stack %s: %w", s.stack, err)
	}
	m.index = out.ModifyIndex
	return nil
}

// update applies f to the master and writes it if f changed anything. When
// another client writes in between, f is applied to what is there then.
func (s *Secrets) update(ctx context.Context, f func(*master) error) (*master, error) {
	var m *master
	err := nomad.RetryConflict(ctx, func() error {
		old, err := s.read(ctx)
		if err != nil {
			return err
		}
		m = old.clone()
		if err := f(m); err != nil || maps.Equal(m.items, old.items) {
			return err
		}
		return s.write(ctx, m)
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Redactor hides the values that the stack has now.
func (s *Secrets) Redactor(ctx context.Context) (func(string) string, error) {
	m, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	return m.redactor(), nil
}

func (m *master) redactor() func(string) string {
	var values []secrets.Value
	for _, v := range m.items {
		if !strings.HasPrefix(v, "-----BEGIN CERTIFICATE-----") { // public
			values = append(values, secrets.NewValue(v))
		}
	}
	return secrets.Redactor(values...)
}

// complete makes in m what specs lack. It returns also the secrets that only the
// operator can give.
func (s *Secrets) complete(specs []*stack.Secret, m *master) (made Generated, missing []string, err error) {
	for _, spec := range specs {
		if spec.Type == stack.SecretCertificate {
			_, had := m.items[secrets.CertItem(spec.Name)]
			renewed, err := secrets.Certify(spec, m.items, s.now(), false)
			if err != nil {
				return made, nil, err
			}
			if renewed {
				m.info[spec.Name] = info{Made: s.now().UTC()}
				if had {
					made.Renewed = append(made.Renewed, spec.Name)
				} else {
					made.Secrets = append(made.Secrets, spec.Name)
				}
			}
			continue
		}
		if m.items[spec.Name] != "" {
			continue
		}
		value, err := secrets.Generate(spec)
		if err != nil {
			return made, nil, err
		}
		if value == "" {
			missing = append(missing, spec.Name)
			continue
		}
		m.items[spec.Name] = value
		m.info[spec.Name] = info{Made: s.now().UTC()}
		made.Secrets = append(made.Secrets, spec.Name)
	}
	return made, missing, nil
}

// Set gives a secret a value, and returns the jobs whose variable changed.
func (s *Secrets) Set(ctx context.Context, specs []*stack.Secret, jobs []render.Job, name string, value secrets.Value) ([]string, error) {
	spec, err := s.find(specs, name)
	if err != nil {
		return nil, err
	}
	if spec.Type == stack.SecretCertificate {
		return nil, fmt.Errorf("secret %s is a certificate that drover makes; `drover secrets rotate` makes a new one", name)
	}
	if value.Reveal() == "" {
		return nil, fmt.Errorf("the value of secret %s is empty", name)
	}
	vars, err := s.held(ctx, jobs)
	if err != nil {
		return nil, err
	}
	m, err := s.update(ctx, func(m *master) error {
		if m.items[name] != value.Reveal() {
			m.items[name] = value.Reveal()
			m.info[name] = info{Made: s.now().UTC()}
		}
		return m.fits(vars)
	})
	if err != nil {
		return nil, err
	}
	return s.refresh(ctx, vars, m)
}

// Rotate makes a new value in the master and in the variables of the jobs,
// whose tasks pick it up through their templates. A certificate gets a new
// leaf from the same CA.
func (s *Secrets) Rotate(ctx context.Context, specs []*stack.Secret, jobs []render.Job, name string) ([]string, error) {
	spec, err := s.find(specs, name)
	if err != nil {
		return nil, err
	}
	vars, err := s.held(ctx, jobs)
	if err != nil {
		return nil, err
	}
	m, err := s.update(ctx, func(m *master) error {
		m.info[name] = info{Made: s.now().UTC()}
		if spec.Type == stack.SecretCertificate {
			_, err := secrets.Certify(spec, m.items, s.now(), true)
			return cmp.Or(err, m.fits(vars))
		}
		value, err := secrets.Generate(spec)
		if err == nil && value == "" {
			err = fmt.Errorf("secret %s is given by you and cannot be made; use `drover secrets set %s %s -e %s`", name, s.stack, name, s.env)
		}
		m.items[name] = value
		return cmp.Or(err, m.fits(vars))
	})
	if err != nil {
		return nil, err
	}
	return s.refresh(ctx, vars, m)
}

func (s *Secrets) find(specs []*stack.Secret, name string) (*stack.Secret, error) {
	var names []string
	for _, spec := range specs {
		if spec.Name == name {
			return spec, nil
		}
		names = append(names, spec.Name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: %q; stack %s declares none", ErrNotFound, name, s.stack)
	}
	return nil, fmt.Errorf("%w: %q; stack %s has %s", ErrNotFound, name, s.stack, strings.Join(names, ", "))
}

// Item is one item of the secrets, by a name of stack.Secret.Items.
func (s *Secrets) Item(ctx context.Context, name string) (secrets.Value, error) {
	m, err := s.read(ctx)
	if err != nil {
		return secrets.Value{}, err
	}
	v, ok := m.items[name]
	if !ok {
		return secrets.Value{}, fmt.Errorf("%w: %q of stack %s has no value", ErrNotFound, name, s.stack)
	}
	return secrets.NewValue(v), nil
}

// Show returns one item. A certificate has several: NAME_ca, NAME_cert, NAME_key.
func (s *Secrets) Show(ctx context.Context, specs []*stack.Secret, name string) (secrets.Value, error) {
	m, err := s.read(ctx)
	if err != nil {
		return secrets.Value{}, err
	}
	if v, ok := m.items[name]; ok {
		return secrets.NewValue(v), nil
	}
	spec, err := s.find(specs, name)
	if err != nil {
		return secrets.Value{}, err
	}
	if spec.Type == stack.SecretCertificate && m.items[secrets.CertItem(name)] != "" {
		return secrets.Value{}, fmt.Errorf("secret %s is a certificate; show one of %s", name, strings.Join(spec.Items(), ", "))
	}
	return secrets.Value{}, fmt.Errorf("secret %s has no value yet; `drover deploy` makes it, `drover secrets set` gives it one", name)
}

// Lookup returns one item for a use of drover's own, empty when it has no
// value.
func (s *Secrets) Lookup(ctx context.Context, item string) (secrets.Value, error) {
	m, err := s.read(ctx)
	if err != nil {
		return secrets.Value{}, err
	}
	return secrets.NewValue(m.items[item]), nil
}

// Listed is a secret without its value.
type Listed struct {
	Name        string    `json:"name"`
	Type        string    `json:"type"` // "" when the stack does not declare it (any more)
	Set         bool      `json:"set"`
	Made        time.Time `json:"made,omitzero"`
	Expires     time.Time `json:"expires,omitzero"` // of a certificate's leaf
	Description string    `json:"description,omitempty"`
}

// List tells which secrets there are, never their values.
func (s *Secrets) List(ctx context.Context, specs []*stack.Secret) ([]Listed, error) {
	m, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var out []Listed
	known := map[string]bool{}
	for _, spec := range specs {
		l := Listed{Name: spec.Name, Type: spec.Type, Description: spec.Description, Made: m.info[spec.Name].Made}
		item := spec.Name
		if spec.Type == stack.SecretCertificate {
			item = secrets.CertItem(spec.Name)
			if c := pki.First(m.items[item]); c != nil {
				l.Expires = c.NotAfter
			}
			known[secrets.CAKeyItem(spec.Name)], known[secrets.NextKeyItem(spec.Name)] = true, true
		}
		_, l.Set = m.items[item]
		for _, i := range spec.Items() {
			known[i] = true
		}
		out = append(out, l)
	}
	for _, name := range slices.Sorted(maps.Keys(m.items)) {
		if !known[name] {
			out = append(out, Listed{Name: name, Set: true, Made: m.info[name].Made})
		}
	}
	return out, nil
}

// Any reports whether there is any secret.
func (s *Secrets) Any(ctx context.Context) (bool, error) {
	m, err := s.read(ctx)
	return err == nil && len(m.items) > 0, err
}

// Purge deletes the master and those variables of the jobs that the stack owns
// in this environment.
func (s *Secrets) Purge(ctx context.Context, jobs []render.Job) error {
	vars, err := s.peekJobs(ctx, jobs)
	if err != nil {
		return err
	}
	vars = slices.DeleteFunc(vars, func(v *jobVariable) bool { return !s.owns(v) })
	err = parallel.Each(len(vars), 8, func(i int) error {
		if _, err := s.writeJob(ctx, vars[i], nil); err != nil {
			return fmt.Errorf("deleting the variable of job %s: %w", vars[i].id, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m, err := s.read(ctx)
	if err != nil || m.index == 0 {
		return err
	}
	return s.deleteMaster(ctx, m)
}

func (s *Secrets) deleteMaster(ctx context.Context, m *master) error {
	if err := variables.Delete(ctx, s.client, s.Path(), m.index, &api.WriteOptions{}); err != nil {
		return fmt.Errorf("deleting the secrets of stack %s: %w", s.stack, err)
	}
	return nil
}
