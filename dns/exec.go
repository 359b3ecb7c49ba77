package dns

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// execProvider asks a program: a request as JSON on its stdin, an answer as
// JSON on its stdout. docs/reference/dns.md describes both.
type execProvider struct{ command []string }

const execVersion = 1

type execRequest struct {
	Version   int          `json:"version"`
	Operation string       `json:"operation"` // list or apply
	Zone      string       `json:"zone"`
	Changes   []execChange `json:"changes,omitempty"`
}

type execChange struct {
	Action string `json:"action"` // set or delete
	execRecord
}

type execRecord struct {
	Name   string   `json:"name"` // complete, without the dot
	Type   string   `json:"type"`
	TTL    int      `json:"ttl,omitempty"`
	Values []string `json:"values,omitempty"`
}

type execAnswer struct {
	Records []execRecord `json:"records"`
	Error   string       `json:"error"`
	Kind    Kind         `json:"kind"` // refused when empty
}

func openExec(o Options) (Provider, error) {
	if len(o.Command) == 0 {
		return nil, optionsf(`the DNS provider exec needs a program: command = ["/usr/local/bin/dns-hook"]`)
	}
	if _, err := exec.LookPath(o.Command[0]); err != nil {
		return nil, optionsf("the program of the DNS provider exec: %s", err)
	}
	return &setProvider{backend: &execProvider{command: o.Command}}, nil
}

func (p *execProvider) sets(ctx context.Context, zone string, _ []Key) (map[Key]Set, error) {
	a, err := p.run(ctx, execRequest{Operation: "list", Zone: zone})
	if err != nil {
		return nil, err
	}
	out := map[Key]Set{}
	for _, r := range a.Records {
		name, err := completeName(cmp.Or(r.Name, "@"), zone)
		if err != nil {
			name = strings.ToLower(strings.TrimSuffix(r.Name, "."))
		}
		key := Key{name, strings.ToUpper(r.Type)}
		set := Set{TTL: r.TTL, Values: slices.Clone(out[key].Values)}
		for _, v := range r.Values {
			if n, err := normalizeValue(key.Type, v); err == nil {
				v = n
			}
			set.Values = append(set.Values, v)
		}
		slices.Sort(set.Values)
		set.Values = slices.Compact(set.Values)
		out[key] = set
	}
	return out, nil
}

func (p *execProvider) apply(ctx context.Context, zone string, edits []Edit) error {
	req := execRequest{Operation: "apply", Zone: zone}
	for _, e := range edits {
		c := execChange{Action: "delete", execRecord: execRecord{Name: e.Name, Type: e.Type}}
		if e.Set != nil {
			c.Action, c.TTL, c.Values = "set", e.Set.TTL, e.Set.Values
		}
		req.Changes = append(req.Changes, c)
	}
	_, err := p.run(ctx, req)
	return err
}

func (p *execProvider) run(ctx context.Context, req execRequest) (execAnswer, error) {
	var a execAnswer
	req.Version = execVersion
	in, err := json.Marshal(req)
	if err != nil {
		return a, err
	}
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	cmd.Stdin = bytes.NewReader(append(in, '\n'))
	out, errs := &limited{max: 64 << 20}, &limited{max: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = time.Second // for a child that keeps the pipes
	ownGroup(cmd)
	err = cmd.Run()
	fail := func(kind Kind, msg string, cause error) (execAnswer, error) {
		return a, &Error{Provider: ProviderExec, Kind: kind, Msg: msg, Err: cause}
	}
	if ctx.Err() != nil {
		return fail(KindUnavailable, p.command[0]+" did not end in time", ctx.Err())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fail(KindUnavailable, "cannot run "+p.command[0], err)
	}
	jsonErr := json.Unmarshal(out.Bytes(), &a)
	switch {
	case jsonErr == nil && a.Error != "":
		kind := cmp.Or(a.Kind, KindRefused)
		if !slices.Contains([]Kind{KindRefused, KindDenied, KindNoZone, KindUnavailable}, kind) {
			kind = KindRefused
		}
		return fail(kind, firstLine(a.Error), nil)
	case err != nil:
		msg := fmt.Sprintf("%s ended with %d", p.command[0], exit.ExitCode())
		if last := lastLine(errs.String()); last != "" {
			msg += ": " + last
		}
		return fail(KindUnavailable, msg, nil)
	case out.over:
		return fail(KindUnavailable, p.command[0]+" printed more than 64 MiB", nil)
	case jsonErr != nil:
		return fail(KindUnavailable, p.command[0]+" did not answer with JSON", jsonErr)
	}
	return a, nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return firstLine(s[strings.LastIndexByte(s, '\n')+1:])
}

// limited keeps the beginning of what a program prints.
type limited struct {
	bytes.Buffer
	max  int
	over bool
}

func (l *limited) Write(b []byte) (int, error) {
	if room := l.max - l.Len(); len(b) > room {
		l.over = true
		_, _ = l.Buffer.Write(b[:room])
		return len(b), nil
	}
	return l.Buffer.Write(b)
}
