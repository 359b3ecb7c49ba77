package compose

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// parseRule returns the hosts and paths of a rule of Traefik 2 or 3: Host and paths,
// joined with && and ||. It returns an error for any other rule.
func parseRule(rule string) ([]site, error) {
	p := &ruleParser{rest: rule}
	alternatives, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.skip(); p.rest != "" {
		return nil, fmt.Errorf("%q", p.rest)
	}
	var out []site
	for _, a := range alternatives {
		if len(a.hosts) == 0 {
			return nil, errors.New("no host")
		}
		paths := a.paths
		if len(paths) == 0 {
			paths = []site{{path: "/"}}
		}
		for _, h := range a.hosts {
			for _, at := range paths {
				out = append(out, site{h, at.path, at.exact})
			}
		}
	}
	return out, nil
}

// conjunction is what all must hold: one of the hosts, and one of the paths.
type conjunction struct {
	hosts []string
	paths []site
}

type ruleParser struct{ rest string }

func (p *ruleParser) skip() { p.rest = strings.TrimLeft(p.rest, " \t\n") }

func (p *ruleParser) token(t string) bool {
	p.skip()
	rest, ok := strings.CutPrefix(p.rest, t)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *ruleParser) or(depth int) ([]conjunction, error) {
	all, err := p.and(depth)
	for err == nil && p.token("||") {
		var more []conjunction
		more, err = p.and(depth)
		all = append(all, more...)
	}
	if len(all) > 100 {
		return nil, errors.New("more than 100 alternatives")
	}
	return all, err
}

func (p *ruleParser) and(depth int) ([]conjunction, error) {
	all, err := p.atom(depth)
	for err == nil && p.token("&&") {
		var more []conjunction
		if more, err = p.atom(depth); err != nil {
			break
		}
		var both []conjunction
		for _, a := range all {
			for _, b := range more {
				if len(a.hosts) > 0 && len(b.hosts) > 0 || len(a.paths) > 0 && len(b.paths) > 0 {
					return nil, errors.New("two hosts or two paths at once")
				}
				both = append(both, conjunction{append(a.hosts[:len(a.hosts):len(a.hosts)], b.hosts...), append(a.paths[:len(a.paths):len(a.paths)], b.paths...)})
			}
		}
		if all = both; len(all) > 100 {
			return nil, errors.New("more than 100 alternatives")
		}
	}
	return all, err
}

func (p *ruleParser) atom(depth int) ([]conjunction, error) {
	if depth > 20 {
		return nil, errors.New("too many parentheses")
	}
	if p.token("(") {
		all, err := p.or(depth + 1)
		if err == nil && !p.token(")") {
			err = errors.New("a parenthesis that is not closed")
		}
		return all, err
	}
	p.skip()
	name, rest, ok := strings.Cut(p.rest, "(")
	values, after, closed := arguments(rest)
	if !ok || !closed {
		return nil, fmt.Errorf("%q", p.rest)
	}
	p.rest = after
	switch strings.TrimSpace(name) {
	case "Host", "HostHeader":
		return []conjunction{{hosts: values}}, nil
	case "HostRegexp":
		for i, v := range values {
			if values[i], ok = wildcard(v); !ok {
				return nil, fmt.Errorf("the expression %q of HostRegexp", v)
			}
		}
		return []conjunction{{hosts: values}}, nil
	case "PathPrefix", "Path":
		var c conjunction
		for _, v := range values {
			c.paths = append(c.paths, site{path: v, exact: name == "Path"})
		}
		return []conjunction{c}, nil
	}
	return nil, errors.New(strings.TrimSpace(name))
}

// arguments returns the values between parentheses, whose opening one is before s, and
// what is after them. Quotes keep commas and parentheses together.
func arguments(s string) (values []string, after string, closed bool) {
	quote, from := byte(0), 0
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '`' || c == '"' || c == '\'':
			quote = c
		case c == ',' || c == ')':
			values = append(values, strings.Trim(strings.TrimSpace(s[from:i]), "`\"'"))
			if from = i + 1; c == ')' {
				return values, s[from:], true
			}
		}
	}
	return nil, "", false
}

// anyLabel are the expressions that match every name, or every label of one.
const anyLabel = `(?:\.[+*]|\[\^\.\][+*]|\\w\+|\[(?:a-z|A-Z|0-9|\\w|\\d|_|-)*a-z(?:a-z|A-Z|0-9|\\w|\\d|_|-)*\][+*])`

var (
	// Traefik 1 and 2: {name:REGEX}.example.org, and {name}.example.org.
	namedHost = regexp.MustCompile(`^\{[A-Za-z0-9_-]*(?::` + anyLabel + `)?\}\.([^{}]+)$`)
	// Traefik 3, and the regular expression of a name.
	regexHost = regexp.MustCompile(`^\^?(?:` + anyLabel + `|\((?:\?:)?` + anyLabel + `\)|\(\?P?<\w+>` + anyLabel + `\))\\?\.(.+?)\$?$`)
	plainHost = regexp.MustCompile(`^(?:[a-z0-9-]|\.|\x{e000}[0-9]+\x{e001})+$`)
)

// wildcard returns *.NAME for an expression that matches all hosts below a name, at one
// level or at any. The name may have marks.
func wildcard(expr string) (string, bool) {
	m := namedHost.FindStringSubmatch(expr)
	if m == nil {
		m = regexHost.FindStringSubmatch(expr)
	}
	if m == nil {
		return "", false
	}
	name := strings.ToLower(strings.ReplaceAll(m[1], `\.`, "."))
	return "*." + name, plainHost.MatchString(name)
}
