package consul

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	capi "github.com/hashicorp/consul/api"
)

// MetaPublicAddress is where clients from outside reach an instance, in the
// meta of its service: addresses with commas between them. Without it, it is
// where the instance serves HTTPS.
const MetaPublicAddress = "public_address"

// Public are the addresses at which clients from outside reach the passing
// instances of a service of the edge (GET /v1/health/service/NAME?passing).
// It returns an error for an address that is not an IP address, because it
// would be written to DNS.
func Public(ctx context.Context, client *capi.Client, service string) ([]string, error) {
	entries, _, err := client.Health().Service(service, "", true, (&capi.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("asking Consul for the instances of %s: %w", service, err)
	}
	var out []string
	for _, e := range entries {
		text := cmp.Or(e.Service.Meta[MetaPublicAddress], e.Service.Meta["https_address"], e.Service.Address, e.Node.Address)
		for part := range strings.SplitSeq(text, ",") {
			a, err := netip.ParseAddr(strings.TrimSpace(part))
			if err != nil || a.IsUnspecified() {
				return nil, fmt.Errorf("service %s on node %s says that it is reached at %q, which is no address: set %s in its meta", service, e.Node.Node, part, MetaPublicAddress)
			}
			out = append(out, a.Unmap().String())
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
