// Package variables is how drover stores objects in Nomad Variables: a layout
// number, packed content, writes by check-and-set, and leased locks.
package variables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// Limit is what Nomad accepts as a variable: the sum of the bytes of the names
// and values of its items.
const Limit = 64 << 10

// Size returns what Nomad counts of items, in bytes.
func Size(items map[string]string) int {
	n := 0
	for name, text := range items {
		n += len(name) + len(text)
	}
	return n
}

// LayoutItem is the item with the layout number.
const LayoutItem = "_layout"

// CheckLayout returns an error if text is no layout number, and a
// *NewerLayoutError if it is greater than known. what names the object in the
// error, as "the certificate at drover/certs/web".
func CheckLayout(text, what string, known int) error {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 1:
		return fmt.Errorf("%s: no layout number: not written by drover", what)
	case n > known:
		return &NewerLayoutError{what, n, known}
	}
	return nil
}

// NewerLayoutError reports an object that a newer drover wrote.
type NewerLayoutError struct {
	What          string
	Layout, Known int
}

func (e *NewerLayoutError) Error() string {
	return fmt.Sprintf("%s: written by a newer drover (layout %d, this one knows %d): update drover", e.What, e.Layout, e.Known)
}

// ConflictError reports that another client changed a variable since it was
// read. It is a nomad.ErrConflict, and without the items of the other client.
type ConflictError struct{ Path string }

func (e *ConflictError) Error() string {
	return "another client changed " + e.Path + " at the same time; try again"
}

// Is makes the error a nomad.ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == nomad.ErrConflict }

const (
	// requestTimeout ends a request that the context of the caller does not.
	requestTimeout = 30 * time.Second
	// writePatience is for how long a write or delete is retried, unless the
	// context has more patience (nomad.WithPatience).
	writePatience = 10 * time.Second
	// cancelGrace is how long a write that was sent may still be answered after its
	// context was cancelled, as with Ctrl-C.
	cancelGrace = 5 * time.Second
)

// Read returns the variable at path, nil if there is none (GET /v1/var/:path).
func Read(ctx context.Context, client *api.Client, path string) (*api.Variable, error) {
	v, _, err := client.Variables().Peek(path, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return v, nil
}

// Write creates a variable, or replaces just the version with v.ModifyIndex
// (PUT /v1/var/:path?cas=), and returns it with its new index. It returns a
// *ConflictError if the variable has changed since. A request that was sent is
// not cancelled. One without a useful answer is retried, and counts as done if
// the variable has these items then: the write arrived and its answer was lost.
func Write(ctx context.Context, client *api.Client, v *api.Variable, w *api.WriteOptions) (*api.Variable, error) {
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
		if !unsure || !isConflict(err) {
			unsure = true
			return err
		}
		there, _, rerr := client.Variables().Peek(v.Path, (&api.QueryOptions{Namespace: w.Namespace, Region: w.Region}).WithContext(ctx))
		switch {
		case rerr != nil && !IsRejected(rerr):
			return rerr // retry: it is not known yet whether it was this write
		case rerr == nil && there != nil && maps.Equal(there.Items, v.Items):
			out = there
			return nil
		}
		return err
	})
	return out, err
}

// WriteChanged makes the variable at path hold just these items, and reports
// whether it wrote anything: it does not if the variable holds them already. old
// is what the caller has read there, nil for none.
func WriteChanged(ctx context.Context, client *api.Client, old *api.Variable, path string, items map[string]string) (bool, error) {
	v := &api.Variable{Path: path, Items: items}
	if old != nil {
		if maps.Equal(old.Items, v.Items) {
			return false, nil
		}
		v.ModifyIndex = old.ModifyIndex
	}
	if _, err := Write(ctx, client, v, &api.WriteOptions{}); err != nil {
		return false, fmt.Errorf("writing %s: %w", path, err)
	}
	return true, nil
}

// Delete deletes a variable; one that does not exist is no error. With an index
// other than 0 it deletes just that version, and returns a *ConflictError if the
// variable has changed since.
func Delete(ctx context.Context, client *api.Client, path string, index uint64, w *api.WriteOptions) error {
	unsure := false
	return retryWrite(ctx, func(ctx context.Context) error {
		var err error
		if index == 0 {
			_, err = client.Variables().Delete(path, w.WithContext(ctx))
		} else {
			_, err = client.Variables().CheckedDelete(path, index, w.WithContext(ctx))
			err = withoutItems(err)
		}
		if nomad.IsNotFound(err) {
			return nil
		}
		if !unsure || !isConflict(err) {
			unsure = true
			return err
		}
		there, _, rerr := client.Variables().Peek(path, (&api.QueryOptions{Namespace: w.Namespace, Region: w.Region}).WithContext(ctx))
		switch {
		case rerr != nil && !IsRejected(rerr):
			return rerr
		case rerr == nil && there == nil:
			return nil // an earlier attempt has deleted it
		}
		return err
	})
}

// CheckList returns an error if the token may not list the variables below
// folder: Nomad leaves out of a list what the token may not see, without an
// error (GET /v1/vars). It reads the name folder/*, which the policy of such a
// token allows.
func CheckList(ctx context.Context, client *api.Client, folder string) error {
	_, _, err := client.Variables().Peek(folder+"/*", (&api.QueryOptions{}).WithContext(ctx))
	if nomad.IsForbidden(err) {
		return err
	}
	return nil // any other error is not about the token
}

// withoutItems removes the items of the other client from a conflict.
func withoutItems(err error) error {
	var conflict api.ErrCASConflict
	if errors.As(err, &conflict) {
		return &ConflictError{conflict.Conflict.Path}
	}
	return err
}

func isConflict(err error) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict)
}

// IsRejected reports whether Nomad has answered in a way that a retry would not
// change.
func IsRejected(err error) bool {
	code := nomad.StatusCode(err)
	return code >= 400 && code < 500 && code != http.StatusTooManyRequests
}

// retryWrite calls write until it succeeds, Nomad rejects it, or writePatience is
// over. Its requests outlive a cancelled ctx, since an aborted request may arrive
// all the same.
func retryWrite(ctx context.Context, write func(context.Context) error) error {
	policy := nomad.Policy{
		Patience: max(nomad.PatienceOf(ctx), writePatience),
		Attempt:  requestTimeout + cancelGrace, // the attempt itself ends earlier
		Retry:    func(err error) bool { return !isConflict(err) && !IsRejected(err) },
	}
	return policy.Do(ctx, func(ctx context.Context) error {
		wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		defer context.AfterFunc(ctx, func() { time.AfterFunc(cancelGrace, cancel) })()
		return write(wctx)
	})
}
