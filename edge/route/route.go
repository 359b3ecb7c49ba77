// Package route parses the tags by which a service asks the edge for a route. It only
// splits tags, so that a service with an invalid value is still found; package edge
// validates the values.
package route

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// Prefix of the tags for the edge.
const Prefix = "drover."

// EdgeName is the name of the edges in Consul, which all of them share, and the ID of the
// job of the first one.
const EdgeName = "edge"

// IsEdge reports whether a job is an edge, by its ID. That of each other one is edge-NAME.
func IsEdge(jobID string) bool { return jobID == EdgeName || strings.HasPrefix(jobID, EdgeName+"-") }

// Kind is what a route does, and the key of its tag.
type Kind string

// Kinds of routes.
const (
	HTTP     Kind = "route"
	Redirect Kind = "redirect"
	TCP      Kind = "tcp"
	SNI      Kind = "sni"
)

// Tag is a tag that asks for a route.
type Tag struct {
	Kind Kind
	From string // HOST/PATH, a port, or a host; "" if the tag has no value
	Code int    // of a redirect, 0 if it has none
	To   string // of a redirect
}

// Parse takes a tag apart. It returns false for a tag that asks for no route.
func Parse(tag string) (Tag, bool) {
	key, value, ok := strings.Cut(strings.TrimPrefix(tag, Prefix), "=")
	t := Tag{Kind: Kind(key)}
	if !ok || !strings.HasPrefix(tag, Prefix) || !slices.Contains([]Kind{HTTP, Redirect, TCP, SNI}, t.Kind) {
		return Tag{}, false
	}
	var rest string
	t.From, rest, _ = strings.Cut(value, " ")
	if t.Kind == Redirect {
		var code string
		code, t.To, _ = strings.Cut(rest, " ")
		t.Code, _ = strconv.Atoi(code) // 0 for what is no number
	}
	return t, true
}

// Host returns the host that the tag asks for, "" for a port.
func (t Tag) Host() string {
	if t.Kind == TCP {
		return ""
	}
	host, _, _ := strings.Cut(t.From, "/")
	return host
}

// Services returns the services of all groups and tasks of jobs.
func Services(jobs ...*api.Job) []*api.Service {
	var out []*api.Service
	for _, j := range jobs {
		for _, g := range j.TaskGroups {
			out = append(out, g.Services...)
			for _, t := range g.Tasks {
				out = append(out, t.Services...)
			}
		}
	}
	return out
}
