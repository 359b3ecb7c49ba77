// Package nomad holds what the other packages need to know of Nomad in common.
package nomad

import (
	"cmp"

	"github.com/hashicorp/nomad/api"
)

// JobID identifies a job in one cluster. All of its fields are resolved: two
// jobs are one and the same exactly if their JobIDs are equal.
type JobID struct {
	Region    string // "" if the region of the client is not known
	Namespace string
	ID        string
}

// Defaults are the region and the namespace that Nomad uses for a request of
// one client that names none. The zero value knows no region and has the
// namespace "default".
type Defaults struct {
	Region    string // "" if it is not known: regions are then not compared
	Namespace string // "" for "default"
}

// JobID resolves the identity of a job whose spec or record has the given
// region and namespace, "" for those of the client.
func (d Defaults) JobID(region, namespace, id string) JobID {
	out := JobID{
		Region:    cmp.Or(region, d.Region),
		Namespace: cmp.Or(namespace, d.Namespace, api.DefaultNamespace),
		ID:        id,
	}
	if d.Region == "" {
		out.Region = ""
	}
	return out
}

// Of resolves the identity of a job. job.ID must not be nil.
func (d Defaults) Of(job *api.Job) JobID {
	return d.JobID(Deref(job.Region), Deref(job.Namespace), *job.ID)
}

// Deref returns the value of an optional field of Nomad's API, or the zero value
// if p is nil.
func Deref[T any](p *T) T {
	var zero T
	return DerefOr(p, zero)
}

// DerefOr returns the value of an optional field of Nomad's API, or otherwise if
// p is nil.
func DerefOr[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
