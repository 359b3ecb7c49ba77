package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
)

// DNSSolvers returns a function for [acme.Config.FindSolver], which solves DNS-01 in the
// zones of the desired records. In the zones of the stack that owns the certificate, and
// below them, it uses that stack's provider; otherwise that of the stack with the longest
// zone that contains the name. resolvers replace those of the stacks. dns-persist-01
// needs no zone if its record exists. dns blocks with NoChallenges are left out.
func DNSSolvers(wants dns.DesiredRecords, allowed dns.Allowed, resolvers []string, skipCheck bool) func(context.Context, acme.Spec) (acme.Solver, error) {
	return func(ctx context.Context, spec acme.Spec) (acme.Solver, error) {
		list, _, err := wants.List(ctx, 0, 0)
		list = slices.DeleteFunc(list, func(w *dns.Wanted) bool { return w.NoChallenges })
		if len(list) == 0 && spec.Challenge != acme.DNSPersist01 {
			if err == nil {
				err = fmt.Errorf("a DNS provider is needed, and no stack with a dns block is deployed here")
			}
			return nil, err
		}
		list = forOwner(list, spec.Owner)
		solver := &acme.DNS{Resolvers: resolvers, SkipCheck: skipCheck}
		type zone struct {
			stack *dns.Wanted
			err   error // why it cannot be changed
		}
		zones := map[string]zone{}
		for _, w := range list {
			provider, err := wants.Open(ctx, w, allowed)
			for _, name := range w.Zones {
				bare := strings.ToLower(strings.TrimSuffix(name, "."))
				// Of two stacks with one zone, the first that can change it.
				if known, there := zones[bare]; there && (known.err == nil || err != nil) {
					continue
				}
				zones[bare] = zone{w, err}
				if err == nil {
					solver.Zones = append(solver.Zones, acme.Zone{Name: bare, Provider: provider})
				}
			}
		}
		var named []string // resolvers
		for _, name := range spec.Names {
			best := ""
			for z := range zones {
				if record := "_acme-challenge." + strings.TrimPrefix(name, "*."); strings.HasSuffix(record, "."+z) && len(z) > len(best) {
					best = z
				}
			}
			switch z := zones[best]; {
			case best == "": // perhaps an alias leads into a zone, which Check finds out
			case z.err != nil && spec.Challenge != acme.DNSPersist01:
				return nil, fmt.Errorf("zone %s of stack %s: %w", best, z.stack.Owner, z.err)
			default:
				named = append(named, z.stack.Resolvers...)
			}
		}
		if len(solver.Zones) == 0 && spec.Challenge != acme.DNSPersist01 {
			for name, z := range zones {
				return nil, fmt.Errorf("zone %s of stack %s: %w", name, z.stack.Owner, z.err)
			}
		}
		if len(resolvers) == 0 {
			slices.Sort(named)
			solver.Resolvers = slices.Compact(named)
		}
		return solver, nil
	}
}

// forOwner puts the stack of the owner first, and takes from the others the zones that
// are zones of the owner or below one: their stacks would receive its records.
func forOwner(list []*dns.Wanted, owner string) []*dns.Wanted {
	var own, others []*dns.Wanted
	for _, w := range list {
		if of, _ := dns.StackOwner(w.Owner); of == owner {
			own = append(own, w)
		} else {
			others = append(others, w)
		}
	}
	if len(own) == 0 {
		return list
	}
	for i, w := range others {
		c := *w
		c.Zones = slices.DeleteFunc(slices.Clone(w.Zones), func(z string) bool {
			return slices.ContainsFunc(own, func(o *dns.Wanted) bool { return dns.Within(z, o.Zones) })
		})
		others[i] = &c
	}
	return append(own, others...)
}
