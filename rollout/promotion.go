package rollout

import "github.com/hashicorp/nomad/api"

// WaitsForPromotion reports whether an update of the job starts canaries that
// Nomad does not promote by itself.
func WaitsForPromotion(job *api.Job) bool {
	s := specOf(job)
	return s.manual && !s.noDeploy
}
