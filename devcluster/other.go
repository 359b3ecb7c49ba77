//go:build !linux

package devcluster

import (
	"context"
	"time"
)

// Path returns the path of the named program, which it builds if need be.
func (t Tools) Path(ctx context.Context, name string) (string, error) { return "", ErrUnsupported }

// Up starts a cluster; here it cannot.
func Up(ctx context.Context, opts Options) (*Cluster, error) { return nil, ErrUnsupported }

// Down stops a cluster; here there is none.
func Down(ctx context.Context, opts Options, wipe bool) error { return ErrUnsupported }

// Open returns an existing cluster; here there is none.
func Open(opts Options) (*Cluster, error) { return nil, ErrUnsupported }

// Supervise is the life of a cluster's supervisor; here there is none.
func Supervise(dir string) error { return ErrUnsupported }

type supervisorStatus struct {
	PID      int
	Stopping bool
	Agents   map[string]processStatus
}

type processStatus struct {
	State State
	PID   int
}

type control struct{ dir string }

func (control) status(context.Context) (supervisorStatus, error) {
	return supervisorStatus{}, ErrUnsupported
}

func (control) post(context.Context, string) error { return ErrUnsupported }

func (l *layout) awaitReady(context.Context, time.Duration, []*agentSpec) error {
	return ErrUnsupported
}

func leftovers(*layout) ([]Process, error) { return nil, ErrUnsupported }
