// Package render merges the layers of a stack into plain Nomad job specs and
// evaluates them with Nomad's own jobspec2.
package render

import (
	"fmt"
	"regexp"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/stack"
)

// Job is one service of a stack after merging and evaluation.
type Job struct {
	Service   string   // name in the stack
	Target    string   // name of the target, "" where the environment has none
	DependsOn []string // names of services in the same stack and target
	Secrets   []string // items that the job's variable at nomad/jobs/<ID> holds

	stack.Limits

	// HCL is the merged, self-contained job spec that Job was made from:
	// `nomad job run` accepts it.
	HCL  []byte
	File string // the service's file, for messages
	Job  *api.Job

	// Counts are the counts that the stack asked for in groups with a scaling
	// block, by group, of a job that was read from a record or a saved plan:
	// Job may have others, to which they were scaled. Nil means those of Job; a
	// group that is missing is not known.
	Counts map[string]int

	source *sourceMap // of HCL, nil when it is not a merged text
}

// Name returns SERVICE, or SERVICE@TARGET if the environment has targets.
func (j Job) Name() string {
	if j.Target == "" {
		return j.Service
	}
	return j.Service + "@" + j.Target
}

// VariablePath is the path of the Nomad Variable that the tasks of the job may
// read without a policy.
func (j Job) VariablePath() string { return "nomad/jobs/" + *j.Job.ID }

// variablePath is what Nomad takes as the path of a variable
// (validVariablePath in nomad/structs/variables.go).
var variablePath = regexp.MustCompile(`^[a-zA-Z0-9-_~/]{1,128}$`)

// IsVariablePath reports whether Nomad takes path as that of a variable.
func IsVariablePath(path string) bool { return variablePath.MatchString(path) }

// CheckSecrets returns an error when the job reads secrets and Nomad has no
// variable for a job of its ID.
func (j Job) CheckSecrets() error {
	if len(j.Secrets) == 0 || IsVariablePath(j.VariablePath()) {
		return nil
	}
	return fmt.Errorf("job %q cannot read secrets: Nomad takes no variable at %s; use letters, digits, - and _ in the ID, at most %d",
		*j.Job.ID, j.VariablePath(), 128-len("nomad/jobs/"))
}
