package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

const readNodes = `allow it in the token's policy: node { policy = "read" }`

// some lists the first few of many names.
func some(names []string) string {
	const n = 3
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}

func nodes(f *Facts, _ Needs) []Finding {
	if found := unknown(f, "nodes", readNodes); found != nil {
		return found
	}
	var found []Finding
	ready := 0
	for _, n := range f.Nodes {
		switch {
		case n.Ready():
			ready++
		case n.Status != api.NodeStatusReady:
			found = append(found, Finding{Severity: Warning, Subject: n.Name, Reason: "the node is " + n.Status, Mend: "start its agent; if it is gone for good: nomad system gc"})
		default:
			found = append(found, Finding{Severity: Warning, Subject: n.Name, Reason: "the node takes no allocations", Mend: "nomad node eligibility -enable " + n.ID})
		}
	}
	if ready == 0 {
		found = append(found, Finding{Severity: Error, Reason: "no node takes allocations", Mend: "nomad node status"})
	}
	return good(found, fmt.Sprintf("%d nodes take allocations", ready))
}

func drivers(f *Facts, n Needs) []Finding {
	if f.Missing["nodes"] != nil {
		return nil // nodes says so
	}
	users := map[string][]string{} // driver → services
	for _, j := range n.Jobs {
		for _, g := range j.Job.TaskGroups {
			for _, t := range g.Tasks {
				if !slices.Contains(users[t.Driver], j.Service) {
					users[t.Driver] = append(users[t.Driver], j.Service)
				}
			}
		}
	}
	var found []Finding
	healthy := map[string]int{}
	for _, node := range f.Nodes {
		if !node.Ready() {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(node.Drivers)) {
			d := node.Drivers[name]
			switch {
			case d.Healthy:
				healthy[name]++
			case d.Detected && (len(n.Jobs) == 0 || users[name] != nil):
				found = append(found, Finding{
					Severity: Warning, Subject: node.Name,
					Reason: fmt.Sprintf("driver %s is there but not healthy: %s", name, d.HealthDescription),
					Mend:   "nomad node status -verbose " + node.ID,
				})
			}
		}
	}
	for _, d := range slices.Sorted(maps.Keys(users)) {
		if healthy[d] > 0 {
			continue
		}
		remedy := fmt.Sprintf("install what driver %s needs on the nodes; nomad node status -verbose NODE says what is missing", d)
		if d == "raw_exec" {
			remedy = `plugin "raw_exec" { config { enabled = true } } in the configuration of the clients`
		}
		found = append(found, Finding{Severity: Error, Subject: d, Reason: fmt.Sprintf("no node has a healthy driver %s, which %s needs", d, some(users[d])), Mend: remedy})
	}
	var names []string
	for _, d := range slices.Sorted(maps.Keys(healthy)) {
		names = append(names, fmt.Sprintf("%s on %d", d, healthy[d]))
	}
	return good(found, strings.Join(names, ", "))
}

func placement(f *Facts, n Needs) []Finding {
	if len(n.Jobs) == 0 {
		return nil
	}
	found := unknown(f, "placement", "")
	for _, s := range slices.Sorted(maps.Keys(f.Placements)) {
		found = append(found, Finding{Severity: Error, Subject: s, Reason: "no node takes it: " + f.Placements[s], Mend: "nomad node status -verbose; drover render " + n.Stack + " --service " + s})
	}
	return good(found, fmt.Sprintf("all %d jobs find a node", len(n.Jobs)))
}

func disks(f *Facts, _ Needs) []Finding {
	found := unknown(f, "stats", readNodes)
	for _, n := range f.Nodes {
		seen := map[string]bool{}
		look := func(what string, d *api.HostDiskStats) {
			if d == nil || d.Size == 0 || seen[d.Mountpoint] {
				return
			}
			seen[d.Mountpoint] = true
			left := 100 * float64(d.Available) / float64(d.Size)
			severity := Warning
			switch {
			case d.Available < 256<<20 || left < 1:
				severity = Error
			case left < 10 && d.Available < 20<<30:
			case d.InodesUsedPercent > 95:
				found = append(found, Finding{
					Severity: Warning, Subject: n.Name,
					Reason: fmt.Sprintf("%.0f%% of the inodes of %s are used (%s)", d.InodesUsedPercent, d.Mountpoint, what),
					Mend:   "nomad system gc, or a larger disk",
				})
				return
			default:
				return
			}
			found = append(found, Finding{
				Severity: severity, Subject: n.Name,
				Reason: fmt.Sprintf("%s has %d MiB left of %d (%s)", d.Mountpoint, d.Available>>20, d.Size>>20, what),
				Mend:   "nomad system gc, or a larger disk",
			})
		}
		look("allocations", n.AllocDir)
		for _, name := range slices.Sorted(maps.Keys(n.Volumes)) {
			look("volume "+name, diskOf(n.Disks, n.Volumes[name].Path))
		}
	}
	return good(found, "there is space")
}

// diskOf is the file system that a path is on.
func diskOf(disks []*api.HostDiskStats, path string) *api.HostDiskStats {
	var best *api.HostDiskStats
	for _, d := range disks {
		m := strings.TrimSuffix(d.Mountpoint, "/") + "/"
		if strings.HasPrefix(path+"/", m) && (best == nil || len(d.Mountpoint) > len(best.Mountpoint)) {
			best = d
		}
	}
	return best
}

func clocks(f *Facts, _ Needs) []Finding {
	found := unknown(f, "stats", readNodes)
	worst := time.Duration(0)
	for _, n := range f.Nodes {
		if !n.SkewKnown {
			continue
		}
		off := max(n.Skew.Abs()-n.Fuzz, 0)
		worst = max(worst, off)
		severity := Warning
		switch {
		case off > time.Minute:
			severity = Error
		case off <= 5*time.Second:
			continue
		}
		side := "ahead of"
		if n.Skew < 0 {
			side = "behind"
		}
		found = append(found, Finding{
			Severity: severity, Subject: n.Name,
			Reason: fmt.Sprintf("its clock is %s %s ours; tokens, certificates and leases go by clocks", n.Skew.Abs().Round(time.Second), side),
			Mend:   "timedatectl set-ntp true, there or here",
		})
	}
	return good(found, fmt.Sprintf("within %s, as far as can be seen", max(worst, time.Second).Round(time.Second)))
}
