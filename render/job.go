// Package render merges the layers of a stack into plain Nomad job specs and
// evaluates them with Nomad's own jobspec2.
package render

import "github.com/hashicorp/nomad/api"

// Job is one service of a stack after merging and evaluation.
type Job struct {
	Service   string   // name in the stack
	DependsOn []string // names of services in the same stack
	Secrets   []string // items that the job's variable at nomad/jobs/<ID> holds

	// HCL is the merged, self-contained job spec that Job was made from:
	// `nomad job run` accepts it.
	HCL  []byte
	File string // the service's file, for messages
	Job  *api.Job

	source *sourceMap // of HCL, nil when it is not a merged text
}
