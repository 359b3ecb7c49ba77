// Command bench measures drover against what an operator would use instead,
// and against floors: programs that ask the same of Nomad and do nothing
// else. All of a table comes from one run on one machine.
//
//	make bench                       the table
//	make bench BENCH='-write docs'   and docs/benchmarks.md with its plots
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/drover-nomad/drover/devcluster"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == measureArg {
		os.Exit(measure(os.Args[2], os.Args[3:]...))
	}
	if len(os.Args) > 2 && os.Args[1] == floorArg {
		os.Exit(processFloor(os.Args[2], os.Args[3:]...))
	}
	var (
		o     options
		write string
	)
	flag.StringVar(&write, "write", "", "write benchmarks.md and its plots into this directory")
	flag.IntVar(&o.deploy, "deploy", 300, "services that are deployed")
	flag.IntVar(&o.serial, "serial", 30, "services that nomad job run brings up one after the other, since it waits for each")
	flag.IntVar(&o.plan, "plan", 1000, "services that are planned and rendered")
	flag.IntVar(&o.targets, "targets", 200, "targets of the simulation")
	flag.BoolVar(&o.ocis, "ocis", true, "also deploy oCIS")
	flag.StringVar(&o.parts, "parts", "", "measure only these parts, comma-separated: "+strings.Join(partNames(), ", "))
	flag.BoolVar(&o.paths, "paths", false, "print the requests to Nomad by path")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, write); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	deploy, serial, plan, targets int
	ocis                          bool
	parts                         string // comma-separated; "" for all
	paths                         bool
}

// parts are what a run measures, in this order.
var parts = []struct {
	name string
	run  func(context.Context, *bench) (table, error)
}{
	{"growth", growth}, {"deploy", deployMany}, {"serial", deploySerially}, {"lag", lag},
	{"redeploy", redeploy}, {"simulated", simulated}, {"ocis", deployOCIS}, {"roll", rollOCIS},
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func run(ctx context.Context, o options, write string) (err error) {
	temp, err := os.MkdirTemp("", "bench-") // short: the cluster's sockets are below it
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.Chmod(temp, 0o755); err != nil { //nolint:gosec // tasks run as others
		return err
	}
	b, err := newBench(ctx, temp, o)
	if err != nil {
		return err
	}
	defer func() {
		_, e := b.drover(context.WithoutCancel(ctx), "dev", "down", "--dir", b.cluster, "--wipe")
		err = errors.Join(err, e)
	}()
	r := report{began: time.Now(), options: o}
	for _, part := range parts {
		if o.parts != "" && !slices.Contains(strings.Split(o.parts, ","), part.name) {
			continue
		}
		t, err := part.run(ctx, b)
		if err != nil {
			return err
		}
		if len(t.rows) == 0 {
			continue
		}
		r.tables = append(r.tables, t)
		fmt.Print(t.text())
	}
	r.plots = b.plots
	if write == "" {
		return nil
	}
	if r.machine, err = describeMachine(ctx, b); err != nil {
		return err
	}
	return r.write(write)
}

// bench is the cluster and the programs of one run.
type bench struct {
	options
	temp, cluster string
	env           []string // leads to the cluster
	path          struct{ drover, nomad string }
	load          string // of the machine before
	commit        string
	plots         []plot
}

func newBench(ctx context.Context, temp string, o options) (*bench, error) {
	b := &bench{load: load(), options: o, temp: temp, cluster: filepath.Join(temp, "c")}
	commit, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return nil, fmt.Errorf("git describe: %w", err)
	}
	b.commit = strings.TrimSpace(string(commit))
	b.path.drover = filepath.Join(temp, "drover")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.path.drover, "./cmd/drover")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building drover: %w\n%s", err, out)
	}
	if b.path.nomad, err = (devcluster.Tools{}).Path(ctx, devcluster.Nomad); err != nil {
		return nil, err
	}
	up := []string{"dev", "up", "--dir", b.cluster}
	if o.ocis {
		up = append(up, "--tool", "ocis")
	}
	if _, err := b.drover(ctx, up...); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, b.path.drover, "dev", "env", "--dir", b.cluster).Output()
	if err != nil {
		return nil, fmt.Errorf("drover dev env: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if kv, ok := strings.CutPrefix(strings.TrimSpace(line), "export "); ok {
			name, value, _ := strings.Cut(kv, "=")
			b.env = append(b.env, name+"="+strings.Trim(value, `'"`))
		}
	}
	return b, nil
}

// load is the machine's of the last 1, 5 and 15 minutes, where it tells.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg") // Linux only
	averages := strings.Fields(string(text))
	return strings.Join(averages[:min(3, len(averages))], ", ")
}

// get is a variable of the cluster's environment.
func (b *bench) get(name string) string {
	for _, kv := range slices.Backward(b.env) { // the last one counts
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// usage is what one or several processes took.
type usage struct {
	elapsed  time.Duration
	peak     int64 // bytes of the largest
	requests int64 // to Nomad
}

func (u *usage) add(o usage) {
	u.elapsed += o.elapsed
	u.peak = max(u.peak, o.peak)
	u.requests += o.requests
}

func (b *bench) drover(ctx context.Context, args ...string) (usage, error) {
	return b.command(ctx, b.path.drover, 0, args...)
}

// nomad runs one command of Nomad's own; allowed is an exit code beside 0
// that is no failure.
func (b *bench) nomad(ctx context.Context, allowed int, args ...string) (usage, error) {
	return b.command(ctx, b.path.nomad, allowed, args...)
}

func (b *bench) command(ctx context.Context, program string, allowed int, args ...string) (usage, error) {
	var out bytes.Buffer
	u, err := measured(ctx, program, append(os.Environ(), b.env...), &out, args...)
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != allowed || allowed == 0) {
		text := out.String()
		return u, fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, text[max(0, len(text)-2000):])
	}
	return u, nil
}

// counted is b through a proxy that counts what is asked of Nomad, while do
// runs.
func (b *bench) counted(do func(*bench) (usage, error)) (usage, error) {
	nomad, err := url.Parse(b.get("NOMAD_ADDR"))
	if err != nil {
		return usage{}, err
	}
	var n requests
	proxy := httputil.NewSingleHostReverseProxy(nomad)
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		if r.Context().Err() == nil { // a client that has ended cancels its event stream
			fmt.Fprintln(os.Stderr, "bench: proxy before Nomad:", err)
		}
		w.WriteHeader(http.StatusBadGateway)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.count(r)
		proxy.ServeHTTP(w, r)
	}))
	defer srv.Close()
	through := *b
	through.env = append(append([]string{}, b.env...), "NOMAD_ADDR="+srv.URL)
	u, err := do(&through)
	u.requests = n.total
	if b.paths {
		fmt.Fprint(os.Stderr, n.text())
	}
	return u, err
}

func seconds(d time.Duration) string {
	s := d.Seconds()
	switch {
	case s < 1:
		return strconv.FormatFloat(s, 'f', 3, 64)
	case s < 10:
		return strconv.FormatFloat(s, 'f', 2, 64)
	}
	return strconv.FormatFloat(s, 'f', 1, 64)
}
