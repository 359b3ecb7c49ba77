package dns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
)

// InUse reports whether an owner has desired records or has claimed a record. A
// variable that the token may not read counts as missing.
func InUse(ctx context.Context, client *api.Client, owner string) (bool, error) {
	owners, err := DesiredRecords{client}.blocks(ctx, owner, folders()...)
	if err != nil {
		return false, err
	}
	for _, o := range owners {
		for _, path := range ownedPaths(o) {
			v, err := peek(ctx, client, path)
			if err != nil && !nomad.IsForbidden(err) {
				return false, err
			}
			if v != nil {
				return true, nil
			}
		}
	}
	return false, nil
}

// folders are those in which owners have variables.
func folders() []string { return []string{storeRoot, CredentialFolder + "/", WantedFolder + "/"} }

// ownedPaths returns the variables of an owner in the order in which a move copies
// them: the claims come before the desired records, which would otherwise look
// foreign.
func ownedPaths(owner string) []string {
	return []string{storePath(owner), credentialPath(owner), wantedPath(owner)}
}

// Move gives the claims of an owner, its desired records and its credential to another
// owner. No record changes. It can be repeated after it was interrupted. It returns
// ErrChanged if the new owner has something else already.
func Move(ctx context.Context, client *api.Client, from, to string) (moved bool, err error) {
	owners, err := DesiredRecords{client}.blocks(ctx, from, folders()...)
	if err != nil {
		return false, err
	}
	for _, o := range owners {
		_, block := StackOwner(o)
		one, err := move(ctx, client, o, BlockOwner(to, block))
		if moved = moved || one; err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// move is Move of one dns block.
func move(ctx context.Context, client *api.Client, from, to string) (moved bool, err error) {
	s := DesiredRecords{client}
	old, fresh := ownedPaths(from), ownedPaths(to)
	for i := range old {
		v, err := peek(ctx, s.Client, old[i])
		if nomad.IsForbidden(err) || err == nil && v == nil {
			continue
		}
		if err != nil {
			return moved, err
		}
		items := maps.Clone(v.Items)
		if old[i] == wantedPath(from) {
			w, err := decodeWanted(v)
			if err != nil {
				return moved, err
			}
			w.Owner = to
			if items, err = w.items(); err != nil {
				return moved, err
			}
		}
		there, err := peek(ctx, s.Client, fresh[i])
		if err != nil {
			return moved, err
		}
		items[variables.LayoutItem] = v.Items[variables.LayoutItem]
		if there != nil && !maps.Equal(there.Items, items) {
			return moved, fmt.Errorf("cannot move %s to %s: %w", old[i], fresh[i], ErrChanged)
		}
		if _, err := s.write(ctx, fresh[i], items); err != nil {
			return moved, err
		}
		moved = true
	}
	// The desired records go first: then the controller stops updating them.
	for i := len(old) - 1; i >= 0; i-- {
		err = errors.Join(err, s.delete(ctx, old[i]))
	}
	return moved, err
}

// HandOver ends the claims of an owner and deletes its desired records, so that another
// stack or cluster can adopt the records in the zones. None of those changes. It returns
// the keys of the claims.
func HandOver(ctx context.Context, client *api.Client, owner string) ([]Key, error) {
	// The desired records go first: then the controller stops updating them.
	if err := (DesiredRecords{client}).Delete(ctx, owner); err != nil {
		return nil, err
	}
	owners, err := DesiredRecords{client}.blocks(ctx, owner, storeRoot)
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, o := range owners {
		owned, err := NomadStore{client}.Load(ctx, o)
		if err != nil {
			return nil, err
		}
		keys = slices.AppendSeq(keys, maps.Keys(owned.Claims))
	}
	slices.SortFunc(keys, compareKeys)
	return keys, EndClaims(ctx, client, owner)
}

// EndClaims forgets which records drover made for a stack. It treats 403 as "nothing
// stored".
func EndClaims(ctx context.Context, client *api.Client, owner string) error {
	s := DesiredRecords{client}
	owners, err := s.blocks(ctx, owner, storeRoot)
	if err != nil {
		return err
	}
	for _, o := range owners {
		if err := s.delete(ctx, storePath(o)); err != nil {
			return err
		}
	}
	return nil
}
