package devcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// graceDown is how long a supervisor may take to end everything.
const graceDown = 60 * time.Second

// lockPath is the file to be locked by who changes the cluster in dir. It is
// not in there, because that may be removed under the lock.
func lockPath(dir string) (string, error) {
	root, err := stateRoot()
	if err != nil {
		return "", err
	}
	locks := filepath.Join(root, ".locks")
	if err := os.MkdirAll(locks, 0o755); err != nil { // #nosec G301 -- empty files
		return "", fmt.Errorf("locking the dev cluster: %w", err)
	}
	name := strings.NewReplacer("%", "%25", "/", "%2F").Replace(dir)
	if len(name) > 200 {
		name = name[len(name)-200:]
	}
	return filepath.Join(locks, name), nil
}

// lockCluster keeps two drovers from changing one cluster at once.
func lockCluster(ctx context.Context, opts Options) (*os.File, error) {
	path, err := lockPath(opts.Dir)
	if err != nil {
		return nil, err
	}
	f, err := lockFile(ctx, path, func() {
		opts.Events(Event{Text: "waiting for another drover dev command on this cluster"})
	})
	if err != nil {
		return nil, fmt.Errorf("locking the dev cluster: %w", err)
	}
	return f, nil
}

// Up starts the cluster, which it creates if there is none, and returns when
// it can take jobs: every region has a leader and every client is ready. If
// the cluster runs already, that is all that Up finds out; see
// Cluster.AlreadyRunning. When Up fails or ctx ends, nothing keeps running.
func Up(ctx context.Context, opts Options) (*Cluster, error) {
	opts, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	lock, err := lockCluster(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	l, err := loadLayout(opts.Dir)
	if err != nil && !errors.Is(err, ErrNoCluster) {
		return nil, err
	}
	if l != nil {
		if err := l.fits(opts); err != nil {
			return nil, err
		}
		st, err := control{opts.Dir}.status(ctx)
		if err == nil && !st.Stopping {
			c := &Cluster{l: l, AlreadyRunning: (!opts.ACME || l.ACME) && (!opts.DNS || l.DNS)}
			if !c.AlreadyRunning {
				if err := l.add(ctx, opts); err != nil {
					return nil, err
				}
			}
			return c, l.placeTools(ctx, opts)
		}
		if err := l.awaitSupervisor(ctx, graceDown); err != nil {
			return nil, err
		}
	} else if err := claimable(opts.Dir); err != nil {
		return nil, err
	}
	programs := map[string]string{}
	wanted := []string{Nomad, Consul}
	if opts.ACME || (l != nil && l.ACME) {
		wanted = append(wanted, Pebble)
	}
	if opts.DNS || (l != nil && l.DNS) {
		wanted = append(wanted, PowerDNS)
	}
	for _, name := range wanted {
		if programs[name], err = opts.Finder.agent(ctx, name); err != nil {
			return nil, err
		}
	}
	if l == nil {
		if l, err = establish(ctx, opts); err != nil {
			return nil, err
		}
		l.warn(opts)
	} else {
		l.ACME, l.DNS = l.ACME || opts.ACME, l.DNS || opts.DNS
		if err := l.sweep(ctx); err != nil {
			return nil, fmt.Errorf("cleaning up after the last run: %w", err)
		}
		if err := l.portsFree(ctx, l.agents()); err != nil {
			return nil, err
		}
	}
	l.Programs = programs
	if err := l.prepare(ctx); err != nil {
		return nil, err
	}
	if err := l.placeTools(ctx, opts); err != nil {
		return nil, err
	}
	return l.launch(ctx, opts)
}

// fits returns an error if the existing cluster is not what opts ask for.
func (l *layout) fits(opts Options) error {
	if !opts.Shape.isZero() && !opts.Shape.equal(l.Shape) {
		return invalidf("the dev cluster %q exists with another shape (%s): remove it with drover dev down --wipe, or give another --name", l.Name, l.Shape)
	}
	if opts.Secure && !l.Secure {
		return invalidf("the dev cluster %q exists without ACLs and TLS: remove it with drover dev down --wipe, or give another --name", l.Name)
	}
	if opts.DefaultPorts && l.Ports != slotPorts(l.Slot, true) {
		return invalidf("the dev cluster %q exists with ports of its own: remove it with drover dev down --wipe, or give another --name", l.Name)
	}
	return nil
}

// claimable returns an error if the directory holds anything but a cluster's own
// files, because Down with wipe removes the directory.
func claimable(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("creating the dev cluster: %w", err)
	}
	for _, n := range names {
		if !slices.Contains(entries, n.Name()) {
			return invalidf("%s is in use: it holds %s, which is not of a dev cluster", dir, n.Name())
		}
	}
	return nil
}

// establish makes the directory and the state of a new cluster.
func establish(ctx context.Context, opts Options) (*layout, error) {
	if err := mkdir(opts.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("creating the dev cluster: %w", err)
	}
	return create(ctx, opts)
}

// mkdir makes a directory with exactly this mode, whatever the umask is.
func mkdir(path string, mode os.FileMode) error {
	if err := os.MkdirAll(path, 0o755); err != nil { // #nosec G301 -- see prepare
		return err
	}
	return os.Chmod(path, mode)
}

// prepare makes the directories and writes the agents' configuration.
//
// Tasks run as the user nobody or another user. They must be able to enter the
// directory, read bin and create directories in data, which has the sticky bit
// as /tmp has. The files of Nomad and Consul, such as keys, are closed to them.
func (l *layout) prepare(ctx context.Context) error {
	type dir struct {
		path string
		mode os.FileMode
	}
	dirs := []dir{
		{l.path("bin"), 0o755},
		{l.path("data"), 0o777 | os.ModeSticky},
		{l.path("volumes"), 0o755},
		{l.path("alloc"), 0o711},
		{l.path("nomad"), 0o711},
		{l.path("consul"), 0o700},
		{l.path("config"), 0o755},
		{l.path("logs"), 0o755},
		{l.path("run"), 0o700},
	}
	for _, a := range l.agents() {
		switch a.program {
		case Consul:
			dirs = append(dirs, dir{l.path("consul", a.name), 0o700})
			continue
		case Pebble, PowerDNS:
			continue // see configure
		}
		dirs = append(dirs,
			dir{l.path("nomad", a.name), 0o711},
			dir{l.path("nomad", a.name, "server"), 0o700},
			dir{l.path("nomad", a.name, "client"), 0o700})
		if a.client {
			dirs = append(dirs, dir{l.allocDir(a), 0o711}, dir{l.volumesDir(a), 0o755})
		}
	}
	for _, d := range dirs {
		if err := mkdir(d.path, d.mode); err != nil {
			return fmt.Errorf("preparing the dev cluster: %w", err)
		}
	}
	if l.Secure {
		if err := l.secureFiles(); err != nil {
			return fmt.Errorf("preparing the dev cluster: %w", err)
		}
	}
	for _, a := range l.agents() {
		if err := l.configure(ctx, a); err != nil {
			return fmt.Errorf("preparing the dev cluster: %w", err)
		}
	}
	return l.save()
}

// configure writes the agent's configuration and puts its last log aside.
func (l *layout) configure(ctx context.Context, a *agentSpec) error {
	mode := os.FileMode(0o644)
	if l.Secure {
		mode = 0o600 // there are tokens in it
	}
	switch a.program {
	case Pebble:
		mode = 0o600
		if err := l.acmeFiles(); err != nil {
			return err
		}
	case PowerDNS:
		mode = 0o600
		if err := l.dnsFiles(ctx, a); err != nil {
			return err
		}
	}
	if err := writeFile(l.configFile(a), []byte(a.config), mode); err != nil {
		return err
	}
	log := l.path("logs", a.name+".log")
	if err := os.Rename(log, log+".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (l *layout) placeTools(ctx context.Context, opts Options) error {
	for _, name := range opts.Tools {
		path, err := opts.Finder.Path(ctx, name)
		if err != nil {
			return err
		}
		if err := place(path, l.path("bin"), name); err != nil {
			return fmt.Errorf("putting %s into %s: %w", name, l.path("bin"), noSpace(err, l.dir))
		}
	}
	return nil
}

// warn reports a directory that tasks cannot use.
func (l *layout) warn(opts Options) {
	// See allocDir: 107 bytes less those that do not depend on the task.
	longest := l.path("alloc")
	for _, a := range l.agents() {
		if a.client {
			longest = l.allocDir(a)
		}
	}
	if room := 107 - len(longest+"/00000000-0000-0000-0000-000000000000//secrets/api.sock"); room < 12 {
		opts.Events(Event{Warning: true, Text: fmt.Sprintf("the path %s is long: tasks whose name has more than %d letters get no API socket", l.dir, max(room, 0))})
	}
	if os.Geteuid() != 0 {
		return // then all tasks are of this user
	}
	for dir := l.dir; ; dir = filepath.Dir(dir) {
		if fi, err := os.Stat(dir); err == nil && fi.Mode()&0o001 == 0 {
			opts.Events(Event{Warning: true, Text: fmt.Sprintf("%s is closed to other users: tasks that run as the user nobody cannot start", dir)})
			return
		}
		if dir == "/" {
			return
		}
	}
}

// launch starts the supervisor and through it the agents.
func (l *layout) launch(ctx context.Context, opts Options) (_ *Cluster, err error) {
	// The writing end is no os.File, which would be closed when nothing
	// refers to it any more: a lifeline lasts as long as the process.
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("starting the dev cluster: %w", err)
	}
	life := os.NewFile(uintptr(pipe[0]), "lifeline")
	defer func() { _ = life.Close() }()
	cut := sync.OnceFunc(func() { _ = syscall.Close(pipe[1]) })
	abort := func() error {
		cut()
		ctx := context.WithoutCancel(ctx)
		return errors.Join(l.awaitSupervisor(ctx, graceDown), l.sweep(ctx))
	}
	defer func() {
		if err != nil {
			if e := abort(); e != nil {
				err = fmt.Errorf("%w; and then: %w", err, e)
			}
		}
	}()
	if err := l.spawn(ctx, opts, life); err != nil {
		return nil, err
	}
	ctl := control{l.dir}
	begun := time.Now()
	// In this order: a Nomad client that finds no Consul or no leader when it
	// starts looks again after 15 seconds only.
	for _, stage := range l.stages() {
		for _, a := range stage {
			opts.Events(Event{Subject: a.name, Text: "starting on " + a.httpAddr(l.Ports)})
			if err := ctl.post(ctx, "/agent/"+a.name+"/start"); err != nil {
				return nil, err
			}
		}
		if err := l.awaitReady(ctx, opts.Timeout, stage); err != nil {
			return nil, err
		}
		if err := l.protect(ctx, stage); err != nil {
			return nil, err
		}
	}
	opts.Events(Event{Text: fmt.Sprintf("ready after %.1f s", time.Since(begun).Seconds())})
	c := &Cluster{l: l}
	if opts.Lifeline {
		c.cut = cut
		return c, nil
	}
	if _, err := syscall.Write(pipe[1], []byte{1}); err != nil {
		return nil, fmt.Errorf("starting the dev cluster: %w", err)
	}
	cut()
	return c, nil
}

// spawn starts the supervisor and waits until it can be talked to.
func (l *layout) spawn(ctx context.Context, opts Options, life *os.File) error {
	sup := opts.Supervisor
	if sup.Path == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("starting the supervisor: %w", err)
		}
		sup = Command{Path: exe, Args: []string{"dev", "supervise", "--dir", l.dir}}
	}
	log, err := os.OpenFile(l.path("logs", "supervisor.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	defer func() { _ = log.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	defer func() { _ = r.Close() }()
	// Not CommandContext: it outlives this call.
	cmd := exec.Command(sup.Path, sup.Args...) //nolint:noctx
	cmd.Env = append(append(os.Environ(), sup.Env...), envSuper+"="+l.dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{life, w} // lifelineFD, readyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })()
	answer, err := io.ReadAll(r)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("starting the supervisor: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("starting the supervisor: %w", err)
	case len(answer) == 0:
		return fmt.Errorf("the supervisor ended at once: %s", tail(log.Name()))
	case string(answer) != "ok":
		return errors.New(string(answer))
	}
	return nil
}

// awaitSupervisor waits until no supervisor is left. One that does not end in
// time is killed, and its agents with it.
func (l *layout) awaitSupervisor(ctx context.Context, grace time.Duration) error {
	path := l.path("run", "supervisor.lock")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	gone := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		f, err := lockFile(ctx, path, nil)
		if err == nil {
			_ = f.Close()
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil // it removed its cluster
		}
		return err
	}
	err := gone(grace)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		b, _ := os.ReadFile(path)
		var pid int
		if n, _ := fmt.Sscan(string(b), &pid); n == 1 && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		err = gone(graceKill)
	}
	if err != nil {
		return fmt.Errorf("waiting for the supervisor to end: %w", err)
	}
	return nil
}

// Down stops the cluster; with wipe it removes it. That it does not run is no
// error; what is left of a run that crashed is cleaned up.
func Down(ctx context.Context, opts Options, wipe bool) error {
	opts, err := opts.resolve()
	if err != nil {
		return err
	}
	lock, err := lockCluster(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	l, err := loadLayout(opts.Dir)
	if err != nil {
		return err
	}
	ctl := control{opts.Dir}
	if _, err := ctl.status(ctx); err == nil {
		opts.Events(Event{Text: "stopping the agents and what they run"})
		if err := ctl.post(ctx, "/down"); err != nil {
			return err
		}
	}
	if err := l.awaitSupervisor(ctx, graceDown); err != nil {
		return err
	}
	if err := l.sweep(ctx); err != nil {
		return fmt.Errorf("stopping the dev cluster: %w", err)
	}
	if wipe {
		opts.Events(Event{Text: "removing " + l.dir})
		return l.wipe()
	}
	return nil
}

// Open returns the existing cluster, running or not.
func Open(opts Options) (*Cluster, error) {
	opts, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	l, err := loadLayout(opts.Dir)
	if err != nil {
		return nil, err
	}
	return &Cluster{l: l}, nil
}

func leftovers(l *layout) ([]Process, error) {
	var found []Process
	for _, pid := range l.find(0).all() {
		found = append(found, Process{PID: pid, Command: command(pid)})
	}
	ms, err := mounts(l.dir)
	if err == nil && len(ms) > 0 {
		err = fmt.Errorf("still mounted: %s", strings.Join(ms, ", "))
	}
	return found, err
}

// tail is the end of a log, for an error message.
func tail(path string) string {
	const lines, most = 8, 16 << 10
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	if fi, err := f.Stat(); err == nil && fi.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return fmt.Sprintf("the last lines of %s are:\n  %s", path, strings.Join(all, "\n  "))
}

// control talks to the supervisor of the cluster in dir.
type control struct{ dir string }

func (c control) do(ctx context.Context, method, path string, answer any) error {
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialControl(ctx, c.dir) },
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return fmt.Errorf("asking the supervisor: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("asking the supervisor: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(string(bytes.TrimSpace(body)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}

func (c control) post(ctx context.Context, path string) error {
	return c.do(ctx, http.MethodPost, path, nil)
}

func (c control) status(ctx context.Context) (supervisorStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var st supervisorStatus
	err := c.do(ctx, http.MethodGet, "/status", &st)
	return st, err
}
