// Package imported runs what drover import writes: on Nomad, Consul and Docker in
// network namespaces of the test.
package imported

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drover-nomad/drover/devcluster"
)

// A run of the tests is a tree of processes of this binary. The first one builds the
// programs, for it has a network. Its child is the first process of namespaces of its
// own for processes, mounts and network: all that the tests start ends with it, and
// nothing of it is seen outside. The child runs the tests, which start another process
// of this binary for each node of the cluster.
const (
	envStage = "DROVER_IMPORTED_STAGE" // init, tests or node
	envDir   = "DROVER_IMPORTED_DIR"   // the directory with the programs and the logs
)

func TestMain(m *testing.M) {
	// Programs of the administrator are not on everybody's PATH.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		exit(1, err)
	}
	switch os.Getenv(envStage) {
	case "init":
		exit(initialise())
	case "node":
		exit(0, holdNode())
	case "tests":
		os.Exit(m.Run())
	}
	flag.Parse()
	if testing.Short() || os.Geteuid() != 0 || flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	exit(isolate())
}

func exit(code int, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// isolate builds the programs and runs the tests in namespaces.
func isolate() (code int, err error) {
	dir, err := os.MkdirTemp("", "drover-imported-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // tasks run as other users
		return 1, err
	}
	if err := buildPrograms(context.Background(), dir); err != nil {
		return 1, err
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), envStage+"=init", envDir+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	runtime.LockOSThread() // the signal is sent when this thread ends
	err = cmd.Run()
	if exited := (*exec.ExitError)(nil); errors.As(err, &exited) {
		return max(exited.ExitCode(), 1), nil
	}
	return 0, err
}

// buildPrograms puts what the tests run into dir: drover, Nomad, Consul, and the
// programs of the images.
func buildPrograms(ctx context.Context, dir string) error {
	for _, name := range []string{devcluster.Nomad, devcluster.Consul, devcluster.Pebble, devcluster.PebbleChallTestSrv} {
		path, err := devcluster.Tools{Events: func(e devcluster.Event) {
			if !e.Transient {
				fmt.Fprintln(os.Stderr, e.Subject, e.Text)
			}
		}}.Path(ctx, name)
		if err != nil {
			return err
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	const module = "github.com/drover-nomad/drover/"
	args := []string{"build", "-o", dir + "/", module + "cmd/drover"}
	for _, name := range []string{"programs/server", "programs/client", "programs/pause", "testdata/guestbook/frontend", "testdata/guestbook/backend", "testdata/guestbook/postgres"} {
		args = append(args, module+"tests/imported/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return nil
}

// initialise is the first process of the namespaces. It runs the tests and waits for
// every process whose parent ended.
func initialise() (int, error) {
	if err := errors.Join(private(), unix.Mount("proc", "/proc", "proc", 0, ""), run("ip", "link", "set", "lo", "up")); err != nil {
		return 1, err
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), envStage+"=tests")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, err
		case pid == cmd.Process.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == cmd.Process.Pid && status.Signaled():
			return 1, fmt.Errorf("the tests ended by signal %s", status.Signal())
		}
	}
}

// private keeps mounts of this process from the namespace that it comes from, and gives
// it directories of its own for sockets, locks, and the addresses of CNI.
func private() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib/cni"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mounting %s: %w", dir, err)
		}
	}
	return nil
}

// run runs a program to its end.
func run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// holdNode keeps the namespaces of a node until its standard input ends.
func holdNode() error {
	if err := errors.Join(private(), run("ip", "link", "set", "lo", "up")); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}
