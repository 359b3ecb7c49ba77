package record

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// writePatience is how long a write or delete of a variable is retried while
// Nomad, or a proxy before it, does not answer.
const writePatience = 10 * time.Second

// cancelGrace is how long a request that has left may still be answered after its
// context was cancelled, as with Ctrl-C.
const cancelGrace = 5 * time.Second

// Patiently returns a context in which writes and deletes are retried for as long
// as d, if that is longer than usual; with 0 they are retried as usual.
func Patiently(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

type patienceKey struct{}

// writeChecked creates a variable or replaces just the version that was read
// (PUT /v1/var/:path?cas=). It returns an errConflict if the variable has
// changed since. A request that has left is not cancelled; one without a useful
// answer is retried, and counts as done if the variable has these items then:
// the write has arrived and its answer was lost.
func writeChecked(ctx context.Context, client *api.Client, v *api.Variable, w *api.WriteOptions) (*api.Variable, error) {
	write := client.Variables().CheckedUpdate
	if v.ModifyIndex == 0 {
		write = client.Variables().CheckedCreate
	}
	var out *api.Variable
	unsure := false // an earlier attempt may have arrived
	err := retryWrite(ctx, func(ctx context.Context) error {
		var err error
		out, _, err = write(v, w.WithContext(ctx))
		err = withoutItems(err)
		var conflict errConflict
		if !unsure || !errors.As(err, &conflict) {
			unsure = true
			return err
		}
		there, _, rerr := client.Variables().Peek(v.Path, (&api.QueryOptions{Namespace: w.Namespace, Region: w.Region}).WithContext(ctx))
		switch {
		case rerr != nil && !refused(rerr):
			return rerr // retry: it is not known yet whether it was this write
		case rerr == nil && there != nil && maps.Equal(there.Items, v.Items):
			out = there
			return nil
		}
		return err
	})
	return out, err
}

// deleteVariable deletes a variable; one that does not exist is no error. With
// an index other than 0 it deletes just that version, and returns an
// errConflict if the variable has changed since.
func deleteVariable(ctx context.Context, client *api.Client, path string, index uint64, w *api.WriteOptions) error {
	unsure := false
	return retryWrite(ctx, func(ctx context.Context) error {
		var err error
		if index == 0 {
			_, err = client.Variables().Delete(path, w.WithContext(ctx))
		} else {
			_, err = client.Variables().CheckedDelete(path, index, w.WithContext(ctx))
			err = withoutItems(err)
		}
		var conflict errConflict
		if nomad.IsNotFound(err) {
			return nil
		}
		if !unsure || !errors.As(err, &conflict) {
			unsure = true
			return err
		}
		there, _, rerr := client.Variables().Peek(path, (&api.QueryOptions{Namespace: w.Namespace, Region: w.Region}).WithContext(ctx))
		switch {
		case rerr != nil && !refused(rerr):
			return rerr
		case rerr == nil && there == nil:
			return nil // an earlier attempt has deleted it
		}
		return err
	})
}

// retryWrite calls write until it succeeds, Nomad refuses it, or writePatience
// (see Patiently) is over. The requests of write outlive a cancelled ctx, since an aborted
// request may arrive all the same.
func retryWrite(ctx context.Context, write func(context.Context) error) error {
	patience, _ := ctx.Value(patienceKey{}).(time.Duration)
	deadline := time.Now().Add(max(patience, writePatience))
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		stop := context.AfterFunc(ctx, func() { time.AfterFunc(cancelGrace, cancel) })
		err := write(wctx)
		stop()
		cancel()
		var conflict errConflict
		if err == nil || errors.As(err, &conflict) || refused(err) || time.Now().After(deadline) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
