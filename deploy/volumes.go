package deploy

import (
	"strings"

	"github.com/drover-nomad/drover/rollout"
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
