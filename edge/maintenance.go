package edge

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
)

// maintenanceItem begins the items of the variable of decisions that say which services
// of a stack are in maintenance. Decisions have no item that begins so.
const maintenanceItem = "_maintenance/"

// SetMaintenance begins or ends the maintenance of the services of one stack, which key
// names, at each edge that runs, and at the job edge if none does.
func (f Finder) SetMaintenance(ctx context.Context, key string, services []string, on bool) error {
	jobs, err := f.jobs(ctx)
	if err != nil {
		return err
	}
	if len(jobs) == 0 {
		jobs = []string{ServiceName}
	}
	for _, job := range jobs {
		if err := f.setMaintenance(ctx, publishedPath(job), key, services, on); err != nil {
			return err
		}
	}
	return nil
}

func (f Finder) setMaintenance(ctx context.Context, path, key string, services []string, on bool) error {
	client := f.client()
	for attempt := 1; ; attempt++ {
		old, _, err := client.Variables().Peek(path, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		next := &api.Variable{Path: path, Items: map[string]string{}}
		if old != nil {
			next.ModifyIndex = old.ModifyIndex
			maps.Copy(next.Items, old.Items)
		}
		delete(next.Items, maintenanceItem+key)
		if on {
			next.Items[maintenanceItem+key] = strings.Join(services, " ")
		}
		switch {
		case old == nil && !on, old != nil && maps.Equal(old.Items, next.Items):
			return nil
		case len(next.Items) == 0:
			err = variables.Delete(ctx, client, path, next.ModifyIndex, &api.WriteOptions{})
		default:
			_, err = variables.Write(ctx, client, next, &api.WriteOptions{})
		}
		if err == nil || !variables.IsRejected(err) && !nomad.IsConflict(err) || attempt == 5 {
			return err
		}
	}
}
