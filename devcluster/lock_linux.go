package devcluster

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// poll is the interval for conditions that have no notification.
const poll = 50 * time.Millisecond

// wait calls f every poll until it reports done, fails, or ctx ends.
func wait(ctx context.Context, f func() (done bool, err error)) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// tryLock takes the lock on path, which it creates; nil without an error says
// that another process has it. Closing the file, or the end of the process,
// frees it.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // #nosec G703 -- the callers make the path
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, &os.PathError{Op: "lock", Path: path, Err: err}
}

// lockFile waits for the lock on path; it calls waiting once if another
// process has it.
func lockFile(ctx context.Context, path string, waiting func()) (*os.File, error) {
	var f *os.File
	said := false
	err := wait(ctx, func() (bool, error) {
		var err error
		if f, err = tryLock(path); f != nil || err != nil {
			return true, err
		}
		if !said && waiting != nil {
			said = true
			waiting()
		}
		return false, nil
	})
	return f, err
}
