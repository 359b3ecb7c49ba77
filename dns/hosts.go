package dns

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge/route"
)

// HostPrefix is that of the tags by which a service says how the records of its
// routes differ from the others. An edge ignores them.
const HostPrefix = "drover-dns."

// Host is how the records of one host of routes differ from the others.
type Host struct {
	Targets []string `json:"targets,omitempty"` // instead of those of the stack or of the edge
	TTL     int      `json:"ttl,omitempty"`     // seconds; 0 for that of the stack
	In      []string `json:"in,omitempty"`      // names of the dns blocks that have the host; empty for all
	Proxied *bool    `json:"proxied,omitempty"` // as in Record
}

// RouteSettings returns the settings of the hosts in the routes of these jobs that
// have any. They hold for all routes of a service. The errors are about tags: one
// that is not valid is left out, and of two services that disagree about a host the
// first counts.
func RouteSettings(jobs []*api.Job) (map[string]Host, error) {
	var (
		out  = map[string]Host{}
		errs []error
	)
	for _, s := range route.Services(jobs...) {
		for _, tags := range [][]string{s.Tags, s.CanaryTags} {
			settings, err := parseHost(tags)
			if err != nil {
				errs = append(errs, fmt.Errorf("service %s: %w", s.Name, err))
			}
			for _, tag := range tags {
				t, ok := route.Parse(tag)
				host, err := normalizeName(t.Host())
				if !ok || err != nil || reflect.DeepEqual(settings, Host{}) {
					continue
				}
				if first, there := out[host]; there && !reflect.DeepEqual(first, settings) {
					errs = append(errs, fmt.Errorf("service %s: its tags %s* for %s differ from those of another service", s.Name, HostPrefix, host))
					continue
				}
				out[host] = settings
			}
		}
	}
	return out, errors.Join(errs...)
}

func parseHost(tags []string) (Host, error) {
	var (
		h    Host
		errs []error
	)
	for _, tag := range tags {
		setting, ours := strings.CutPrefix(tag, HostPrefix)
		if !ours {
			continue
		}
		bad := func(want string) {
			errs = append(errs, fmt.Errorf("the tag %q is not %s", tag, want))
		}
		switch key, v, _ := strings.Cut(setting, "="); key {
		case "target":
			targets := strings.Split(v, ",")
			ok := !slices.ContainsFunc(targets, func(t string) bool {
				_, err := netip.ParseAddr(t)
				return err != nil && len(targets) > 1
			})
			if _, err := normalizeTarget(targets[0]); !ok || err != nil && len(targets) == 1 && !isAddress(targets[0]) {
				bad(HostPrefix + "target=NAME or " + HostPrefix + "target=ADDRESS[,ADDRESS…]")
				continue
			}
			h.Targets = targets
		case "ttl":
			ttl, err := strconv.Atoi(v)
			if err != nil || ttl < 1 || ttl > maxTTL {
				bad(HostPrefix + "ttl=SECONDS")
				continue
			}
			h.TTL = ttl
		case "in":
			h.In = strings.Split(v, ",")
			if slices.Contains(h.In, "") {
				h.In = nil
				bad(HostPrefix + "in=NAME[,NAME…]")
			}
		case "proxied":
			if v != "true" && v != "false" {
				bad(HostPrefix + "proxied=true or " + HostPrefix + "proxied=false")
				continue
			}
			proxied := v == "true"
			h.Proxied = &proxied
		default:
			bad("one of " + HostPrefix + "target, " + HostPrefix + "ttl, " + HostPrefix + "in and " + HostPrefix + "proxied")
		}
	}
	return h, errors.Join(errs...)
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// needsEdge reports whether the records of a host lead to the edge's instances.
func (w *Wanted) needsEdge(host string) bool {
	return len(w.Targets) == 0 && len(w.Settings[host].Targets) == 0
}

// SetRoutes makes w have the hosts in the routes of these jobs, and their settings.
// The error is as in [RouteSettings].
func (w *Wanted) SetRoutes(jobs []*api.Job) error {
	var err error
	w.Settings, err = RouteSettings(jobs)
	_, block := StackOwner(w.Owner)
	elsewhere := func(host string) bool {
		in := w.Settings[host].In
		return len(in) > 0 && !slices.Contains(in, block)
	}
	w.Hosts = slices.DeleteFunc(RoutedHosts(RouteHosts(jobs), w.Zones, w.Records), elsewhere)
	maps.DeleteFunc(w.Settings, func(host string, _ Host) bool { return elsewhere(host) })
	return err
}

// routed returns the records of hosts, with their settings.
func (w *Wanted) routed(targets []string) ([]Record, error) {
	out, err := RouteRecords(nil, targets, nil, 0, nil) // also without hosts, to check targets
	if err != nil {
		return nil, err
	}
	for _, host := range w.Hosts {
		s, to, ttl := w.Settings[host], targets, w.TTL
		if len(s.Targets) > 0 {
			to = s.Targets
		}
		if s.TTL > 0 {
			ttl = s.TTL
		}
		records, err := RouteRecords([]string{host}, to, w.Zones, ttl, w.Records)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if w.Options.Provider == ProviderCloudflare { // of several blocks of the stack, the others have no such setting
				r.Proxied = s.Proxied
			}
			out = append(out, r)
		}
	}
	return out, nil
}
