package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// measureArg is the first argument of this program when it is a process of
// its own that starts a program and tells what that took: to Linux, a process
// has at least the memory that its parent had when it was started, and this
// one's grows.
const measureArg = "-measure"

// measured starts a program and returns what it took, with its output. An
// error of type *exec.ExitError is the program's own.
func measured(ctx context.Context, program string, env []string, out io.Writer, args ...string) (usage, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	told, tell, err := os.Pipe()
	if err != nil {
		return usage{}, err
	}
	defer func() { _ = told.Close() }()
	cmd := exec.CommandContext(ctx, self, append([]string{measureArg, program}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = env, out, out, []*os.File{tell}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err = errors.Join(cmd.Start(), tell.Close())
	if err != nil {
		return usage{}, err
	}
	var r struct{ Elapsed, Peak int64 }
	unreadable := json.NewDecoder(told).Decode(&r)
	if err := cmd.Wait(); err != nil {
		return usage{elapsed: time.Duration(r.Elapsed)}, err
	}
	if unreadable != nil {
		return usage{}, fmt.Errorf("measuring %s: %w", program, unreadable)
	}
	return usage{elapsed: time.Duration(r.Elapsed), peak: r.Peak}, nil
}

// measure is the process that measured starts. It returns the exit code of
// the program.
func measure(program string, args ...string) int {
	tell := os.NewFile(3, "told")
	syscall.CloseOnExec(3)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	cmd := exec.CommandContext(context.Background(), program, args...) //nolint:gosec // what measured asks for
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	go func() {
		for range interrupted {
			_ = cmd.Process.Signal(os.Interrupt)
		}
	}()
	err := cmd.Wait()
	r := map[string]int64{"Elapsed": int64(time.Since(began)), "Peak": peak(cmd.ProcessState)}
	if err := errors.Join(json.NewEncoder(tell).Encode(r), tell.Close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	return cmd.ProcessState.ExitCode()
}

// peak is the largest resident set of a process that has ended, in bytes.
func peak(s *os.ProcessState) int64 {
	r, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	if runtime.GOOS == "linux" {
		return r.Maxrss * 1024 // there it is KiB
	}
	return r.Maxrss
}
