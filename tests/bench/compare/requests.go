package main

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// requests counts requests by method and path template.
type requests struct {
	mu    sync.Mutex
	total int64
	by    map[string]int
}

func (n *requests) count(r *http.Request) {
	key := r.Method + " " + template(r.URL.Path)
	if prefix := r.URL.Query().Get("prefix"); prefix != "" {
		key += "?prefix=" + prefix
	}
	if r.URL.Query().Get("index") != "" && r.URL.Query().Get("index") != "0" {
		key += " (blocking)"
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by == nil {
		n.by = map[string]int{}
	}
	n.total++
	n.by[key]++
}

// text lists the path templates, the most frequent first.
func (n *requests) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(n.by), func(a, b string) int {
		if n.by[a] != n.by[b] {
			return n.by[b] - n.by[a]
		}
		return strings.Compare(a, b)
	})
	var out strings.Builder
	fmt.Fprintf(&out, "%6d requests\n", n.total)
	for _, k := range keys {
		fmt.Fprintf(&out, "%6d %s\n", n.by[k], k)
	}
	return out.String()
}

var templates = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`^/v1/var/nomad/jobs/.*`), "/v1/var/nomad/jobs/:id"},
	{regexp.MustCompile(`^/v1/var/(drover/[a-z]+)/.*/blobs/.*`), "/v1/var/$1/…/blobs/:digest"},
	{regexp.MustCompile(`^/v1/var/(drover/[a-z]+)/.*/releases/[0-9]+/.*`), "/v1/var/$1/…/releases/:number/:page"},
	{regexp.MustCompile(`^/v1/var/(drover/[a-z]+)/.*/releases/[0-9]+`), "/v1/var/$1/…/releases/:number"},
	{regexp.MustCompile(`^/v1/job/[^/]+(/versions/[0-9]+)?`), "/v1/job/:id$1"},
	{regexp.MustCompile(`/versions/[0-9]+`), "/versions/:version"},
	{regexp.MustCompile(`^/v1/(deployment|allocation|evaluation|node)/([a-z]+/)?[0-9a-f-]{36}`), "/v1/$1/$2:id"},
	{regexp.MustCompile(`^/v1/client/allocation/[^/]+`), "/v1/client/allocation/:id"},
	{regexp.MustCompile(`^/v1/service/.*`), "/v1/service/:name"},
}

// template is a path with placeholders instead of names and IDs.
func template(path string) string {
	for _, t := range templates {
		path = t.pattern.ReplaceAllString(path, t.name)
	}
	return path
}
