package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	lifelineFD = 3 // ends the supervisor when it closes before a byte came
	readyFD    = 4 // gets "ok", or why there is no supervisor
	envSuper   = "DROVER_DEV_SUPERVISOR"

	graceAgent = 8 * time.Second // for an agent to end when asked

	prSetChildSubreaper = 36
)

// Supervise is the whole life of a supervisor, the process that Up starts and
// that is the parent of the cluster's agents. It returns when the cluster in
// dir is down: because Down asked for it, because of SIGINT or SIGTERM, or
// because its lifeline was cut, which is what happens when the process that
// called Up ends before Up is done.
//
// Agents die with their supervisor (PR_SET_PDEATHSIG). Processes that outlive
// the agent that started them, as Nomad's tasks do, become the supervisor's
// children (PR_SET_CHILD_SUBREAPER), so that none can hide.
func Supervise(dir string) error {
	if os.Getenv(envSuper) != dir {
		return invalidf("the supervisor is started by drover dev up only")
	}
	syscall.CloseOnExec(lifelineFD)
	syscall.CloseOnExec(readyFD)
	lifeline := os.NewFile(lifelineFD, "lifeline")
	ready := os.NewFile(readyFD, "ready")
	s, err := newSupervisor(dir)
	if err != nil {
		_, _ = ready.WriteString(err.Error())
		_ = ready.Close()
		return err
	}
	// Registered before anything is started: a second signal must not kill.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	_, _ = ready.WriteString("ok")
	_ = ready.Close()

	cut := make(chan struct{})
	go func() {
		if n, _ := lifeline.Read(make([]byte, 1)); n == 0 {
			close(cut)
		}
	}()
	orphaned := false
	select {
	case <-signals:
	case <-s.down:
	case <-cut:
		orphaned = true
	}
	return s.end(orphaned)
}

type supervisor struct {
	l      *layout
	lock   *os.File
	server *http.Server
	forks  chan func()
	down   chan struct{} // closed when Down asked

	mu       sync.Mutex
	stopping bool
	agents   map[string]*agentProc
	order    []string
}

// agentProc is one agent and, if it runs, its process.
type agentProc struct {
	spec   *agentSpec
	pid    int
	exited chan struct{} // closed when pid is reaped
	status syscall.WaitStatus
	begun  bool
}

// newSupervisor takes the lock, opens the control socket and makes the
// network interfaces.
func newSupervisor(dir string) (s *supervisor, err error) {
	l, err := loadLayout(dir)
	if err != nil {
		return nil, err
	}
	syscall.Umask(0o022) // tasks of other users read what agents write
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s = &supervisor{l: l, agents: map[string]*agentProc{}, forks: make(chan func()), down: make(chan struct{})}
	if s.lock, err = lockFile(ctx, l.path("run", "supervisor.lock"), nil); err != nil {
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	if err := errors.Join(s.lock.Truncate(0), writePID(s.lock)); err != nil {
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return nil, fmt.Errorf("starting the supervisor: %w", errno)
	}
	// The kernel kills an agent when the thread that started it ends
	// (PR_SET_PDEATHSIG), so this thread must not end.
	go func() {
		runtime.LockOSThread()
		for f := range s.forks {
			f()
		}
	}()
	go s.reap()
	for _, a := range l.agents() {
		s.agents[a.name] = &agentProc{spec: a}
		s.order = append(s.order, a.name)
		if a.bridge != "" {
			if err := createBridge(a.bridge, a.addr); err != nil {
				return nil, errors.Join(err, l.release())
			}
		}
	}
	ln, err := listenControl(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the supervisor's control socket: %w", err), l.release())
	}
	s.server = &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(ln) }()
	return s, nil
}

func writePID(f *os.File) error {
	_, err := fmt.Fprintf(f, "%d\n", os.Getpid())
	return err
}

// agentEnv is the environment of agents. It is not the user's: raw_exec tasks
// inherit it, and a NOMAD_TOKEN or a cloud's key must not get there. GOGC is for
// tests, whose short-lived agents need not collect garbage often.
func agentEnv() []string {
	var env []string
	for _, name := range []string{
		"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "GOGC",
		"DOCKER_HOST", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func (s *supervisor) start(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Not s.l: dev up --acme adds an agent to a cluster that runs.
	l, err := loadLayout(s.l.dir)
	if err != nil {
		return err
	}
	spec := l.named(name)
	if spec == nil {
		return fmt.Errorf("there is no agent %q", name)
	}
	a := s.agents[name]
	switch {
	case s.stopping:
		return errors.New("the cluster is being stopped")
	case a == nil:
		a = &agentProc{spec: spec}
		s.agents[name] = a
		s.order = append(s.order, name)
	case a.pid != 0:
		return fmt.Errorf("agent %q runs already", name)
	}
	log, err := os.OpenFile(s.l.path("logs", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // #nosec G703 -- the name is an agent's
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer func() { _ = null.Close() }()
	argv, env := l.command(spec)
	env = append(append(agentEnv(), envMarker+"="+l.ID), env...)
	var pid int
	done := make(chan struct{})
	// s.mu is held over the fork, so that the reaper finds the process.
	s.forks <- func() {
		defer close(done)
		pid, _, err = syscall.StartProcess(argv[0], argv, &syscall.ProcAttr{ // #nosec G702 -- nomad, consul or pebble, as Tools found it
			Dir:   s.l.dir,
			Env:   env,
			Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
			Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
		})
	}
	<-done
	if err != nil {
		return fmt.Errorf("starting %s with %s: %w", name, argv[0], err)
	}
	a.pid, a.begun, a.exited = pid, true, make(chan struct{})
	return nil
}

// reap collects every child that ends: agents, and orphans of theirs.
func (s *supervisor) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for range ended {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			s.mu.Lock()
			for _, a := range s.agents {
				if a.pid == pid {
					a.pid, a.status = 0, status
					close(a.exited)
				}
			}
			s.mu.Unlock()
		}
	}
}

// signal sends sig to the agent's process. The lock keeps the reaper from
// freeing the pid meanwhile.
func (s *supervisor) signal(name string, sig syscall.Signal) (exited <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.agents[name]
	if !ok {
		return nil, fmt.Errorf("there is no agent %q", name)
	}
	if a.pid == 0 {
		return nil, fmt.Errorf("agent %q does not run", name)
	}
	if err := syscall.Kill(a.pid, sig); err != nil {
		return nil, fmt.Errorf("signalling agent %q: %w", name, err)
	}
	return a.exited, nil
}

// stop ends agents together: asked first, killed after a while.
func (s *supervisor) stop(names ...string) {
	var all []<-chan struct{}
	for _, n := range names {
		if exited, err := s.signal(n, syscall.SIGINT); err == nil {
			_, _ = s.signal(n, syscall.SIGCONT)
			all = append(all, exited)
		}
	}
	late := time.After(graceAgent)
	for _, exited := range all {
		select {
		case <-exited:
		case <-late:
			for _, n := range names {
				_, _ = s.signal(n, syscall.SIGKILL)
			}
			<-exited
		}
	}
}

// end takes the cluster down: Nomad first, so that it does not start again
// what is stopped next; Consul and Pebble last, so that tasks can still say
// goodbye.
func (s *supervisor) end(orphaned bool) error {
	s.mu.Lock()
	s.stopping = true
	var nomads, others []string
	for _, n := range s.order {
		if s.agents[n].spec.program == Nomad {
			nomads = append(nomads, n)
		} else {
			others = append(others, n)
		}
	}
	s.mu.Unlock()
	s.stop(nomads...)
	var keep []int
	s.mu.Lock()
	for _, n := range others {
		if pid := s.agents[n].pid; pid != 0 {
			keep = append(keep, pid)
		}
	}
	s.mu.Unlock()
	ctx := context.Background()
	err := s.l.find(os.Getpid(), keep...).kill(ctx)
	s.stop(others...)
	err = errors.Join(err, s.l.find(os.Getpid()).kill(ctx), s.l.release())
	_ = s.server.Close()
	if err == nil && orphaned && s.l.Throwaway {
		err = s.wipe()
	}
	_ = s.lock.Close()
	return err
}

// wipe removes the cluster, unless another process holds its lock and will
// remove it.
func (s *supervisor) wipe() error {
	path, err := lockPath(s.l.dir)
	if err != nil {
		return err
	}
	lock, err := tryLock(path)
	if err != nil || lock == nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	return s.l.wipe()
}

// supervisorStatus is the answer to GET /status.
type supervisorStatus struct {
	PID      int                      `json:"pid"`
	Stopping bool                     `json:"stopping"`
	Agents   map[string]processStatus `json:"agents"`
}

type processStatus struct {
	State State  `json:"state"`
	PID   int    `json:"pid,omitempty"`
	Exit  string `json:"exit,omitempty"`
}

func (s *supervisor) status() supervisorStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := supervisorStatus{PID: os.Getpid(), Stopping: s.stopping, Agents: map[string]processStatus{}}
	for name, a := range s.agents {
		p := processStatus{State: StateStopped, PID: a.pid}
		switch {
		case a.pid != 0:
			p.State = StateRunning
			if ps, ok := stat(a.pid); ok && ps.state == 'T' {
				p.State = StatePaused
			}
		case a.begun:
			p.State, p.Exit = StateExited, exitText(a.status)
		}
		st.Agents[name] = p
	}
	return st
}

func exitText(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "killed by " + strings.ToLower(ws.Signal().String())
	}
	return fmt.Sprintf("exit code %d", ws.ExitStatus())
}

func (s *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.status())
	})
	var once sync.Once
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(s.down) })
	})
	agent := func(pattern string, f func(name string) error) {
		mux.HandleFunc("POST "+pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(r.PathValue("name")); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
			}
		})
	}
	send := func(sig syscall.Signal) func(string) error {
		return func(name string) error {
			_, err := s.signal(name, sig)
			return err
		}
	}
	agent("/agent/{name}/start", s.start)
	agent("/agent/{name}/pause", send(syscall.SIGSTOP))
	agent("/agent/{name}/continue", send(syscall.SIGCONT))
	agent("/agent/{name}/kill", func(name string) error {
		exited, err := s.signal(name, syscall.SIGKILL)
		if err == nil {
			<-exited
		}
		return err
	})
	agent("/agent/{name}/stop", func(name string) error {
		if _, err := s.signal(name, syscall.SIGCONT); err != nil {
			return err
		}
		s.stop(name)
		return nil
	})
	return mux
}

// A socket's path may have 107 bytes, and a test's directory has more: so it
// is reached through the file descriptor of its directory.
func viaDir(dir string, f func(path string) error) error {
	d, err := os.Open(filepath.Join(dir, "run")) // #nosec G703 -- the directory is the caller's choice
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return f(fmt.Sprintf("/proc/self/fd/%d/control", d.Fd()))
}

func listenControl(dir string) (net.Listener, error) {
	var ln net.Listener
	err := viaDir(dir, func(path string) error {
		// #nosec G703 -- as above
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			l.SetUnlinkOnClose(false) // by then the descriptor is another file
			ln = l
		}
		return err
	})
	return ln, err
}

func dialControl(ctx context.Context, dir string) (net.Conn, error) {
	var c net.Conn
	err := viaDir(dir, func(path string) error {
		var (
			d   net.Dialer
			err error
		)
		c, err = d.DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}
