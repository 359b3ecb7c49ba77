package release

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/drover-nomad/drover/record"
)

// ServiceDiff is what differs of one service between two releases.
type ServiceDiff struct {
	Service string      `json:"service"`
	Target  string      `json:"target,omitempty"`
	Kind    string      `json:"kind"` // added, removed or changed
	Fields  []FieldDiff `json:"fields,omitempty"`
}

// FieldDiff is one attribute of a job spec, as JSON; "" is one that is not
// there.
type FieldDiff struct {
	Path string `json:"path"` // TaskGroups[web].Tasks[app].Config.image
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Diff compares what two releases deploy, service by service.
func Diff(ctx context.Context, releases *record.Releases, from, to int) ([]ServiceDiff, error) {
	var sides [2]map[key]record.Service
	var order []key
	for i, n := range []int{from, to} {
		h, err := releases.Read(ctx, n)
		if err != nil {
			return nil, err
		}
		lines, err := releases.Services(ctx, h)
		if err != nil {
			return nil, err
		}
		sides[i] = map[key]record.Service{}
		for _, l := range lines {
			if l.Spec == "" {
				continue
			}
			k := key{l.Target, l.Name}
			if _, taken := sides[i][k]; taken { // another job of the service, which a partial deploy has kept
				k.service = fmt.Sprintf("%s (job %s)", l.Name, l.JobID)
			}
			sides[i][k] = l
			if !slices.Contains(order, k) {
				order = append(order, k)
			}
		}
	}
	var out []ServiceDiff
	for _, k := range order {
		old, had := sides[0][k]
		now, has := sides[1][k]
		d := ServiceDiff{Service: k.service, Target: k.target}
		switch {
		case !had:
			d.Kind = "added"
		case !has:
			d.Kind = "removed"
		case old.Spec == now.Spec:
			continue
		default:
			d.Kind = "changed"
			a, err := releases.Blob(ctx, old.Spec)
			if err != nil {
				return nil, err
			}
			b, err := releases.Blob(ctx, now.Spec)
			if err != nil {
				return nil, err
			}
			if d.Fields, err = diffJSON(a.Job, b.Job); err != nil {
				return nil, err
			}
		}
		out = append(out, d)
	}
	return out, nil
}

func diffJSON(a, b json.RawMessage) ([]FieldDiff, error) {
	old, now := map[string]string{}, map[string]string{}
	for text, into := range map[*json.RawMessage]map[string]string{&a: old, &b: now} {
		var v any
		if err := json.Unmarshal(*text, &v); err != nil {
			return nil, fmt.Errorf("reading a job spec: %w", err)
		}
		flatten("", v, into)
	}
	paths := slices.Collect(maps.Keys(old))
	for p := range now {
		if _, ok := old[p]; !ok {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	var out []FieldDiff
	for _, p := range paths {
		if old[p] != now[p] {
			out = append(out, FieldDiff{p, old[p], now[p]})
		}
	}
	return out, nil
}

// flatten lists the leaves of a job spec. Elements of a list are told apart by
// their name where they have one.
func flatten(path string, v any, into map[string]string) {
	switch v := v.(type) {
	case nil:
	case map[string]any:
		for name, inner := range v {
			next := name
			if path != "" {
				next = path + "." + name
			}
			flatten(next, inner, into)
		}
	case []any:
		for i, inner := range v {
			name := fmt.Sprint(i)
			if m, ok := inner.(map[string]any); ok {
				named, _ := m["Name"].(string)
				label, _ := m["PortLabel"].(string)
				name = cmp.Or(named, label, name)
			}
			flatten(fmt.Sprintf("%s[%s]", path, name), inner, into)
		}
	default:
		text, err := json.Marshal(v)
		if err == nil {
			into[path] = string(text)
		}
	}
}
