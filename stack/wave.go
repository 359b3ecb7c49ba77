package stack

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Wave is a set of services in targets that change together. The next wave begins when the
// gate of this one passes.
type Wave struct {
	Name    string
	Members []Member      // by target, then in dependency order
	Bake    time.Duration // how long the gate has to hold without a break
	Gate    Gate
	Approve bool // the wave starts only after `drover approve`
	// Promote is set if the gate is evaluated while canaries serve, and its end promotes
	// them or fails their deployment. Without it a person promotes.
	Promote bool `json:",omitempty"`
	Range   hcl.Range
}

// Member is one service in one target.
type Member struct{ Target, Service string }

// Gate is what must hold after a wave, beside its services being healthy in
// Nomad and passing in Consul.
type Gate struct {
	HTTP *Check // nil for none; never with a password
	// Secret is the item of the stack's secrets with the password of the probe. It is
	// read when the gate is evaluated, and so never recorded.
	Secret string
	// Command is run where drover runs, without a shell; it ends with 0 when
	// the gate holds. Empty for none.
	Command []string
	// Metrics are measured from the beginning of the gate to the end of Bake.
	Metrics []*Metric `json:",omitempty"`
	// Timeout is how long the gate may take to hold, beside the wave's Bake. A metric
	// without a value for as long makes the gate inconclusive.
	Timeout time.Duration
}

const defaultGateTimeout = 5 * time.Minute

type waveBlock struct {
	Targets  []string   `hcl:"targets,optional"`
	Services []string   `hcl:"services,optional"`
	Bake     string     `hcl:"bake,optional"`
	Approve  bool       `hcl:"approve,optional"`
	Promote  bool       `hcl:"promote,optional"`
	Gate     *gateBlock `hcl:"gate,block"`
}

type gateBlock struct {
	HTTP          string            `hcl:"http,optional"`
	Method        string            `hcl:"method,optional"`
	Headers       map[string]string `hcl:"headers,optional"`
	Status        []int             `hcl:"status,optional"`
	Contains      string            `hcl:"contains,optional"`
	TLSSkipVerify bool              `hcl:"tls_skip_verify,optional"`
	BasicAuth     *gateAuthBlock    `hcl:"basic_auth,block"`
	Command       []string          `hcl:"command,optional"`
	Timeout       string            `hcl:"timeout,optional"`
	Metrics       []metricBlock     `hcl:"metric,block"`
}

type gateAuthBlock struct {
	Username string `hcl:"username"`
	Secret   string `hcl:"secret"`
}

type waveRead struct {
	wave *Wave
	from waveBlock
	at   *hcl.Block
}

func (r *environmentReader) wave(b *hcl.Block) {
	var v waveBlock
	if !r.decode(b, &v) {
		return
	}
	w := &Wave{Name: b.Labels[0], Approve: v.Approve, Promote: v.Promote, Range: b.DefRange, Gate: Gate{Timeout: defaultGateTimeout}}
	w.Bake = r.duration(b, "bake", v.Bake, 0)
	if v.Gate != nil {
		r.gate(childBlock(b, "gate"), *v.Gate, w)
	}
	if g := w.Gate; w.Promote && w.Bake == 0 && g.HTTP == nil && len(g.Command) == 0 && len(g.Metrics) == 0 {
		r.bad(attrRange(b, "promote"), fmt.Sprintf("Wave %q promotes canaries without a gate", w.Name), "Write bake, or a gate with metric, http or command; or auto_promote in the job.")
	}
	r.waves = append(r.waves, waveRead{w, v, b})
}

func (r *environmentReader) duration(b *hcl.Block, attr, text string, otherwise time.Duration) time.Duration {
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		r.bad(attrRange(b, attr), fmt.Sprintf("Invalid %s %q", attr, text), `Write a duration such as "10m".`)
	}
	return d
}

func (r *environmentReader) gate(b *hcl.Block, v gateBlock, w *Wave) {
	g := &w.Gate
	g.Timeout = r.duration(b, "timeout", v.Timeout, defaultGateTimeout)
	g.Command = v.Command
	if len(v.Command) > 0 && v.Command[0] == "" {
		r.bad(attrRange(b, "command"), "The command of a gate has no name", `Write it as a list: ["./smoke.sh", "--fast"].`)
	}
	r.metrics(b, v.Metrics, w)
	if v.HTTP == "" {
		if v.Method != "" || v.Headers != nil || v.Status != nil || v.Contains != "" || v.TLSSkipVerify || v.BasicAuth != nil {
			r.bad(b.DefRange, "The gate has no URL", "method, headers, basic_auth, status, contains and tls_skip_verify belong to http = \"…\".")
		}
		if len(v.Command) == 0 && len(v.Metrics) == 0 && v.Timeout == "" {
			r.bad(b.DefRange, "The gate asks for nothing", "Write http, command or a metric block; that services are healthy is asked without a gate block.")
		}
		return
	}
	asSecret := inRecord + "Write basic_auth { username = \"…\", secret = \"…\" } with the name of a secret of the stack, or use command."
	switch u, err := url.Parse(v.HTTP); {
	case err == nil && u.User != nil:
		r.bad(attrRange(b, "http"), "The URL of a gate has a password", asSecret)
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		r.bad(attrRange(b, "http"), fmt.Sprintf("Invalid URL %q of a gate", v.HTTP), "Write it whole: https://HOST/PATH.")
	}
	for name := range v.Headers {
		if secretHeader(name) {
			r.bad(attrRange(b, "headers"), fmt.Sprintf("The header %s of a gate is a secret", name), asSecret)
		}
	}
	for _, status := range v.Status {
		if status < 100 || status > 599 {
			r.bad(attrRange(b, "status"), fmt.Sprintf("Invalid HTTP status %d", status), "Write numbers from 100 to 599.")
		}
	}
	g.HTTP = &Check{
		Name: w.Name, URL: v.HTTP, Method: v.Method, Headers: v.Headers, Status: v.Status,
		Contains: v.Contains, TLSSkipVerify: v.TLSSkipVerify, Range: b.DefRange,
	}
	if a := v.BasicAuth; a != nil {
		g.HTTP.Username, g.Secret = a.Username, a.Secret
		r.secretItem(childBlock(b, "basic_auth"), a.Secret)
	}
}

// inRecord is why a gate has no password in clear.
const inRecord = "It would stand in the record of every release. "

// secretItem reports an argument secret of a block of a gate that names no item of the
// stack's secrets.
func (r *environmentReader) secretItem(b *hcl.Block, name string) {
	var items []string
	for _, s := range r.s.Secrets {
		items = append(items, s.Items()...)
	}
	if !slices.Contains(items, name) {
		r.unknown(attrRange(b, "secret"), "The gate", "secret item", name, items)
	}
}

// resolveWaves assigns each service of each target to exactly one wave. A wave without
// services gets all that no earlier wave has. Without wave blocks, each target is a wave,
// in the order of the file.
func (r *environmentReader) resolveWaves() {
	s := r.s
	if len(r.waves) == 0 {
		for _, t := range s.Targets {
			w := &Wave{Name: t.Name, Range: t.Range, Gate: Gate{Timeout: defaultGateTimeout}}
			for _, svc := range t.Services {
				w.Members = append(w.Members, Member{t.Name, svc})
			}
			s.Waves = append(s.Waves, w)
		}
		return
	}
	taken := map[Member]*Wave{}
	for _, read := range r.waves {
		w, v, b := read.wave, read.from, read.at
		s.Waves = append(s.Waves, w)
		errorsBefore := len(r.diags)
		targets := s.Targets
		if v.Targets != nil {
			names := r.known(b, "targets", "target", v.Targets, r.targets)
			targets = slices.DeleteFunc(slices.Clone(s.Targets), func(t *Target) bool { return !slices.Contains(names, t.Name) })
			slices.SortFunc(targets, func(a, b *Target) int { return slices.Index(names, a.Name) - slices.Index(names, b.Name) })
		}
		named := r.known(b, "services", "service", v.Services, r.services)
		there := map[string]bool{}
		for _, t := range targets {
			for _, svc := range t.Services {
				m := Member{t.Name, svc}
				switch first := taken[m]; {
				case v.Services != nil && !slices.Contains(named, svc):
				case first == nil:
					taken[m] = w
					w.Members = append(w.Members, m)
					there[svc] = true
				case v.Services != nil:
					there[svc] = true
					r.bad(attrRange(b, "services"), fmt.Sprintf("Service %q%s is in two waves", svc, inTarget(t.Name)), fmt.Sprintf("Wave %q at %s has it already.", first.Name, place(first.Range)))
				}
			}
		}
		for _, svc := range named {
			if !there[svc] {
				r.bad(attrRange(b, "services"), fmt.Sprintf("Wave %q names service %q, which runs in none of its targets", w.Name, svc), "Look at the services of the target blocks.")
			}
		}
		if len(w.Members) == 0 && len(r.diags) == errorsBefore {
			r.bad(b.DefRange, fmt.Sprintf("Nothing is left for wave %q", w.Name), "Earlier waves have every service of its targets. Remove the wave, or name the services of the earlier ones.")
		}
	}
	if r.diags.HasErrors() {
		return // what is missing may be meant by what is wrong
	}
	for _, t := range s.Targets {
		var left []string
		for _, svc := range t.Services {
			if taken[Member{t.Name, svc}] == nil {
				left = append(left, svc)
			}
		}
		at := r.waves[len(r.waves)-1].wave.Range
		if t.Name != "" {
			at = t.Range
		}
		switch {
		case len(left) == 0:
		case t.Name != "" && len(left) == len(t.Services):
			r.bad(at, fmt.Sprintf("Target %q is in no wave", t.Name), "Name it in the targets of a wave.")
		default:
			what := fmt.Sprintf("Service %q%s is in no wave", left[0], inTarget(t.Name))
			if len(left) > 1 {
				what = fmt.Sprintf("Services %s%s are in no wave", strings.Join(left, ", "), inTarget(t.Name))
			}
			r.bad(at, what, "Add a last wave without services: it takes all that is left.")
		}
	}
}

func inTarget(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" in target %q", name)
}
