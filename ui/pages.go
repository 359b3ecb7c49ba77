package ui

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/doctor"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// builder collects what a page shows. It is called with the request that asked for the
// page, and again while the page is open.
type builder func(context.Context, *http.Request) (page, error)

// httpError is an error with the code of its answer.
type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return e.text }

func notFound(format string, args ...any) error {
	return &httpError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func (s *Server) routes() {
	live := func(pattern string, build builder) {
		s.mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, build, true) })
		s.mux.HandleFunc("GET /live"+pattern, func(w http.ResponseWriter, r *http.Request) { s.serveLive(w, r, build) })
	}
	live("/{$}", s.overview)
	live("/failing", s.failing)
	live("/edge", s.edge)
	live("/schedules", s.schedules)
	live("/doctor", s.doctor)
	live("/s/{stack}/{env}", s.stack)
	live("/s/{stack}/{env}/service/{service}", s.service)
	live("/s/{stack}/{env}/releases", s.history)
	live("/s/{stack}/{env}/releases/{number}", s.release)
	live("/s/{stack}/{env}/drift", s.drift)
	live("/runs/{id}", s.showRun)
	s.mux.HandleFunc("GET /s/{stack}/{env}/diff", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, s.diff, false) })
	s.mux.HandleFunc("GET /s/{stack}/{env}/do/{verb}", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, s.confirm, false) })
	s.mux.HandleFunc("POST /s/{stack}/{env}/do/{verb}", s.act)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, http.StatusNotFound, "There is no such page.")
	})
}

// build returns a page, or the page of its error.
func (s *Server) build(ctx context.Context, r *http.Request, build builder) page {
	p, err := build(ctx, r)
	if err != nil {
		return errorPage(err)
	}
	p.code = cmp.Or(p.code, http.StatusOK)
	return p
}

// stackView is a row of the overview.
type stackView struct {
	record.ListedStack
	Targets []string
	Status  *deploy.StatusResult
	OK      int // services
	Drifted int // services that differ from the last release; -1 if not known
	Problem string
}

// stacks reads the rows of all stacks, eight at a time.
func (s *Server) stacks(ctx context.Context) ([]stackView, error) {
	list, err := s.source.Stacks(ctx)
	if err != nil {
		return nil, err
	}
	drifted := map[string]int{}
	changed, _ := s.source.Changed(ctx) // what cannot be read stays unknown
	for _, c := range changed {
		if c.Release > 0 {
			drifted[key(c.Stack, c.Environment)] = len(c.Jobs)
		}
	}
	out := make([]stackView, len(list))
	err = parallel.Each(len(list), 8, func(i int) error {
		v := stackView{ListedStack: list[i], Drifted: -1, Problem: list[i].Error}
		if n, ok := drifted[key(v.Stack, v.Environment)]; ok {
			v.Drifted = n
		}
		if v.Release != nil && v.Release.State != record.Destroyed {
			if st, err := s.source.Status(ctx, v.Stack, v.Environment); err != nil {
				v.Problem = err.Error()
			} else {
				v.count(&st)
			}
		}
		out[i] = v
		return nil
	})
	return out, err
}

func (v *stackView) count(st *deploy.StatusResult) {
	v.Status = st
	for _, one := range st.Services {
		if one.OK {
			v.OK++
		}
		if one.Target != "" && !slices.Contains(v.Targets, one.Target) {
			v.Targets = append(v.Targets, one.Target)
		}
	}
}

func (s *Server) overview(ctx context.Context, _ *http.Request) (page, error) {
	list, err := s.stacks(ctx)
	bad := 0
	for _, v := range list {
		if v.Problem != "" || v.Status != nil && !v.Status.OK {
			bad++
		}
	}
	return page{Title: "Stacks", Name: "overview", Data: list, Status: fmt.Sprintf("%s, %d not healthy", plural(len(list), "stack"), bad)}, err
}

// failingView is the page with everything that fails.
type failingView struct {
	Stacks       []stackView // that cannot be read, have drifted, or whose newest release failed or waits
	Services     []failingService
	Certificates []certView
	Routes       []edge.RouteStatus
	Schedules    []scheduleView
	Problems     []string // what could not be read
}

type failingService struct {
	Stack, Environment string
	rollout.ServiceStatus
}

func (v failingView) Count() int {
	return len(v.Stacks) + len(v.Services) + len(v.Certificates) + len(v.Routes) + len(v.Schedules) + len(v.Problems)
}

// hasFailed reports whether the newest release failed, or waits for an operator.
func (v stackView) hasFailed() bool {
	if v.Release == nil {
		return false
	}
	state := v.Release.State
	return state == record.Unreadable || state == record.FailedState || state == record.RevertFailed || state.Open() && v.Holder == nil
}

func (s *Server) failing(ctx context.Context, _ *http.Request) (page, error) {
	list, err := s.stacks(ctx)
	if err != nil {
		return page{}, err
	}
	var out failingView
	for _, v := range list {
		if v.Problem != "" || v.hasFailed() || v.Drifted > 0 {
			out.Stacks = append(out.Stacks, v)
		}
		if v.Status == nil {
			continue
		}
		for _, one := range v.Status.Services {
			if !one.OK {
				out.Services = append(out.Services, failingService{v.Stack, v.Environment, one})
			}
		}
	}
	certs, err := s.certificates(ctx)
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
	}
	for _, c := range certs {
		if !c.OK {
			out.Certificates = append(out.Certificates, c)
		}
	}
	if report, err := s.source.Edge(ctx); err == nil { // a cluster without Consul has no edge
		for _, r := range report.Routes {
			if r.Bad() {
				out.Routes = append(out.Routes, r)
			}
		}
	}
	all, problems := s.allSchedules(ctx, list)
	out.Problems = append(out.Problems, problems...)
	for _, sc := range all {
		if sc.Last != nil && !sc.Last.OK && !sc.Last.Skipped {
			out.Schedules = append(out.Schedules, sc)
		}
	}
	return page{Title: "Failing", Name: "failing", Data: out, Status: plural(out.Count(), "problem")}, nil
}

// head is what all pages of a stack begin with.
type head struct {
	Stack, Environment string
	Release            *record.Release // the newest; nil if there is none
	Holder             *record.Holder
	State              record.State
	Verbs              []Verb
	Tab                string
}

func (s *Server) head(name, env, tab string, h *record.Release, holder *record.Holder) head {
	out := head{Stack: name, Environment: env, Release: h, Holder: holder, Tab: tab}
	if h != nil {
		out.State = deploy.HistoryResult{Holder: holder}.StateOf(h)
	}
	if !s.opts.ReadOnly {
		out.Verbs = verbsFor(h, holder)
	}
	return out
}

func (s *Server) stack(ctx context.Context, r *http.Request) (page, error) {
	name, env := r.PathValue("stack"), r.PathValue("env")
	st, err := s.source.Status(ctx, name, env)
	if err != nil {
		return page{}, err
	}
	out := struct {
		head
		Status deploy.StatusResult
		Graph  *graph
		Runs   []runView
		Bad    int
	}{head: s.head(name, env, "services", st.Release, st.Holder), Status: st}
	for _, one := range st.Services {
		if !one.OK {
			out.Bad++
		}
	}
	if st.Release != nil {
		shown, err := s.source.Show(ctx, name, env, st.Release.Number)
		if err == nil { // the page is useful without the graph
			out.Graph = drawGraph(shown.Services, st.Services)
		}
	}
	for i, one := range s.runs.of(name, env) {
		if i < 5 {
			out.Runs = append(out.Runs, one.view())
		}
	}
	return page{Title: name, Name: "stack", Data: out, Status: fmt.Sprintf("%s: %d of %d services healthy", name, len(st.Services)-out.Bad, len(st.Services))}, nil
}

func (s *Server) service(ctx context.Context, r *http.Request) (page, error) {
	name, env, service, target := r.PathValue("stack"), r.PathValue("env"), r.PathValue("service"), r.URL.Query().Get("target")
	st, err := s.source.Status(ctx, name, env)
	if err != nil {
		return page{}, err
	}
	out := struct {
		head
		Name    string
		Status  *rollout.ServiceStatus
		Details deploy.InspectResult
		CPU     map[string]*spark // by allocation, as Memory
		Memory  map[string]*spark
		Scaling []deploy.GroupScaling
	}{CPU: map[string]*spark{}, Memory: map[string]*spark{}, head: s.head(name, env, "services", st.Release, st.Holder), Name: serviceName(service, target)}
	for i, one := range st.Services {
		if one.Service == service && one.Target == target {
			out.Status = &st.Services[i]
		}
	}
	for _, g := range st.Scaling {
		if g.Service == service && g.Target == target {
			out.Scaling = append(out.Scaling, g)
		}
	}
	if out.Status == nil {
		return page{}, notFound("Stack %s runs no service %s.", name, out.Name)
	}
	if out.Details, err = s.source.Inspect(ctx, name, env, service, target); err != nil {
		return page{}, err
	}
	for _, in := range out.Details.Instances {
		out.CPU[in.AllocID], out.Memory[in.AllocID] = s.source.usage.sparks(in.AllocID)
	}
	return page{Title: out.Name + " of " + name, Name: "service", Data: out, Status: out.Name + " " + stateWords(out.Status.OK)}, nil
}

func stateWords(ok bool) string {
	if ok {
		return "is healthy"
	}
	return "is not healthy"
}

func (s *Server) history(ctx context.Context, r *http.Request) (page, error) {
	name, env := r.PathValue("stack"), r.PathValue("env")
	res, err := s.source.History(ctx, name, env)
	if err != nil {
		return page{}, err
	}
	out := struct {
		head
		History deploy.HistoryResult
	}{s.head(name, env, "releases", res.Releases[0], res.Holder), res}
	return page{Title: "Releases of " + name, Name: "history", Data: out, Status: plural(len(res.Releases), "release")}, nil
}

// number reads the number of a release.
func number(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, badRequest("%q is not the number of a release.", text)
	}
	return n, nil
}

// waveView is a wave with its services.
type waveView struct {
	record.Wave
	Services []record.Service
	Done     int
}

func (s *Server) release(ctx context.Context, r *http.Request) (page, error) {
	name, env := r.PathValue("stack"), r.PathValue("env")
	n, err := number(r.PathValue("number"))
	if err != nil {
		return page{}, err
	}
	history, err := s.source.History(ctx, name, env)
	if err != nil {
		return page{}, err
	}
	shown, err := s.source.Show(ctx, name, env, n)
	if err != nil {
		return page{}, err
	}
	out := struct {
		head
		Shown    *record.Release
		IsNewest bool
		ItsState record.State
		Waves    []waveView
		Before   int // the release before; 0 for none
		Runs     []runView
	}{head: s.head(name, env, "releases", history.Releases[0], history.Holder), Shown: shown.Release, ItsState: history.StateOf(shown.Release)}
	out.IsNewest = history.Releases[0].Number == shown.Release.Number
	if out.IsNewest {
		for _, one := range s.runs.of(name, env) {
			if v := one.view(); v.Ended.IsZero() {
				out.Runs = append(out.Runs, v)
			}
		}
	} else {
		out.Verbs = nil
		if !s.opts.ReadOnly && !history.Releases[0].State.Open() && shown.Release.State == record.Done {
			out.Verbs = []Verb{Rollback}
		}
	}
	for _, h := range history.Releases {
		if h.Number < shown.Release.Number {
			out.Before = max(out.Before, h.Number)
		}
	}
	for i, w := range shown.Release.Waves {
		v := waveView{Wave: w}
		for _, l := range shown.Services {
			if l.Wave != i {
				continue
			}
			v.Services = append(v.Services, l)
			if l.Step == record.StepDone || l.Step == record.StepUnchanged || l.Step == record.StepPruned || l.Step == record.StepReverted {
				v.Done++
			}
		}
		out.Waves = append(out.Waves, v)
	}
	return page{Title: fmt.Sprintf("Release %d of %s", n, name), Name: "release", Data: out, Status: fmt.Sprintf("Release %d is %s", shown.Release.Number, out.ItsState)}, nil
}

func (s *Server) drift(ctx context.Context, r *http.Request) (page, error) {
	name, env := r.PathValue("stack"), r.PathValue("env")
	history, err := s.source.History(ctx, name, env)
	if err != nil {
		return page{}, err
	}
	out := struct {
		head
		Drift   deploy.DriftResult
		Problem string
	}{head: s.head(name, env, "drift", history.Releases[0], history.Holder)}
	if out.Drift, err = s.source.Drift(ctx, name, env); err != nil {
		out.Problem = err.Error()
	}
	return page{Title: "Drift of " + name, Name: "drift", Data: out, Status: "differing from the release: " + plural(out.Drift.Differing(), "service")}, nil
}

func (s *Server) diff(ctx context.Context, r *http.Request) (page, error) {
	name, env, q := r.PathValue("stack"), r.PathValue("env"), r.URL.Query()
	from, err := number(q.Get("from"))
	if err != nil {
		return page{}, err
	}
	to, err := number(q.Get("to"))
	if err != nil {
		return page{}, err
	}
	history, err := s.source.History(ctx, name, env)
	if err != nil {
		return page{}, err
	}
	res, err := s.source.Diff(ctx, name, env, from, to)
	if err != nil {
		return page{}, err
	}
	out := struct {
		head
		Diff deploy.DiffResult
	}{s.head(name, env, "releases", history.Releases[0], history.Holder), res}
	return page{Title: fmt.Sprintf("Releases %d and %d of %s", from, res.To, name), Name: "diff", Data: out}, nil
}

// certView is a certificate as pages show it.
type certView struct {
	acme.Spec
	Status    acme.Status
	OK        bool
	Attention string
}

func (s *Server) certificates(ctx context.Context) ([]certView, error) {
	list, err := s.source.Certificates(ctx)
	list, now := slices.Clone(list), time.Now()
	acme.SortByAttention(list, now)
	var out []certView
	for _, o := range list {
		rank, why := acme.Attention(o, now)
		out = append(out, certView{o.Spec, o.Status, rank >= acme.RankWell, why})
	}
	return out, err
}

func (s *Server) edge(ctx context.Context, _ *http.Request) (page, error) {
	var out struct {
		Report                               *edge.Report
		Certificates                         []certView
		Records                              []*dns.Wanted
		Rates                                map[string]string // requests by service in Consul
		EdgeProblem, CertProblem, DNSProblem string
	}
	var err error
	if out.Report, err = s.source.Edge(ctx); err != nil {
		out.EdgeProblem = err.Error()
	}
	if out.Report != nil {
		_, _ = s.source.Requests(ctx) // what cannot be read stays unknown: nginx counts nothing
		out.Rates = map[string]string{}
		for _, r := range out.Report.Routes {
			out.Rates[r.Service] = s.source.requests.rate(r.Service)
		}
	}
	if out.Certificates, err = s.certificates(ctx); err != nil {
		out.CertProblem = err.Error()
	}
	if out.Records, err = s.source.Records(ctx); err != nil {
		out.DNSProblem = err.Error()
	}
	return page{Title: "Edge", Name: "edge", Data: out, Status: plural(len(out.Certificates), "certificate")}, nil
}

// scheduleView is a schedule as pages show it.
type scheduleView struct {
	Stack, Environment string
	*record.Schedule
	Last *record.Run
}

// allSchedules reads the schedules of all stacks, and what could not be read.
func (s *Server) allSchedules(ctx context.Context, stacks []stackView) (out []scheduleView, problems []string) {
	parts, failed := make([][]*record.Schedule, len(stacks)), make([]error, len(stacks))
	_ = parallel.Each(len(stacks), 8, func(i int) error {
		parts[i], failed[i] = s.source.Schedules(ctx, stacks[i].Stack, stacks[i].Environment)
		return nil
	})
	for i, v := range stacks {
		if failed[i] != nil {
			problems = append(problems, fmt.Sprintf("stack %s in environment %s: %s", v.Stack, v.Environment, failed[i]))
		}
		for _, sc := range parts[i] {
			one := scheduleView{v.Stack, v.Environment, sc, nil}
			if n := len(sc.Runs); n > 0 {
				one.Last = &sc.Runs[n-1]
			}
			out = append(out, one)
		}
	}
	return out, problems
}

func (s *Server) schedules(ctx context.Context, _ *http.Request) (page, error) {
	list, err := s.source.Stacks(ctx)
	if err != nil {
		return page{}, err
	}
	var stacks []stackView
	for _, l := range list {
		stacks = append(stacks, stackView{ListedStack: l})
	}
	var out struct {
		Schedules []scheduleView
		Problems  []string
	}
	out.Schedules, out.Problems = s.allSchedules(ctx, stacks)
	return page{Title: "Schedules", Name: "schedules", Data: out, Status: plural(len(out.Schedules), "schedule")}, nil
}

func (s *Server) doctor(ctx context.Context, _ *http.Request) (page, error) {
	report, err := s.source.Doctor(ctx)
	if err != nil {
		return page{}, err
	}
	count := map[doctor.Severity]int{}
	for _, f := range report.Findings {
		count[f.Severity]++
	}
	out := struct {
		Report           doctor.Report
		Errors, Warnings int
	}{report, count[doctor.Error], count[doctor.Warning]}
	return page{Title: "Doctor", Name: "doctor", Data: out, Status: plural(out.Errors, "error") + ", " + plural(out.Warnings, "warning")}, nil
}

// plural returns a number with the word for that many.
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func serviceName(service, target string) string {
	return render.Job{Service: service, Target: target}.Name()
}

// codeOf is the code of the answer for an error.
func codeOf(err error) int {
	var own *httpError
	var none *deploy.NoReleaseError
	var unknown *release.NotRecordedError
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &none), errors.As(err, &unknown), errors.Is(err, record.ErrNoRelease):
		return http.StatusNotFound
	case deploy.ClassOf(err) == deploy.ClassInvalid:
		return http.StatusBadRequest
	}
	return http.StatusBadGateway
}

func errorPage(err error) page {
	text := strings.TrimSpace(err.Error())
	return page{Title: "Not available", Name: "error", Data: text, Status: text, code: codeOf(err)}
}

// gateWords returns what has to hold after a wave beside the health of its services, and
// whether it needs an approval; "" for nothing.
func gateWords(w record.Wave) string {
	var recorded stack.Wave
	if json.Unmarshal(w.Gate, &recorded) != nil {
		return ""
	}
	var parts []string
	if recorded.Approve {
		parts = append(parts, "needs an approval")
	}
	if g := recorded.Gate; g.HTTP != nil {
		parts = append(parts, "waits for "+g.HTTP.URL)
	}
	if c := recorded.Gate.Command; len(c) > 0 && !w.NoCommand {
		parts = append(parts, "waits for the command "+c[0])
	}
	for _, m := range recorded.Gate.Metrics {
		parts = append(parts, "measures "+m.Name+", which has to be "+m.Limit())
	}
	if recorded.Promote {
		parts = append(parts, "promotes its canaries if this holds")
	}
	if recorded.Bake > 0 {
		parts = append(parts, "has to stay healthy for "+recorded.Bake.String())
	}
	return strings.Join(parts, ", ")
}
