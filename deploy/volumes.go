package deploy

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// MissingVolumesError reports host volumes that jobs mount and that are not there.
type MissingVolumesError struct{ Volumes []rollout.MissingVolume }

func (e *MissingVolumesError) Error() string {
	lines := make([]string, len(e.Volumes))
	for i, m := range e.Volumes {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n       ")
}

// createVolumes creates those of all targets side by side, because a node takes a
// while to report one.
func (s *stream) createVolumes(ctx context.Context, targets map[string]rollout.Clients, missing map[string][]rollout.MissingVolume, specs []*stack.Volume) error {
	names := slices.Sorted(maps.Keys(missing))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			errs[i] = rollout.CreateVolumes(ctx, targets[name], missing[name], specs, func(volume string) {
				s.emit(Event{Kind: KindVolume, Volume: &Volume{Name: volume, Target: name}})
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
