package deploy

import (
	"context"
	"errors"
	"testing"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

func TestComplete_Errors(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx  context.Context
		err  error
		want record.Run
	}{
		"another release is open": {t.Context(), &release.OpenError{Release: &record.Release{}}, record.Run{Base: 3, Skipped: true, OK: true, Outcome: "skipped"}},
		"the context ends":        {ended, errors.New("no"), record.Run{Base: 3, Outcome: "cancelled"}},
		"Nomad does not answer":   {t.Context(), &nomad.ClusterError{System: "Nomad"}, record.Run{Base: 3, Outcome: "unreachable"}},
		"no node has room":        {t.Context(), &rollout.Unplaceable{}, record.Run{Base: 3, Outcome: "placement-blocked"}},
		"it needs a person":       {t.Context(), &release.AttendedError{}, record.Run{Outcome: "error"}},
		"any other reason":        {t.Context(), errors.New("no"), record.Run{Base: 3, Outcome: "error"}},
	} {
		got := record.Run{Base: 3}
		complete(tt.ctx, &got, Result{}, tt.err)
		if tt.want.Detail = tt.err.Error(); got.Base != tt.want.Base || got.Skipped != tt.want.Skipped || got.OK != tt.want.OK || got.Outcome != tt.want.Outcome || got.Detail != tt.want.Detail {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}
