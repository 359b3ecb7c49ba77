package release

import (
	"context"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// Reader reads the releases of one stack in one environment.
type Reader interface {
	// Last returns the newest release, nil if there is none.
	Last(ctx context.Context) (*record.Release, error)
	// Read returns the head of a release. It returns record.ErrNoRelease if there is
	// none of that number.
	Read(ctx context.Context, number int) (*record.Release, error)
	// Services returns the lines of a release as they are stored now.
	Services(ctx context.Context, head *record.Release) ([]record.Service, error)
	// Blob returns what Store.Store wrote under that digest. It returns an error that
	// is record.ErrMissing if there is none.
	Blob(ctx context.Context, digest string) (record.Blob, error)
}

// Store keeps the releases of one stack in one environment: heads, journals, job
// specs, and the lock. Other processes use the same store at the same time. InNomad
// returns the one that drover uses; package memstore has one in memory. Both pass
// releasetest.TestStore.
//
// A head is written by check-and-set: Save, Change and TakeOver return
// record.ErrTakenOver if another process has written the head since it was read.
type Store interface {
	Reader

	Stack() string
	Environment() string

	// List returns the heads of all releases, the newest first. One that cannot be
	// read has the state record.Unreadable.
	List(ctx context.Context) ([]*record.Release, error)
	// Numbers returns the numbers of the releases, the oldest first.
	Numbers(ctx context.Context) ([]int, error)
	// Now returns the newest release, the holder of the lock, and which blobs there are.
	// A release that cannot be read has the state record.Unreadable.
	Now(ctx context.Context) (record.Current, error)
	// Readable returns the lines of a release that can be read. Services returns an
	// error instead.
	Readable(ctx context.Context, head *record.Release) ([]record.Service, error)
	// Watch returns the head of a release and its index once that is not index any
	// more; with index 0 at once. The index may be the Revision of a head. It blocks
	// until then, or until ctx ends.
	Watch(ctx context.Context, number int, index uint64) (*record.Release, uint64, error)
	// Holder returns the holder of the lock, nil if the lock is free.
	Holder(ctx context.Context) (*record.Holder, error)
	// OtherEnvironments returns the releases of the stack in other environments.
	OtherEnvironments(ctx context.Context) ([]Reader, error)
	// Owners returns the other stack or environment that owns each job, nil for a job
	// that none owns. See record.Releases.Owners.
	Owners(ctx context.Context, jobs []record.LiveJob) ([]*record.Owner, error)

	// Fits returns an error if the head would not fit into the store until its
	// release ends. It makes no request.
	Fits(head *record.Release) error
	// Store writes the blobs that are not there yet. stored are the digests of those
	// that are, as Lease.Blobs returns them; nil if that is not known.
	Store(ctx context.Context, blobs []record.Packed, stored map[string]bool) error
	// Create writes a new release. It returns record.ErrTakenOver if there is one of
	// that number.
	Create(ctx context.Context, head *record.Release, services []record.Service) (Journal, error)
	// TakeOver gives the journal of a release to owner: its former owner cannot write
	// it any more.
	TakeOver(ctx context.Context, head *record.Release, owner string) (Journal, error)
	// Save writes a head.
	Save(ctx context.Context, head *record.Release) error
	// Change reads a head, calls f with it and writes it. It begins anew if another
	// process writes the head meanwhile. An error of f ends it.
	Change(ctx context.Context, number int, f func(*record.Release) error) (*record.Release, error)
	// Keep removes the oldest releases until most are left. It keeps the newest good
	// one, and those that are open. Blobs that no release needs any more may stay until
	// a later call. The caller holds the lock.
	Keep(ctx context.Context, most int) ([]record.Removed, error)
	// Scrub removes the values of these variables from the releases, and returns the
	// numbers of those that it rewrote. The caller holds the lock.
	Scrub(ctx context.Context, variables []string) ([]int, error)
	// Purge removes all releases.
	Purge(ctx context.Context) error

	// Lock takes the lock, which one process holds at a time. If another one holds it,
	// Lock calls waits with the holder, which may be nil, and waits. It returns a
	// *record.LockedError after wait.
	Lock(ctx context.Context, h record.Holder, wait time.Duration, waits func(record.Holder)) (Lease, error)

	// LockToMove is Lock for a move of the record, which also finishes one that was
	// interrupted: it returns no *record.MovedError. The Last of its lease is nil.
	LockToMove(ctx context.Context, h record.Holder, wait time.Duration) (Lease, error)
	// PlanMove prepares a move of the record to another name, and writes nothing. to
	// has to be a store of the same kind without a release, unless the same move was
	// interrupted. The caller holds the locks of both.
	PlanMove(ctx context.Context, to Store) (Move, error)
}

// Move gives the releases of a record to another name, step by step. Each step, and a
// Move as a whole, can be repeated after it was interrupted.
type Move interface {
	// Plan returns what was found before anything was written.
	Plan() record.MovePlan
	// Copy writes everything but the newest release under the new name. From then on,
	// the lock of the old name is for this move only.
	Copy(ctx context.Context) error
	// Commit writes the newest release under the new name, which owns the jobs from
	// then on.
	Commit(ctx context.Context) error
	// Finish deletes the old record.
	Finish(ctx context.Context) error
}

// Journal writes how far each service of a release has come. Its methods may be
// called from several goroutines.
type Journal interface {
	// Services returns the lines as they are now.
	Services() []record.Service
	// Service returns one line as it is now.
	Service(i int) record.Service
	// Note changes a line, which is written soon.
	Note(i int, f func(*record.Service))
	// NoteLater changes a line, which is written with another change, or by Flush.
	NoteLater(i int, f func(*record.Service))
	// Update changes a line and returns when it is written. It returns
	// record.ErrTakenOver if another process has taken over the release.
	Update(ctx context.Context, i int, f func(*record.Service)) error
	// Flush returns when everything is written.
	Flush(ctx context.Context) error
	// Close writes what is left and ends the journal.
	Close(ctx context.Context) error
}

// Lease is the lock of a store while a process holds it.
type Lease interface {
	// Last returns the newest release when the lock was taken, nil if there was none.
	// It makes no request.
	Last() (*record.Release, error)
	// Blobs returns the digests of the blobs that are stored. It returns nil if that is
	// not known, or if another process may have held the lock since they were listed. It
	// makes no request.
	Blobs() map[string]bool
	// Lost is closed when the lock is, or may be, no longer held.
	Lost() <-chan struct{}
	// Renew returns the lease anew if the lock is still held although Lost is closed.
	Renew(ctx context.Context) (Lease, error)
	// Remove releases the lock. A lock that is not held any more is no error.
	Remove(ctx context.Context) error
}

// SecretStore keeps the secrets of one stack in one environment, and gives each job
// those that it reads.
type SecretStore interface {
	// Reach returns the same secrets for the jobs of these clusters, by target.
	Reach(clusters map[string]Cluster) SecretStore
	// Item returns the value of one item. It returns an error if it has none.
	Item(ctx context.Context, name string) (secrets.Value, error)
	// Lookup returns the value of one item. It is empty if it has none.
	Lookup(ctx context.Context, name string) (secrets.Value, error)
	// Redactor returns a function that hides the present values in a text.
	Redactor(ctx context.Context) (func(string) string, error)
	// Preview returns what Generate, Publish and Trim would write.
	Preview(ctx context.Context, specs []*stack.Secret, jobs []render.Job) (*record.SecretChanges, error)
	// Generate makes the secrets that are missing. It returns a *record.MissingError
	// for those that only the operator can give.
	Generate(ctx context.Context, specs []*stack.Secret) (record.Generated, error)
	// Grow adds the items that jobs read and do not have. It changes no value.
	Grow(ctx context.Context, jobs []render.Job) error
	// Publish gives jobs the present values, and returns the jobs that it wrote.
	Publish(ctx context.Context, jobs []render.Job) ([]render.Job, error)
	// Trim removes the items that jobs do not read.
	Trim(ctx context.Context, jobs []render.Job) error
	// Purge deletes the secrets, and what the jobs have of them.
	Purge(ctx context.Context, jobs []render.Job) error

	// Any reports whether there is any secret.
	Any(ctx context.Context) (bool, error)
	// CheckMove returns the error with which Move would refuse to begin. It writes
	// nothing.
	CheckMove(ctx context.Context, to SecretStore, jobs []render.Job) error
	// Move gives the secrets, and what the jobs have of them, to another name. to has
	// to be a store of the same kind. Move can be repeated after it was interrupted.
	Move(ctx context.Context, to SecretStore, jobs []render.Job) error
}
