package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

func versions(f *Facts, _ Needs) []Finding {
	found := unknown(f, "consul", "look at CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN")
	check := func(system string, of map[string]string, supported func(string) bool) {
		seen := map[string][]string{}
		for _, name := range slices.Sorted(maps.Keys(of)) {
			v := of[name]
			if v == "" {
				continue
			}
			seen[v] = append(seen[v], name)
			if !supported(v) {
				found = append(found, Finding{Severity: Error, Subject: name, Reason: fmt.Sprintf("runs %s %s, which drover does not know", system, v), Mend: "update it"})
			}
		}
		if len(seen) > 1 {
			var parts []string
			for _, v := range slices.Sorted(maps.Keys(seen)) {
				parts = append(parts, fmt.Sprintf("%s on %s", v, some(seen[v])))
			}
			found = append(found, Finding{Severity: Warning, Reason: fmt.Sprintf("%s runs in several versions: %s", system, strings.Join(parts, "; ")), Mend: "finish the update: servers first, then clients"})
		}
	}
	agents := map[string]string{}
	for _, s := range f.Servers {
		agents["server "+s.Name] = s.Version
	}
	for _, n := range f.Nodes {
		agents["node "+n.Name] = n.Version
	}
	check("Nomad", agents, nomad.SupportedNomad)
	check("Consul", f.ConsulVersions, nomad.SupportedConsul)
	return good(found, fmt.Sprintf("%d Nomad agents, %d Consul agents", len(agents), len(f.ConsulVersions)))
}

func servers(f *Facts, _ Needs) []Finding {
	found := unknown(f, "servers", `allow it in the token's policy: agent { policy = "read" }`)
	alive := 0
	for _, s := range f.Servers {
		if s.Status == "alive" {
			alive++
			continue
		}
		found = append(found, Finding{Severity: Warning, Subject: s.Name, Reason: "the server is " + s.Status, Mend: "start it, or nomad server force-leave " + s.Name})
	}
	switch {
	case alive == 0:
	case alive == 1:
		found = append(found, Finding{
			Severity: Warning,
			Reason:   "there is one server: when its disk goes, so do the state, the secrets and the certificates",
			Mend:     "run three; until then: nomad operator snapshot save FILE, every day, to another machine",
		})
	case alive%2 == 0:
		found = append(found, Finding{Severity: Warning, Reason: fmt.Sprintf("%d servers outlive the loss of no more than %d would", alive, alive-1), Mend: "add or remove one"})
	}
	if f.Health != nil && !f.Health.Healthy {
		for _, s := range f.Health.Servers {
			if !s.Healthy {
				found = append(found, Finding{
					Severity: Error, Subject: s.Name,
					Reason: fmt.Sprintf("autopilot calls the server unhealthy (serf %s, last contact %s)", s.SerfStatus, s.LastContact),
					Mend:   "nomad operator autopilot health",
				})
			}
		}
	}
	return good(found, fmt.Sprintf("%d servers", alive))
}

func acl(f *Facts, _ Needs) []Finding {
	found := unknown(f, "acl", "")
	for _, r := range f.Rights {
		if r.Err != nil {
			found = append(found, Finding{Severity: Error, Subject: r.What, Reason: fmt.Sprintf("the token may not %s: %v", r.What, r.Err), Mend: "allow it in the token's policy: " + r.Capability})
		}
	}
	if !f.ACLs && f.Missing["acl"] == nil {
		found = append(found, Finding{
			Severity: Warning,
			Reason:   "Nomad ACLs are disabled: anyone who can reach the API can read every secret and run code as root",
			Mend:     "acl { enabled = true } on every agent, then nomad acl bootstrap",
		})
	}
	return good(found, "the token may do what a deployment needs")
}

func scheduler(f *Facts, _ Needs) []Finding {
	found := unknown(f, "scheduler", `allow it in the token's policy: operator { policy = "read" }`)
	if s := f.Scheduler; s != nil {
		if s.RejectJobRegistration {
			found = append(found, Finding{Severity: Error, Reason: "the cluster takes no jobs but with a management token", Mend: "nomad operator scheduler set-config -reject-job-registration=false"})
		}
		if s.PauseEvalBroker {
			found = append(found, Finding{Severity: Error, Reason: "the scheduler is paused: nothing that is registered is started", Mend: "nomad operator scheduler set-config -pause-eval-broker=false"})
		}
	}
	return good(found, "it takes jobs and schedules them")
}

func keyring(f *Facts, _ Needs) []Finding {
	found := unknown(f, "keyring", "it takes a management token")
	if len(f.Keys) == 0 {
		return found
	}
	if !f.ExternalKEK && f.Missing["servers"] == nil {
		found = append(found, Finding{
			Severity: Note,
			Reason:   "a snapshot of Nomad holds the key of all Variables in clear, and with it every secret and certificate",
			Mend:     "keep snapshots as secret as the secrets; for one that others see: nomad operator snapshot save -redact",
		})
	}
	active := false
	for _, k := range f.Keys {
		active = active || k.State == api.RootKeyStateActive
		if age := f.At.Sub(time.Unix(0, k.CreateTime)); k.State == api.RootKeyStateActive && age > 366*24*time.Hour {
			found = append(found, Finding{Severity: Warning, Subject: k.KeyID, Reason: fmt.Sprintf("the active key is %d days old", int(age.Hours())/24), Mend: "nomad operator root keyring rotate"})
		}
	}
	if !active {
		found = append(found, Finding{Severity: Error, Reason: "no key is active: Variables can be neither read nor written", Mend: "nomad operator root keyring rotate -full"})
	}
	return good(found, fmt.Sprintf("%d keys", len(f.Keys)))
}
