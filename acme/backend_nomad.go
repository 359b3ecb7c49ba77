package acme

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
)

// requestTimeout ends a request to a store that a caller's context does not.
const requestTimeout = 30 * time.Second

// NomadVariables keeps objects in Nomad Variables, of the client's namespace.
func NomadVariables(client *api.Client) Backend { return &nomadBackend{client} }

type nomadBackend struct{ client *api.Client }

func (*nomadBackend) Name() string { return "Nomad Variables" }

func (b *nomadBackend) Get(ctx context.Context, path string) (Items, string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	v, _, err := b.client.Variables().Peek(path, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, "", storeError(b, err, "reading %s", path)
	}
	if v == nil {
		return nil, "", ErrNotFound
	}
	return Items(v.Items), strconv.FormatUint(v.ModifyIndex, 10), nil
}

// Put does not cancel a request that has left: whether it was done would not
// be known.
func (b *nomadBackend) Put(ctx context.Context, path string, items Items, version string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	v := &api.Variable{Path: path, Items: api.VariableItems(items)}
	write := b.client.Variables().CheckedCreate
	if version != "" {
		var err error
		if v.ModifyIndex, err = strconv.ParseUint(version, 10, 64); err != nil {
			return "", storeError(b, err, "writing %s", path)
		}
		write = b.client.Variables().CheckedUpdate
	}
	out, _, err := write(v, (&api.WriteOptions{}).WithContext(ctx))
	var conflict api.ErrCASConflict
	switch {
	case errors.As(err, &conflict): // its text has the other writer's items
		return "", ErrConflict
	case err != nil:
		return "", storeError(b, err, "writing %s", path)
	}
	return strconv.FormatUint(out.ModifyIndex, 10), nil
}

func (b *nomadBackend) Delete(ctx context.Context, path, version string) error {
	index, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return storeError(b, err, "deleting %s", path)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err = b.client.Variables().CheckedDelete(path, index, (&api.WriteOptions{}).WithContext(ctx))
	var conflict api.ErrCASConflict
	if errors.As(err, &conflict) {
		return ErrConflict
	}
	return storeError(b, err, "deleting %s", path)
}

func (b *nomadBackend) List(ctx context.Context, folder string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, _, err := b.client.Variables().PrefixList(folder+"/", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, storeError(b, err, "listing %s", folder)
	}
	paths := make([]string, 0, len(list))
	for _, m := range list {
		paths = append(paths, m.Path)
	}
	return paths, nil
}

func (b *nomadBackend) Lock(ctx context.Context, path string, ttl time.Duration) (Lease, error) {
	host, _ := os.Hostname()
	// Nomad keeps a lost lock for the delay on top of the TTL.
	v := &api.Variable{
		Path: path, Items: api.VariableItems{"holder": host + "/" + strconv.Itoa(os.Getpid())},
		Lock: &api.VariableLock{TTL: ttl.String(), LockDelay: "1s"},
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	held, _, err := b.client.Variables().AcquireLock(v, (&api.WriteOptions{}).WithContext(rctx))
	if isStatus(err, http.StatusConflict) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, storeError(b, err, "locking %s", path)
	}
	l := &nomadLease{b: b, path: path, id: held.LockID(), stop: make(chan struct{}), lost: make(chan struct{})}
	// #nosec G118 -- the lease outlives the request that took it
	go keepLease(ttl, l.renew, func(err error) bool { return isStatus(err, http.StatusConflict) }, l.stop, l.lost)
	return l, nil
}

func isStatus(err error, code int) bool {
	var bad api.UnexpectedResponseError
	return errors.As(err, &bad) && bad.StatusCode() == code
}

type nomadLease struct {
	b          *nomadBackend
	path, id   string
	once       sync.Once
	stop, lost chan struct{}
}

func (l *nomadLease) variable() *api.Variable {
	return &api.Variable{Path: l.path, Lock: &api.VariableLock{ID: l.id}}
}

func (l *nomadLease) renew(ctx context.Context) error {
	_, _, err := l.b.client.Variables().RenewLock(l.variable(), (&api.WriteOptions{}).WithContext(ctx))
	return err
}

func (l *nomadLease) Lost() <-chan struct{} { return l.lost }

func (l *nomadLease) Release(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	<-l.lost // no renewal is on its way
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	_, _, err := l.b.client.Variables().ReleaseLock(l.variable(), (&api.WriteOptions{}).WithContext(ctx))
	if isStatus(err, http.StatusConflict) {
		return nil // not ours any more
	}
	return storeError(l.b, err, "releasing %s", l.path)
}
