package model

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
)

// until polls for two minutes and returns what did not come, "" when it did.
func (w *world) until(what string, ok func() bool) string {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for over := time.After(2 * time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-over:
			return "not within two minutes: " + what
		}
	}
	return ""
}

func (w *world) query(s svc) *api.QueryOptions {
	return &api.QueryOptions{Namespace: w.namespace(s)}
}

// check compares the cluster, the record, the variables and the exit codes with
// the model.
func (w *world) check() string {
	for _, f := range []func() string{w.checkJobs, w.checkRecord, w.checkVariables, w.checkCodes} {
		if violation := f(); violation != "" {
			return violation
		}
	}
	return ""
}

// serves returns in what a service differs from the model, "" where it does not.
func (w *world) serves(name string) string {
	s := w.runs[name]
	job, _, err := w.site.nomad.Jobs().Info(w.job(name), w.query(s))
	if err != nil && s.kind == batch && strings.Contains(err.Error(), "404") {
		return "" // it ended, well or not, and Nomad collected it
	}
	if err != nil {
		return fmt.Sprintf("%s: %s", name, err)
	}
	if job.Stop != nil && *job.Stop {
		return name + " is stopped"
	}
	if got, want := job.TaskGroups[0].Tasks[0].Env["VALUE"], fmt.Sprint(s.value); got != want {
		return fmt.Sprintf("%s has value %s, want %s", name, got, want)
	}
	if got := *job.TaskGroups[0].Count; got != s.count {
		return fmt.Sprintf("%s has count %d, want %d", name, got, s.count)
	}
	if name == w.failed {
		return ""
	}
	allocs, _, err := w.site.nomad.Jobs().Allocations(w.job(name), false, w.query(s))
	if err != nil {
		return fmt.Sprintf("%s: %s", name, err)
	}
	good, status := 0, api.AllocClientStatusRunning
	if s.kind == batch {
		status = api.AllocClientStatusComplete
	}
	for _, a := range allocs {
		switch {
		case a.DesiredStatus == api.AllocDesiredStatusRun && a.ClientStatus == status && a.JobVersion == *job.Version:
			good++
		case a.ClientStatus == api.AllocClientStatusRunning, a.ClientStatus == api.AllocClientStatusPending:
			return fmt.Sprintf("%s: an allocation of version %d is %s, and the job has version %d", name, a.JobVersion, a.ClientStatus, *job.Version)
		}
	}
	if d, _, err := w.site.nomad.Jobs().LatestDeployment(w.job(name), w.query(s)); err != nil || d != nil && d.Status == api.DeploymentStatusRunning {
		return fmt.Sprintf("%s: its deployment runs (%v)", name, err)
	}
	if good != s.count {
		return fmt.Sprintf("%s: %d allocations are %s, want %d", name, good, status, s.count)
	}
	return ""
}

func (w *world) checkJobs() string {
	want := map[string]bool{}
	for _, name := range w.runs.names() {
		want[w.namespace(w.runs[name])+" "+w.job(name)] = true
		// Nomad stops allocations some time after it says so.
		var differs string
		if w.until("", func() bool { differs = w.serves(name); return differs == "" }) != "" {
			return "what runs: " + differs
		}
	}
	for _, ns := range []string{api.DefaultNamespace, w.name} {
		list, _, err := w.site.nomad.Jobs().List(&api.QueryOptions{Namespace: ns, Prefix: w.name + "-"})
		if err != nil {
			return err.Error()
		}
		for _, stub := range list {
			if !want[ns+" "+stub.ID] && !stub.Stop {
				return fmt.Sprintf("what runs: job %s in namespace %s is there and should not be", stub.ID, ns)
			}
		}
	}
	return ""
}

func (w *world) checkRecord() string {
	last, err := w.record().Last(w.t.Context())
	if err != nil {
		return err.Error()
	}
	want := w.last()
	if last == nil || last.Number != want.number || last.State != want.state {
		return fmt.Sprintf("the record: the newest release is %+v, want %d %s", last, want.number, want.state)
	}
	lines, err := w.record().Services(w.t.Context(), last)
	if err != nil {
		return err.Error()
	}
	var got []string
	for _, l := range lines {
		if l.Leftover().Runs {
			got = append(got, l.Name)
		}
	}
	slices.Sort(got)
	if want := w.runs.names(); !slices.Equal(got, want) {
		return fmt.Sprintf("the record: release %d leaves %v, want %v", last.Number, got, want)
	}
	other := record.OpenReleases(w.site.nomad, w.name, w.other())
	if numbers, err := other.Numbers(w.t.Context()); err != nil || len(numbers) > 0 {
		return fmt.Sprintf("the record: environment %s has releases %v, want none (%v)", w.other(), numbers, err)
	}
	return ""
}

// checkVariables compares what nomad/jobs/ID holds. While a version failed and
// stays, it has what both versions read.
func (w *world) checkVariables() string {
	values := map[string]string{}
	shared := map[string]string{}
	for _, name := range w.runs.names() {
		s := w.runs[name]
		v, _, err := w.site.nomad.Variables().Peek("nomad/jobs/"+w.job(name), w.query(s))
		if err != nil {
			return err.Error()
		}
		var got []string
		if v != nil {
			for item, value := range v.Items {
				if strings.HasPrefix(item, "_") {
					continue
				}
				got = append(got, item)
				key := name + " " + item
				if was := w.values[key]; was != "" && was != value {
					return fmt.Sprintf("variables: item %s of %s has another value than before", item, name)
				}
				if was := shared[item]; was != "" && was != value {
					return fmt.Sprintf("variables: item %s of %s has another value than in other jobs", item, name)
				}
				values[key], shared[item] = value, value
			}
		}
		slices.Sort(got)
		if w.failed != "" {
			for _, item := range s.secrets {
				if !slices.Contains(got, item) {
					return fmt.Sprintf("variables: %s has %v, and not %s", name, got, item)
				}
			}
			continue
		}
		if !slices.Equal(got, s.secrets) && len(got)+len(s.secrets) > 0 {
			return fmt.Sprintf("variables: %s has %v, want %v", name, got, s.secrets)
		}
		if v != nil && v.Items["_owner"] != "" && v.Items["_owner"] != w.name+"/"+w.env {
			return fmt.Sprintf("variables: %s belongs to %s, want %s/%s", name, v.Items["_owner"], w.name, w.env)
		}
	}
	w.values = values
	return ""
}

func (w *world) checkCodes() string {
	bad := w.failed != "" || len(w.runs) == 0
	status := codeOK
	if bad {
		status = codeError
	}
	if _, code := w.run(w.recorded("status")...); code != status {
		return fmt.Sprintf("status ended with %d, want %d", code, status)
	}
	plan := codeOK
	if w.failed != "" || !w.writeTarget().equal(w.runs) {
		plan = codeUsage // --detailed-exitcode: there are changes
	}
	if _, code := w.run(w.args("plan", "--detailed-exitcode")...); code != plan {
		return fmt.Sprintf("plan --detailed-exitcode ended with %d, want %d", code, plan)
	}
	if bad {
		return ""
	}
	if last := w.lastGood(); last == nil || !sameJobs(last.made, w.runs) {
		return ""
	}
	if _, code := w.run(w.recorded("drift", "--detailed-exitcode")...); code != codeOK {
		return fmt.Sprintf("drift --detailed-exitcode ended with %d, want 0", code)
	}
	return ""
}

// running are the allocations of services that run, by ID.
func (w *world) running() (map[string]bool, error) {
	out := map[string]bool{}
	for name, s := range w.runs {
		if s.kind == batch {
			continue
		}
		allocs, _, err := w.site.nomad.Jobs().Allocations(w.job(name), false, w.query(s))
		if err != nil {
			return nil, err
		}
		for _, a := range allocs {
			if a.ClientStatus == api.AllocClientStatusRunning && a.DesiredStatus == api.AllocDesiredStatusRun {
				out[a.ID] = true
			}
		}
	}
	return out, nil
}

// ran is the newest allocation of the batch job, "" where there is none.
func (w *world) ran() string {
	allocs, _, err := w.site.nomad.Jobs().Allocations(w.job("once"), false, w.query(w.runs["once"]))
	if err != nil || len(allocs) == 0 {
		return ""
	}
	newest := slices.MaxFunc(allocs, func(a, b *api.AllocationListStub) int { return int(a.CreateIndex) - int(b.CreateIndex) })
	return newest.ID
}
