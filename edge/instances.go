package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge/route"
)

// MetaPublicAddress is the address at which clients from outside reach an
// instance, in the meta of its service: addresses with commas between them.
// Without it, it is the address at which the instance serves HTTPS.
const MetaPublicAddress = "public_address"

// NamespaceEnv is the environment variable with the namespace of the edge's job, if
// that is not the namespace of the client.
const NamespaceEnv = "DROVER_EDGE_NAMESPACE"

// CredentialsEnv is the environment variable with USER:PASSWORD for the port metrics
// of the edge, if its variable metrics_users demands one.
const CredentialsEnv = "DROVER_EDGE_CREDENTIALS" //nolint:gosec // a name

// Finder finds the instances of the edge. Any workload may register a service with
// the name of the edge, so an instance counts only if Nomad has its allocation, of
// the job edge in the edge's namespace.
type Finder struct {
	Nomad     *api.Client
	Consul    *capi.Client
	Namespace string // of the edge's job; that of Nomad when empty
	// Credentials are USER:PASSWORD for the port metrics; none when empty.
	Credentials string
}

// NotEdgeError is an instance in Consul that does not count, and why.
type NotEdgeError struct {
	Node string // in Consul
	ID   string // of the service
	Msg  string
}

func (e *NotEdgeError) Error() string {
	return fmt.Sprintf("service %s on node %s is skipped: %s", ServiceName, e.Node, e.Msg)
}

// where names the place of the edge's job.
func (f Finder) where() string {
	if f.Namespace == "" {
		return "job " + ServiceName
	}
	return "job " + ServiceName + " in namespace " + f.Namespace
}

// split returns the entries that are allocations of the edge's job (GET
// /v1/allocations), and an error for each other one.
func (f Finder) split(ctx context.Context, entries []*capi.ServiceEntry) (good []*capi.ServiceEntry, skipped []error, err error) {
	if len(entries) == 0 {
		return nil, nil, nil
	}
	live, err := f.live(ctx)
	if err != nil {
		return nil, nil, err
	}
	times := map[string]int{}
	for _, e := range entries {
		times[alloc(e)]++
	}
	for _, e := range entries {
		switch id := alloc(e); {
		case live[id] == "":
			skipped = append(skipped, &NotEdgeError{e.Node.Node, e.Service.ID, "it is no running allocation of the " + f.where()})
		case times[id] > 1:
			skipped = append(skipped, &NotEdgeError{e.Node.Node, e.Service.ID, "its allocation is registered twice"})
		default:
			good = append(good, e)
		}
	}
	return good, skipped, nil
}

// live are the jobs of the allocations that are the edge and have not ended, by the ID
// of the allocation.
func (f Finder) live(ctx context.Context) (map[string]string, error) {
	q := (&api.QueryOptions{Namespace: f.Namespace, Filter: fmt.Sprintf("JobID == %q or JobID matches %q", ServiceName, "^"+ServiceName+"-")}).WithContext(ctx)
	allocs, _, err := f.Nomad.Allocations().List(q)
	if err != nil {
		return nil, fmt.Errorf("listing the allocations of the %s, to know which instances in Consul are the edge's: %w", f.where(), err)
	}
	live := map[string]string{}
	for _, a := range allocs {
		if route.IsEdge(a.JobID) && a.ClientStatus != api.AllocClientStatusComplete && a.ClientStatus != api.AllocClientStatusFailed {
			live[a.ID] = a.JobID
		}
	}
	return live, nil
}

// alloc is the ID of the allocation that Nomad registered, "" for none.
func alloc(e *capi.ServiceEntry) string {
	if m := allocID.FindStringSubmatch(e.Service.ID); m != nil {
		return m[1]
	}
	return ""
}

// passing are the instances whose checks pass (GET
// /v1/health/service/edge?passing); skipped are those that are not the edge's.
func (f Finder) passing(ctx context.Context) (good []*capi.ServiceEntry, skipped []error, err error) {
	entries, _, err := f.Consul.Health().Service(ServiceName, "", true, (&capi.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("asking Consul for the edge: %w", err)
	}
	return f.split(ctx, entries)
}

// Public returns the addresses at which clients from outside reach the passing
// instances of the default class, sorted. skipped says which instances do not count: those that are not
// the edge's, and those whose address is none.
func (f Finder) Public(ctx context.Context) (addresses []string, skipped []error, err error) {
	entries, skipped, err := f.passing(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if e.Service.Meta["class"] != e.Service.Meta["default_class"] {
			continue
		}
		text := cmp.Or(e.Service.Meta[MetaPublicAddress], e.Service.Meta["https_address"], e.Service.Address, e.Node.Address)
		var of []string
		for part := range strings.SplitSeq(text, ",") {
			a, err := netip.ParseAddr(strings.TrimSpace(part))
			if err != nil || a.IsUnspecified() {
				skipped = append(skipped, &NotEdgeError{e.Node.Node, e.Service.ID, fmt.Sprintf("its public address %q is no address: set %s in its meta", part, MetaPublicAddress)})
				of = nil
				break
			}
			of = append(of, a.Unmap().String())
		}
		addresses = append(addresses, of...)
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), skipped, nil
}

// Exporters returns the HOST:PORT of the metrics of each passing instance, by the ID of
// its service.
func (f Finder) Exporters(ctx context.Context) (map[string]string, error) {
	entries, _, err := f.passing(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(entries))
	for _, e := range entries {
		out[e.Service.ID] = net.JoinHostPort(host(e), strconv.Itoa(e.Service.Port))
	}
	return out, nil
}

// Place is where one instance of the edge serves HTTPS, and what.
type Place struct {
	Address string // HOST:PORT
	// Certificates are those that it reads; nil if that is unknown.
	Certificates []string
	kind         Kind
	settings     *Settings
}

// Reading are the addresses of the instances that read a certificate. If none does, it
// returns all addresses.
func Reading(places []Place, certificate string) []string {
	var all, some []string
	for _, p := range places {
		all = append(all, p.Address)
		if p.Certificates == nil || slices.Contains(p.Certificates, certificate) {
			some = append(some, p.Address)
		}
	}
	if len(some) == 0 {
		some = all
	}
	slices.Sort(some)
	return slices.Compact(some)
}

// Places reads from every passing instance what it serves and where. It returns an error
// for each one that does not answer, beside the others. An instance that fails its check
// may be starting.
func (f Finder) Places(ctx context.Context) ([]Place, error) {
	entries, _, err := f.passing(ctx)
	if err != nil {
		return nil, err
	}
	var out []Place
	var errs []error
	for _, e := range entries {
		said, metrics, err := readInstance(ctx, e, f.Credentials, askTimeout)
		var address string
		if err == nil {
			address, err = said.address(e)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the edge at %s: %w", metrics, err))
			continue
		}
		out = append(out, Place{address, append([]string{}, said.Certificates...), said.Edge, &said.Settings})
	}
	return out, errors.Join(errs...)
}
