package record

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// Index says which parts of the record of a stack in an environment have changed,
// without their content.
type Index struct {
	Stack, Environment string
	Release            int    // number of the newest release; 0 if there is none
	Modified           uint64 // the greatest ModifyIndex of its head and its pages
	// Schedules has the ModifyIndex of each schedule, by name.
	Schedules map[string]uint64
}

// Indexes lists the records in the namespace of the client, ordered by stack and
// environment. The request blocks as q says (GET /v1/vars); the index to wait for next
// is returned. A token that may list none gets none.
func Indexes(ctx context.Context, client *api.Client, q *api.QueryOptions) ([]Index, uint64, error) {
	list, meta, err := client.Variables().PrefixList(stacksFolder, q.WithContext(ctx))
	if err != nil {
		return nil, 0, fmt.Errorf("listing stacks: %w", err)
	}
	return indexesOf(list), meta.LastIndex, nil
}

func indexesOf(list []*api.VariableMetadata) []Index {
	type key struct{ stack, env string }
	found := map[key]*Index{}
	for _, v := range list {
		parts := strings.Split(strings.TrimPrefix(v.Path, stacksFolder), "/")
		if len(parts) < 4 || parts[2] != "releases" && parts[2] != "schedules" {
			continue
		}
		k := key{parts[0], parts[1]}
		x := found[k]
		if x == nil {
			x = &Index{Stack: nameOf(parts[0]), Environment: nameOf(parts[1]), Schedules: map[string]uint64{}}
			found[k] = x
		}
		if parts[2] == "schedules" {
			x.Schedules[nameOf(parts[3])] = v.ModifyIndex
			continue
		}
		n, err := strconv.Atoi(parts[3])
		if err != nil || n < x.Release {
			continue
		}
		if n > x.Release {
			x.Release, x.Modified = n, 0
		}
		x.Modified = max(x.Modified, v.ModifyIndex)
	}
	out := make([]Index, 0, len(found))
	for _, x := range found {
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b Index) int {
		return cmp.Or(cmp.Compare(a.Stack, b.Stack), cmp.Compare(a.Environment, b.Environment))
	})
	return out
}
