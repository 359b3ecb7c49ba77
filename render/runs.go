package render

import "github.com/hashicorp/nomad/api"

// HasRuns reports whether the allocations of a job belong to runs with an ID of their own:
// whether the job is periodic or parameterized.
func HasRuns(job *api.Job) bool { return job.IsPeriodic() || job.IsParameterized() }

// OwnVariable returns, for a template, the path of the Nomad Variable that a task may read
// without a policy: that of its job. A run of a periodic or parameterized job has an ID of
// its own, and reads the variable of its parent.
func OwnVariable(hasRuns bool) string {
	if hasRuns {
		return `(printf "nomad/jobs/%s" (env "NOMAD_JOB_PARENT_ID"))`
	}
	return `(printf "nomad/jobs/%s" (env "NOMAD_JOB_ID"))`
}
