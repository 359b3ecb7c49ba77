package acme

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
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

// Put writes by variables.Write, which retries.
func (b *nomadBackend) Put(ctx context.Context, path string, items Items, version string) (string, error) {
	v := &api.Variable{Path: path, Items: api.VariableItems(items)}
	if version != "" {
		var err error
		if v.ModifyIndex, err = strconv.ParseUint(version, 10, 64); err != nil {
			return "", storeError(b, err, "writing %s", path)
		}
	}
	out, err := variables.Write(ctx, b.client, v, &api.WriteOptions{})
	switch {
	case nomad.IsConflict(err):
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
	err = variables.Delete(ctx, b.client, path, index, &api.WriteOptions{})
	if nomad.IsConflict(err) {
		return ErrConflict
	}
	return storeError(b, err, "deleting %s", path)
}

func (b *nomadBackend) List(ctx context.Context, folder string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, _, err := b.client.Variables().PrefixList(folder+"/", (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(list) == 0 {
		err = variables.CheckList(ctx, b.client, folder)
	}
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
	l, err := variables.TakeLease(ctx, b.client, path, map[string]string{"holder": host + "/" + strconv.Itoa(os.Getpid())}, ttl)
	if err != nil {
		return nil, storeError(b, cmp.Or(errors.Unwrap(err), err), "locking %s", path)
	}
	return l, nil
}
