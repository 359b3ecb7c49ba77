package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
)

// simulated deploys one stack to many targets on a made-up Nomad, which does
// next to nothing: what is measured is drover itself, at a size that no
// machine here could run.
func simulated(ctx context.Context, b *bench) (table, error) {
	const services = 25
	t := table{title: fmt.Sprintf("Simulated: %d targets with %d services each", b.targets, services)}
	times := plot{file: "simulated-time.svg", title: "Simulated: seconds by number of jobs", unit: "s"}
	memory := plot{file: "simulated-memory.svg", title: "Simulated: peak memory by number of jobs, MB", unit: "MB"}
	verbs := []struct {
		name string
		args []string // of drover; nil for the floor
		note string
	}{
		{"drover deploy --parallel 256", []string{"deploy", "--parallel", "256"}, ""},
		{"drover deploy, nothing changed", []string{"deploy"}, ""},
		{"drover plan, nothing changed", []string{"plan"}, ""},
		{"drover status", []string{"status"}, ""},
		{"the jobs rendered and registered, nothing else", nil, "floor: no order, no plan, no record, waits for nothing"},
	}
	lines, mem := make([]line, len(verbs)), make([]line, len(verbs))
	for _, targets := range sizes(b.targets) {
		dir := filepath.Join(b.temp, fmt.Sprintf("simulated%d", targets))
		if err := simulatedStack(dir, targets, services); err != nil {
			return t, err
		}
		nomad := newFake()
		at := *b
		at.env = nomad.env()
		t.rows = nil
		for i, v := range verbs {
			u, err := at.counted(func(b *bench) (usage, error) {
				if v.args == nil {
					return b.floor(ctx, "register", dir, "all")
				}
				return b.drover(ctx, append(v.args, dir, "-e", "all")...)
			})
			if err != nil {
				nomad.Close()
				return t, err
			}
			t.rows = append(t.rows, row{v.name, u, v.note, 0})
			lines[i].name, mem[i].name = v.name, v.name
			lines[i].points = append(lines[i].points, point{float64(targets * services), u.elapsed.Seconds()})
			mem[i].points = append(mem[i].points, point{float64(targets * services), float64(u.peak) / 1e6})
		}
		nomad.Close()
	}
	times.lines, memory.lines = lines, mem
	b.plots = append(b.plots, times, memory)
	return t, nil
}

// simulatedStack writes a stack of cheap services with an environment "all" of that
// many targets in one wave.
func simulatedStack(dir string, targets, services int) error {
	if err := cheapStack(dir, "sim", services, false); err != nil {
		return err
	}
	var environment strings.Builder
	for i := range targets {
		fmt.Fprintf(&environment, "target \"t%[1]d\" {\n  datacenters = [\"dc%[1]d\"]\n}\n", i)
	}
	environment.WriteString("wave \"all\" {\n}\n") // else target after target
	if err := os.Mkdir(filepath.Join(dir, "environments"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "environments", "all.hcl"), []byte(environment.String()), 0o600)
}

// fake is a Nomad whose deployments are healthy after a moment.
type fake struct {
	*httptest.Server

	mu      sync.Mutex
	index   uint64
	jobs    map[string]*fakeJob
	byID    map[string]*fakeJob // by the ID of the deployment
	vars    map[string]*api.Variable
	wrote   chan struct{} // closed when the next variable is written
	streams map[chan api.Events]bool
}

type fakeJob struct {
	job        map[string]any // as registered
	spec       string         // its JSON, to compare
	index      uint64
	version    uint64
	deployment api.Deployment
	allocs     []*api.AllocationListStub
}

// fakeHealthy is how long an allocation of a fake takes to become healthy.
const fakeHealthy = 200 * time.Millisecond

func newFake() *fake {
	f := &fake{index: 10, jobs: map[string]*fakeJob{}, byID: map[string]*fakeJob{}, vars: map[string]*api.Variable{}, wrote: make(chan struct{}), streams: map[chan api.Events]bool{}}
	mux := http.NewServeMux()
	for path, answer := range map[string]func(*http.Request) any{
		"GET /v1/agent/self": func(*http.Request) any {
			return map[string]any{
				"config": map[string]any{"Region": "global", "Version": map[string]any{"Version": "1.11.3"}},
				"member": map[string]any{"Name": "fake", "Tags": map[string]string{"build": "1.11.3", "region": "global"}},
				"stats":  map[string]any{},
			}
		},
		"GET /v1/regions":                   func(*http.Request) any { return []string{"global"} },
		"GET /v1/vars":                      f.listVars,
		"PUT /v1/var/{path...}":             f.putVar,
		"DELETE /v1/var/{path...}":          f.deleteVar,
		"GET /v1/jobs":                      f.all(stub),
		"PUT /v1/jobs":                      f.register,
		"GET /v1/job/{id}":                  f.read(func(j *fakeJob) any { return j.job }),
		"PUT /v1/job/{id}/plan":             f.plan,
		"GET /v1/job/{id}/evaluations":      f.read(func(*fakeJob) any { return []any{} }),
		"GET /v1/job/{id}/allocations":      f.read(func(j *fakeJob) any { return j.allocs }),
		"GET /v1/job/{id}/deployments":      f.read(func(j *fakeJob) any { return []api.Deployment{j.deployment} }),
		"PUT /v1/job/{id}/versions/{n}/tag": func(*http.Request) any { return struct{}{} },
		"GET /v1/deployment/{deployment}":   func(r *http.Request) any { return f.byID[r.PathValue("deployment")].deployment },
		"GET /v1/deployments":               f.all(func(j *fakeJob) any { return j.deployment }),
		"GET /v1/allocations":               f.all(func(j *fakeJob) any { return j.allocs[0] }),
		"GET /v1/jobs/statuses": f.all(func(j *fakeJob) any {
			return map[string]any{"ID": j.job["ID"], "Version": j.version, "GroupCountSum": 1}
		}),
		"GET /v1/evaluations": func(*http.Request) any { return []any{} },
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			out := answer(r)
			text, err := json.Marshal(out)
			w.Header().Set("X-Nomad-Index", strconv.FormatUint(f.index, 10))
			f.mu.Unlock()
			switch code, refused := out.(int); {
			case err != nil:
				http.Error(w, err.Error(), http.StatusInternalServerError)
			case refused:
				http.Error(w, http.StatusText(code), code)
			default:
				_, _ = w.Write(text)
			}
		})
	}
	mux.HandleFunc("GET /v1/event/stream", f.stream)
	mux.HandleFunc("GET /v1/var/{path...}", f.getVar)
	f.Server = httptest.NewServer(mux)
	return f
}

// env leads drover to the fake.
func (f *fake) env() []string {
	return []string{"NOMAD_ADDR=" + f.URL, "NOMAD_TOKEN=", "CONSUL_HTTP_ADDR=127.0.0.1:1"}
}

func (f *fake) Close() {
	f.CloseClientConnections()
	f.Server.Close()
}

func (f *fake) next() uint64 {
	f.index++
	return f.index
}

func (f *fake) read(part func(*fakeJob) any) func(*http.Request) any {
	return func(r *http.Request) any {
		j := f.jobs[r.PathValue("id")]
		if j == nil {
			return http.StatusNotFound
		}
		return part(j)
	}
}

// all is a list of the jobs that the filter lets through.
func (f *fake) all(part func(*fakeJob) any) func(*http.Request) any {
	return func(r *http.Request) any {
		out := make([]any, 0, len(f.jobs))
		_, pattern, _ := strings.Cut(r.URL.Query().Get("filter"), " matches ")
		only, err := strconv.Unquote(pattern)
		if err != nil {
			only = r.URL.Query().Get("prefix") // no filter
		}
		match, err := regexp.Compile(only)
		if err != nil {
			return http.StatusBadRequest
		}
		for id, j := range f.jobs {
			if match.MatchString(id) {
				out = append(out, part(j))
			}
		}
		return out
	}
}

func stub(j *fakeJob) any {
	return map[string]any{
		"ID": j.job["ID"], "Name": j.job["ID"], "Namespace": "default", "Type": "service", "Status": "running",
		"JobModifyIndex": j.index, "ModifyIndex": j.index, "Version": j.version,
		"JobSummary": map[string]any{"JobID": j.job["ID"], "Summary": map[string]any{}},
	}
}

// asked is the job in the body of a registration or a plan, and its JSON.
func asked(r *http.Request) (map[string]any, string, error) {
	var body struct{ Job map[string]any }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, "", err
	}
	text, err := json.Marshal(body.Job)
	return body.Job, string(text), err
}

func (f *fake) plan(r *http.Request) any {
	_, spec, err := asked(r)
	if err != nil {
		return http.StatusBadRequest
	}
	j := f.jobs[r.PathValue("id")]
	switch {
	case j == nil:
		return api.JobPlanResponse{Diff: &api.JobDiff{Type: "Added"}}
	case j.spec == spec:
		return api.JobPlanResponse{JobModifyIndex: j.index, Diff: &api.JobDiff{Type: "None"}}
	}
	config := &api.ObjectDiff{Type: "Edited", Name: "Config", Fields: []*api.FieldDiff{{Type: "Edited", Name: "run_for", Old: "24h", New: "25h"}}}
	group := &api.TaskGroupDiff{Type: "Edited", Name: "g", Tasks: []*api.TaskDiff{{Type: "Edited", Name: "t", Objects: []*api.ObjectDiff{config}}}}
	return api.JobPlanResponse{JobModifyIndex: j.index, Diff: &api.JobDiff{Type: "Edited", TaskGroups: []*api.TaskGroupDiff{group}}}
}

func (f *fake) register(r *http.Request) any {
	job, spec, err := asked(r)
	if err != nil {
		return http.StatusBadRequest
	}
	id, _ := job["ID"].(string)
	index := f.next()
	j := &fakeJob{job: job, spec: spec, index: index}
	if old := f.jobs[id]; old != nil {
		j.version = old.version + 1
	}
	job["JobModifyIndex"], job["ModifyIndex"], job["Version"], job["Stop"] = index, index, j.version, false
	j.deployment = api.Deployment{
		ID: fmt.Sprintf("%08x-0000-0000-0000-000000000000", index), JobID: id, Namespace: "default", Status: api.DeploymentStatusRunning,
		JobVersion: j.version, JobModifyIndex: index, JobSpecModifyIndex: index, CreateIndex: index,
		TaskGroups: map[string]*api.DeploymentState{"g": {DesiredTotal: 1, PlacedAllocs: 1}},
	}
	j.allocs = []*api.AllocationListStub{{
		ID: fmt.Sprintf("%08x-0000-0000-0000-000000000001", index), JobID: id, Namespace: "default", Name: id + ".g[0]", TaskGroup: "g", JobVersion: j.version,
		DesiredStatus: api.AllocDesiredStatusRun, ClientStatus: api.AllocClientStatusPending, DeploymentStatus: nil,
	}}
	f.jobs[id], f.byID[j.deployment.ID] = j, j
	f.publish(id)
	time.AfterFunc(fakeHealthy, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		healthy := true
		j.allocs[0].ClientStatus = api.AllocClientStatusRunning
		j.allocs[0].DeploymentStatus = &api.AllocDeploymentStatus{Healthy: &healthy}
		j.deployment.Status = api.DeploymentStatusSuccessful
		j.deployment.TaskGroups["g"].HealthyAllocs = 1
		f.next()
		f.publish(id)
	})
	return api.JobRegisterResponse{JobModifyIndex: index, EvalCreateIndex: index}
}

// publish sends an event about a job to all streams.
func (f *fake) publish(id string) {
	e := api.Events{Index: f.index, Events: []api.Event{{
		Topic: api.TopicDeployment, Type: "DeploymentStatusUpdate", Key: id, Index: f.index,
		Payload: map[string]any{"Deployment": map[string]any{"JobID": id}},
	}}}
	for ch := range f.streams {
		ch <- e
	}
}

func (f *fake) stream(w http.ResponseWriter, r *http.Request) {
	ch := make(chan api.Events, 1<<16) // so that tell never waits
	f.mu.Lock()
	f.streams[ch] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.streams, ch)
	}()
	out := json.NewEncoder(w)
	for e := (api.Events{}); ; {
		if out.Encode(e) != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case e = <-ch:
		case <-time.After(10 * time.Second):
			e = api.Events{}
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fake) listVars(r *http.Request) any {
	out := []*api.VariableMetadata{}
	for path, v := range f.vars {
		if strings.HasPrefix(path, r.URL.Query().Get("prefix")) {
			out = append(out, v.Metadata())
		}
	}
	slices.SortFunc(out, func(a, b *api.VariableMetadata) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// getVar blocks, as Nomad does, until the variable is newer than asked.
func (f *fake) getVar(w http.ResponseWriter, r *http.Request) {
	index, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	for {
		f.mu.Lock()
		v, wrote := f.vars[r.PathValue("path")], f.wrote
		f.mu.Unlock()
		switch {
		case v == nil:
			http.Error(w, "variable not found", http.StatusNotFound)
			return
		case v.ModifyIndex > index:
			w.Header().Set("X-Nomad-Index", strconv.FormatUint(v.ModifyIndex, 10))
			_ = json.NewEncoder(w).Encode(v) // it is replaced, never changed
			return
		}
		select {
		case <-wrote:
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fake) putVar(r *http.Request) any {
	var v api.Variable
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		return http.StatusBadRequest
	}
	path, q, index := r.PathValue("path"), r.URL.Query(), f.next()
	old := f.vars[path]
	if cas := q.Get("cas"); cas != "" {
		was := uint64(0)
		if old != nil {
			was = old.ModifyIndex
		}
		if cas != strconv.FormatUint(was, 10) {
			return http.StatusConflict
		}
	}
	v.Path, v.Namespace, v.CreateIndex, v.ModifyIndex = path, "default", index, index
	if old != nil {
		v.CreateIndex = old.CreateIndex
	}
	switch {
	case q.Has("lock-release"):
		v.Lock = nil
	case v.Lock != nil && v.Lock.ID == "":
		v.Lock.ID = fmt.Sprintf("%08x-0000-0000-0000-000000000002", index)
	}
	f.vars[path] = &v
	close(f.wrote)
	f.wrote = make(chan struct{})
	return &v
}

func (f *fake) deleteVar(r *http.Request) any {
	delete(f.vars, r.PathValue("path"))
	return struct{}{}
}
