package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
)

// Exit codes, docs/reference/exit-codes.md.
const (
	exitOK          = 0
	exitError       = 1
	exitFailed      = 3
	exitReverted    = 4
	exitSuperseded  = 6
	exitTimeout     = 8
	exitUnreachable = 10
	exitBusy        = 11
	exitCancelled   = 130
)

// nomadHas is REGION/JOB → VALUE of the stack's jobs that are not stopped.
func (r *run) nomadHas() map[string]string {
	var out map[string]string
	err := r.until(r.t.Context(), time.Minute, "Nomad lists the jobs", func() bool {
		var err error
		out, err = r.values()
		return err == nil
	})
	if err != nil {
		r.violate("%s", err)
	}
	return out
}

func (r *run) values() (map[string]string, error) {
	out := map[string]string{}
	for _, region := range r.site.regions {
		q := &api.QueryOptions{Region: region, Prefix: r.name + "-"}
		list, _, err := r.site.nomad.Jobs().List(q)
		if err != nil {
			return nil, err
		}
		for _, stub := range list {
			if stub.Stop {
				continue
			}
			job, _, err := r.site.nomad.Jobs().Info(stub.ID, &api.QueryOptions{Region: region})
			if err != nil {
				return nil, err
			}
			key := region + "/" + stub.ID
			out[key] = ""
			for _, task := range job.TaskGroups[0].Tasks { // one that a dynamic block makes is in no overlay
				out[key] += task.Env["VALUE"]
			}
		}
	}
	return out, nil
}

// last is the newest release.
func (r *run) last() *record.Release {
	var out *record.Release
	err := r.until(r.t.Context(), time.Minute, "the record is read", func() bool {
		var err error
		out, err = r.releases().Last(r.t.Context())
		return err == nil && out != nil
	})
	if err != nil {
		r.violate("%s", err)
		return &record.Release{}
	}
	return out
}

// truth holds the exit code of the deploy and what it said against Nomad and
// the record.
func (r *run) truth(out string, code int, one, two version) {
	has, last := r.nomadHas(), r.last()
	was, new := one.runs, two.runs
	lie := func(format string, args ...any) {
		r.violate("exit code %d, and %s; release %d is %s (cause %q, %s), Nomad has %v", code, fmt.Sprintf(format, args...), last.Number, last.State, last.Cause, last.Detail, has)
	}
	begun := last.Number == r.base+1
	switch {
	case begun && last.State == record.Done && !maps.Equal(has, new):
		lie("the record says deployed, and that does not run")
	case begun && (last.State == record.Reverted || last.State == record.Aborted) && !maps.Equal(has, was):
		lie("the record says that all is as before")
	case !begun && !maps.Equal(has, was):
		lie("there is no record of what was done")
	}
	text := !strings.HasPrefix(out, "{")
	if begun && last.State.Open() && code > 0 && text && !strings.Contains(out, "drover resume") {
		lie("it does not say how to go on:\n%s", out)
	}
	// The step after the release, its DNS records, failed.
	behind := last.State == record.Done && strings.Contains(out, "is deployed, but its DNS records could not be updated")
	switch code {
	case exitOK:
		if !begun || last.State != record.Done {
			lie("the release is not deployed")
		}
	case exitReverted:
		if !begun || last.State != record.Reverted {
			lie("the release is not reverted")
		}
	case exitFailed, exitTimeout:
		// A release that is not back yet did fail, and stays open.
		if !begun || last.State == record.Done || last.State.Open() && last.State != record.Reverting {
			lie("the release did not fail")
		}
	case exitUnreachable, exitCancelled:
		if begun && !last.State.Open() && !behind {
			lie("the release is at its end")
		}
	case exitError:
		if begun && !behind {
			lie("the release has begun:\n%s", out)
		}
	case exitSuperseded:
		if !r.takenOver {
			lie("no other client changed a job")
		}
	case -1: // killed: the record decides, above
	default:
		lie("that is none that it may have:\n%s", out)
	}
}

// converge brings about what is wanted, as an operator would.
func (r *run) converge(p plan, one, bad, two version) bool {
	was := one.runs
	said := func(verb string, more ...string) (string, int) {
		out, code := r.drover(verb, more...)
		r.row.Then = append(r.row.Then, strings.Join(append([]string{verb}, more...), " "))
		r.t.Logf("drover %s %s: %d", verb, strings.Join(more, " "), code)
		return out, code
	}
	if last := r.last(); last.State.Open() {
		if out, code := r.drover("deploy"); code != exitBusy {
			r.violate("release %d is %s, and the next deploy ended with %d:\n%s", last.Number, last.State, code, out)
		}
		// Until its lock runs out, the deployer of a release may be alive.
		held, err := r.releases().Holder(r.t.Context())
		if out, code := r.drover("status"); code == exitOK && err == nil && held == nil {
			r.violate("release %d is %s, and status is happy:\n%s", last.Number, last.State, out)
		}
		switch p.verb {
		case "take-over":
			two.write()
			if out, code := said("deploy", "--prune", "--take-over", "--lock-wait", "45s"); code != exitOK {
				r.violate("deploy --take-over ended with %d:\n%s", code, out)
				return false
			}
		case "abort":
			out, code := said("abort", "--lock-wait", "45s")
			last, has := r.last(), r.nomadHas()
			switch {
			case code == exitOK && (last.State != record.Aborted && last.State != record.Reverted || !maps.Equal(has, was)):
				r.violate("abort ended well, and release %d is %s, Nomad has %v:\n%s", last.Number, last.State, has, out)
			case code != exitOK && code != exitReverted:
				r.violate("abort ended with %d:\n%s", code, out)
			}
		default:
			out, code := said("resume", "--lock-wait", "45s")
			r.truth(out, code, one, bad)
			if code != exitOK && code != exitReverted {
				r.violate("resume ended with %d:\n%s", code, out)
			}
		}
	}
	if last := r.last(); last.State != record.Done || p.crash || last.Number <= r.base {
		two.write()
		if out, code := said("deploy", "--prune", "--lock-wait", "45s"); code != exitOK {
			r.violate("the next deploy ended with %d:\n%s", code, out)
			return false
		}
	}
	if has := r.nomadHas(); !maps.Equal(has, two.runs) {
		r.violate("at the end Nomad has %v, wanted is %v", has, two.runs)
		return false
	}
	var out string
	err := r.until(r.t.Context(), 90*time.Second, "status is happy", func() bool {
		var code int
		out, code = r.drover("status")
		return code == exitOK
	})
	if err != nil {
		r.violate("%s:\n%s", err, out)
	}
	return err == nil
}

// quiet checks that nothing runs that should not.
func (r *run) quiet(want version) {
	var why string
	err := r.until(r.t.Context(), 90*time.Second, "nothing is left over", func() bool {
		why = r.unrest(want)
		return why == ""
	})
	if err != nil {
		r.violate("%s: %s", err, why)
	}
}

// unrest is the first thing found that should not be there, or is missing.
func (r *run) unrest(want version) string {
	if has, err := r.values(); err != nil || !maps.Equal(has, want.runs) {
		return fmt.Sprintf("Nomad has %v, %v", has, err)
	}
	total := 0
	for _, n := range r.counts {
		total += n * len(r.site.regions)
	}
	for _, region := range r.site.regions {
		running := map[string]int{}
		allocs, _, err := r.site.nomad.Allocations().List(&api.QueryOptions{Region: region})
		if err != nil {
			return err.Error()
		}
		for _, a := range allocs {
			if strings.HasPrefix(a.JobID, r.name+"-") && (a.ClientStatus == api.AllocClientStatusRunning || a.ClientStatus == api.AllocClientStatusPending) {
				running[a.JobID]++
			}
		}
		if !maps.Equal(running, r.counts) {
			return fmt.Sprintf("allocations %v, wanted are %v", running, r.counts)
		}
		dc := ""
		if len(r.site.regions) > 1 {
			dc = region
		}
		names, _, err := r.site.consul.Catalog().Services(&capi.QueryOptions{Datacenter: dc})
		if err != nil {
			return err.Error()
		}
		registered := map[string]int{}
		for name := range names {
			if !strings.HasPrefix(name, r.name+"-") {
				continue
			}
			entries, _, err := r.site.consul.Health().Service(name, "", false, &capi.QueryOptions{Datacenter: dc})
			if err != nil {
				return err.Error()
			}
			for _, e := range entries {
				registered[name]++
				if s := e.Checks.AggregatedStatus(); s != capi.HealthPassing {
					return fmt.Sprintf("%s is %s in Consul", name, s)
				}
			}
		}
		if r.site.kind != ocis && !maps.Equal(registered, r.counts) {
			return fmt.Sprintf("registrations %v, wanted are %v", registered, r.counts)
		}
	}
	// oCIS has jobs with several processes.
	if n := len(r.site.processes(r.name + "-")); n != total && r.site.kind != ocis {
		return fmt.Sprintf("%d processes, wanted are %d", n, total)
	}
	if h, err := r.releases().Holder(r.t.Context()); err != nil || h != nil {
		return fmt.Sprintf("the lock is held by %v, %v", h, err)
	}
	if last, err := r.releases().Last(r.t.Context()); err != nil || last.State.Open() {
		return fmt.Sprintf("the release is %v, %v", last, err)
	}
	if r.site.host == "" {
		return ""
	}
	client := r.site.client(15 * time.Second)
	defer client.CloseIdleConnections()
	if !r.look(r.t.Context(), client) {
		return "it does not answer through the edge"
	}
	for _, name := range []string{"edge", "drover-controller"} {
		entries, _, err := r.site.consul.Health().Service(name, "", false, nil)
		if err != nil || len(entries) == 0 || slices.ContainsFunc(entries, func(e *capi.ServiceEntry) bool { return e.Checks.AggregatedStatus() != capi.HealthPassing }) {
			return fmt.Sprintf("%s is not well: %d registrations, %v", name, len(entries), err)
		}
	}
	return ""
}

// compare looks for every acknowledged file.
func (r *run) compare() {
	r.mu.Lock()
	files := maps.Clone(r.files)
	r.mu.Unlock()
	r.row.Files = len(files)
	for name, sum := range files {
		b, err := r.fetch(name)
		if err != nil || checksum(b) != sum {
			r.violate("the file %s is lost: %v", name, err)
		}
	}
}

// secrets looks for the stack's secret, and tokens, where anybody may read.
func (r *run) secrets() {
	out, code := r.site.run(r.t.Context(), r.env, append([]string{"secrets"}, r.args("export", "-o", "json")...)...)
	if code != exitOK {
		r.violate("secrets export ended with %d:\n%s", code, out)
		return
	}
	secret := words(out)
	for _, v := range r.env {
		if name, value, _ := strings.Cut(v, "="); strings.HasSuffix(name, "_TOKEN") {
			secret = append(secret, value)
		}
	}
	if len(secret) == 0 {
		r.violate("no secret was exported:\n%s", out)
	}
	for where, text := range r.readable() {
		for _, s := range secret {
			if bytes.Contains(text, []byte(s)) {
				r.violate("a secret stands in clear in %s", where)
			}
		}
	}
}

// words are the long strings of a JSON text.
func words(text string) []string {
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return nil
	}
	var out []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) >= 16 {
				out = append(out, v)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return out
}

// readable is all that others than the stack's own jobs may see.
func (r *run) readable() map[string][]byte {
	out := map[string][]byte{"what drover said": r.said.Bytes()}
	add := func(where string, v any, err error) {
		if err != nil {
			r.violate("reading %s: %s", where, err)
			return
		}
		b, err := json.Marshal(v)
		if err != nil {
			r.violate("%s: %s", where, err)
		}
		out[where] = b
	}
	for _, region := range r.site.regions {
		q := &api.QueryOptions{Region: region, Prefix: r.name + "-"}
		list, _, err := r.site.nomad.Jobs().List(q)
		add("the list of jobs", list, err)
		q.Prefix = ""
		for _, stub := range list {
			job, _, err := r.site.nomad.Jobs().Info(stub.ID, q)
			add("job "+stub.ID, job, err)
			if err == nil {
				sub, _, err := r.site.nomad.Jobs().Submission(stub.ID, int(*job.Version), q)
				if err == nil {
					add("submission of "+stub.ID, sub, nil)
				}
			}
			allocs, _, err := r.site.nomad.Jobs().Allocations(stub.ID, true, q)
			add("allocations of "+stub.ID, allocs, err)
			ds, _, err := r.site.nomad.Jobs().Deployments(stub.ID, true, q)
			add("deployments of "+stub.ID, ds, err)
		}
	}
	kv, _, err := r.site.consul.KV().List("", nil)
	if err != nil {
		r.violate("reading Consul KV: %s", err)
	}
	for _, p := range kv {
		out["Consul KV "+p.Key] = p.Value
	}
	vars, _, err := r.site.nomad.Variables().PrefixList("drover/stacks/"+r.name+"/", nil)
	if err != nil {
		r.violate("listing Nomad Variables: %s", err)
	}
	for _, v := range vars {
		if strings.HasSuffix(v.Path, "/secrets") {
			continue // there they belong
		}
		full, _, err := r.site.nomad.Variables().Read(v.Path, nil)
		add("Nomad Variable "+v.Path, full, err)
		if _, digest, ok := strings.Cut(v.Path, "/blobs/"); ok {
			blob, err := r.releases().Blob(r.t.Context(), digest)
			add("record "+digest, blob, err)
		}
	}
	list, err := r.releases().List(r.t.Context())
	add("releases", list, err)
	for _, head := range list {
		lines, err := r.releases().Services(r.t.Context(), head)
		add(fmt.Sprintf("release %d", head.Number), lines, err)
	}
	pids, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range pids {
		if b, err := os.ReadFile(p); err == nil {
			out[p] = b
		}
	}
	return out
}

// leave destroys the stack: nothing is left of it.
func (r *run) leave() {
	if out, code := r.drover("destroy", "-y", "--purge", "secrets,history"); code != exitOK {
		r.violate("destroy ended with %d:\n%s", code, out)
		return
	}
	r.quietly(func() string {
		if has, err := r.values(); err != nil || len(has) > 0 {
			return fmt.Sprintf("jobs %v, %v", has, err)
		}
		for _, prefix := range []string{"drover/stacks/" + r.name + "/", "nomad/jobs/" + r.name + "-"} {
			vars, _, err := r.site.nomad.Variables().PrefixList(prefix, nil)
			if err != nil || len(vars) > 0 {
				var paths []string
				for _, v := range vars {
					paths = append(paths, v.Path)
				}
				return fmt.Sprintf("Nomad Variables %s below %s, %v", strings.Join(paths, ", "), prefix, err)
			}
		}
		names, _, err := r.site.consul.Catalog().Services(nil)
		if err != nil {
			return err.Error()
		}
		for name := range names {
			if strings.HasPrefix(name, r.name+"-") {
				return name + " in Consul"
			}
		}
		if n := len(r.site.processes(r.name + "-")); n > 0 {
			return fmt.Sprintf("%d processes", n)
		}
		return ""
	})
}

func (r *run) quietly(left func() string) {
	var why string
	if err := r.until(r.t.Context(), time.Minute, "destroy leaves nothing", func() bool { why = left(); return why == "" }); err != nil {
		r.violate("%s: %s", err, why)
	}
}

// untilDown waits until Nomad has noticed that an agent is gone. A server that has
// just become the leader gives every node its failover_heartbeat_ttl, which is five
// minutes by default.
func (r *run) untilDown(ctx context.Context, agent string) error {
	return r.until(ctx, 6*time.Minute, "the node is down", func() bool { return r.nodeStatus(agent) == "down" })
}

// nodeStatus is what Nomad says of the node that an agent is.
func (r *run) nodeStatus(name string) string {
	list, _, err := r.site.nomad.Nodes().List(nil)
	if err != nil {
		return err.Error()
	}
	for _, n := range list {
		if n.Name == name {
			return n.Status
		}
	}
	return "missing"
}

// leader is the agent that leads Nomad.
func (r *run) leader(ctx context.Context) string {
	servers := r.site.agents(ctx, "nomad", true)
	address, err := r.site.nomad.Status().Leader()
	host, _, herr := net.SplitHostPort(address)
	if err != nil || herr != nil {
		return servers[0]
	}
	for _, a := range r.site.dev.Agents(ctx) {
		if slices.Contains(servers, a.Name) && strings.Contains(a.Addr, "//"+host+":") {
			return a.Name
		}
	}
	return servers[0]
}
