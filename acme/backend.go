package acme

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
)

// Layout of what this package stores.
const Layout = 1

// Items are the named texts of one stored object. Some are keys: printing
// or logging shows the names only.
type Items map[string]string

func (i Items) String() string { return fmt.Sprintf("%d items (redacted)", len(i)) }

// GoString returns String, for %#v.
func (i Items) GoString() string { return i.String() }

// LogValue returns String, for slog.
func (i Items) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalJSON shows no item either; a Backend encodes the map that it is.
func (i Items) MarshalJSON() ([]byte, error) { return []byte(`"` + i.String() + `"`), nil }

// Errors of a Backend.
var (
	// ErrNotFound means that there is no object at a path.
	ErrNotFound = errors.New("there is no such object in the certificate store")
	// ErrConflict means that another process has written the object since it was read.
	ErrConflict = nomad.ErrConflict
	// ErrLocked means that another process holds the lock.
	ErrLocked = variables.ErrLocked
)

// Backend keeps objects by path, whole and by check-and-set, and gives out
// leased locks. A path is lower and upper case letters, digits, "-", "_",
// "~" and "/".
type Backend interface {
	// Name returns the name of the store for messages, such as "Nomad Variables".
	Name() string
	// Get returns an object and its version; ErrNotFound when there is none.
	Get(ctx context.Context, path string) (Items, string, error)
	// Put writes an object and returns its version. version is that of the
	// object it replaces, "" for one that must not exist yet; otherwise
	// nothing is written and the error is ErrConflict.
	Put(ctx context.Context, path string, items Items, version string) (string, error)
	// Delete removes the object of that version. One that is gone is no error.
	Delete(ctx context.Context, path, version string) error
	// List returns the paths below a folder, in any order.
	List(ctx context.Context, folder string) ([]string, error)
	// Lock takes the lock of that path without waiting. It returns ErrLocked if
	// the lock is held. The lease lasts at least ttl after its last renewal.
	Lock(ctx context.Context, path string, ttl time.Duration) (Lease, error)
}

// Lease is a lock that is held.
type Lease interface {
	// Lost is closed when the lock is, or may be, no longer held.
	Lost() <-chan struct{}
	// Release releases the lock.
	Release(ctx context.Context) error
}

// StoreError reports a store that cannot be read or written.
type StoreError struct {
	Store string // Backend.Name
	Doing string
	Err   error
}

func (e *StoreError) Error() string { return e.Store + ": " + e.Doing + ": " + e.Err.Error() }
func (e *StoreError) Unwrap() error { return e.Err }

func storeError(b Backend, err error, format string, args ...any) error {
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) || errors.Is(err, ErrLocked) {
		return err
	}
	return &StoreError{Store: b.Name(), Doing: fmt.Sprintf(format, args...), Err: err}
}
