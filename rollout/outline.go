package rollout

import (
	"encoding/json"

	"github.com/hashicorp/nomad/api"
)

// The fields of an api.Job, by name, that an outline has.
type (
	outlineJob struct {
		ID                            *string
		Name, Region, Namespace, Type *string   `json:",omitempty"`
		Periodic, ParameterizedJob    *struct{} `json:",omitempty"`
		TaskGroups                    []outlineGroup
	}
	outlineGroup struct {
		Name     *string
		Count    *int             `json:",omitempty"`
		Services []outlineService `json:",omitempty"`
		Tasks    []outlineTask    `json:",omitempty"`
	}
	outlineTask struct {
		Name      string
		Lifecycle *api.TaskLifecycle `json:",omitempty"`
		Services  []outlineService
	}
	outlineService struct {
		Name, Provider, PortLabel, OnUpdate string          `json:",omitempty"`
		Checks                              []outlineCheck  `json:",omitempty"`
		Connect                             *outlineConnect `json:",omitempty"`
	}
	outlineCheck struct {
		Name, OnUpdate string `json:",omitempty"`
	}
	outlineConnect struct{ SidecarService struct{} }
)

// Outline returns what Status needs of a job, as the JSON of a job with few fields,
// so that a caller can keep it instead of the whole spec; see FromOutline. It is nil
// for a job of which more may be needed: one that mounts a volume (see LostVolumes),
// and one that runs to completion, which is compared with what ran.
func Outline(job *api.Job) json.RawMessage {
	if RunsToCompletion(job) {
		return nil
	}
	out := outlineJob{ID: job.ID, Name: job.Name, Region: job.Region, Namespace: job.Namespace, Type: job.Type}
	if job.Periodic != nil {
		out.Periodic = &struct{}{}
	}
	if job.ParameterizedJob != nil {
		out.ParameterizedJob = &struct{}{}
	}
	for _, g := range job.TaskGroups {
		if len(g.Volumes) > 0 {
			return nil
		}
		group := outlineGroup{Name: g.Name, Count: g.Count, Services: outlineServices(g.Services)}
		for _, t := range g.Tasks {
			if len(t.Services) > 0 {
				group.Tasks = append(group.Tasks, outlineTask{t.Name, t.Lifecycle, outlineServices(t.Services)})
			}
		}
		out.TaskGroups = append(out.TaskGroups, group)
	}
	text, err := json.Marshal(out)
	if err != nil {
		return nil // strings and numbers do not fail
	}
	return text
}

// outlineServices returns what package consul reads of services.
func outlineServices(services []*api.Service) []outlineService {
	var out []outlineService
	for _, s := range services {
		o := outlineService{Name: s.Name, Provider: s.Provider, PortLabel: s.PortLabel, OnUpdate: s.OnUpdate}
		for _, c := range s.Checks {
			o.Checks = append(o.Checks, outlineCheck{c.Name, c.OnUpdate})
		}
		if s.Connect != nil && s.Connect.SidecarService != nil {
			o.Connect = &outlineConnect{}
		}
		out = append(out, o)
	}
	return out
}

// FromOutline returns the job of an outline, nil if there is none.
func FromOutline(outline json.RawMessage) *api.Job {
	job := &api.Job{}
	if outline == nil || json.Unmarshal(outline, job) != nil || job.ID == nil {
		return nil
	}
	return job
}
