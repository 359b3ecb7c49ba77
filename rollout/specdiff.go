package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// SpecChanges lists the attributes that differ between two job specs, in the
// words of a plan ([FieldChange]). It fills in the defaults that Nomad fills in
// when it registers a job, so a spec from a file and the same spec read from
// Nomad do not differ. Values of attributes whose name suggests a secret are
// hidden. Neither job is changed. It returns an error if a job cannot be
// encoded as JSON.
func SpecChanges(old, now *api.Job) ([]FieldChange, error) {
	was, err := specLeaves(old)
	if err != nil {
		return nil, err
	}
	is, err := specLeaves(now)
	if err != nil {
		return nil, err
	}
	paths := slices.AppendSeq(slices.Collect(maps.Keys(was)), maps.Keys(is))
	slices.Sort(paths)
	var out []FieldChange
	for _, path := range slices.Compact(paths) {
		before, had := was[path]
		after, has := is[path]
		if before == after {
			continue
		}
		c := FieldChange{Path: path, Kind: FieldEdited, Old: before, New: after}
		switch {
		case !had:
			c.Kind = FieldAdded
		case !has:
			c.Kind = FieldDeleted
		}
		c.hide(func(s string) string { return s })
		out = append(out, c)
	}
	return out, nil
}

// specLeaves maps the path of each attribute that has a value to that value.
func specLeaves(job *api.Job) (map[string]string, error) {
	text, err := json.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("cannot encode job %q: %w", nomad.Deref(job.ID), err)
	}
	canonical := &api.Job{}
	if err := json.Unmarshal(text, canonical); err != nil {
		return nil, fmt.Errorf("cannot decode job %q: %w", nomad.Deref(job.ID), err)
	}
	canonical.Canonicalize()
	dropServerFields(canonical)
	fillServerDefaults(canonical)
	if text, err = json.Marshal(canonical); err != nil {
		return nil, fmt.Errorf("cannot encode job %q: %w", nomad.Deref(job.ID), err)
	}
	var tree map[string]any
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("cannot decode job %q: %w", nomad.Deref(job.ID), err)
	}
	leaves := map[string]string{}
	flattenObject("", tree, leaves)
	return leaves, nil
}

// dropServerFields removes what only the server writes into a job, and the
// constraints that it adds for what the job uses (job_endpoint_hooks.go in
// Nomad).
func dropServerFields(job *api.Job) {
	job.Stop, job.ParentID, job.Payload, job.NomadTokenID, job.VersionTag = nil, nil, nil, nil, nil
	job.Status, job.StatusDescription, job.Stable, job.Version, job.SubmitTime = nil, nil, nil, nil, nil
	job.CreateIndex, job.ModifyIndex, job.JobModifyIndex = nil, nil, nil
	job.Dispatched, job.DispatchIdempotencyToken = false, nil
	implied := func(list []*api.Constraint) []*api.Constraint {
		return slices.DeleteFunc(list, func(c *api.Constraint) bool {
			switch c.LTarget {
			case "${attr.consul.version}", "${attr.nomad.service_discovery}", "${attr.vault.version}", "${attr.nomad.bridge.hairpin_mode}", "${attr.consul.connect}", "${attr.consul.grpc}":
				return true
			}
			return strings.HasPrefix(c.LTarget, "${attr.os.signals}") || strings.HasPrefix(c.LTarget, "${attr.plugins.cni.version.")
		})
	}
	job.Constraints = implied(job.Constraints)
	for _, g := range job.TaskGroups {
		g.Constraints = implied(g.Constraints)
		for _, t := range g.Tasks {
			t.Constraints = implied(t.Constraints)
		}
	}
}

// fillServerDefaults fills in what the server does and api.Job.Canonicalize does
// not.
func fillServerDefaults(job *api.Job) {
	if nomad.Deref(job.NodePool) == "" {
		pool := api.NodePoolDefault
		job.NodePool = &pool
	}
	if len(job.Datacenters) == 0 {
		job.Datacenters = []string{"*"}
	}
	job.Update = nil // each group has it merged into its own
	network := func(list []*api.NetworkResource) {
		for _, n := range list {
			for _, ports := range [][]api.Port{n.DynamicPorts, n.ReservedPorts} {
				for i := range ports {
					ports[i].HostNetwork = cmp.Or(ports[i].HostNetwork, "default")
				}
			}
		}
	}
	services := func(list []*api.Service) {
		for _, s := range list {
			for i := range s.Checks {
				s.Checks[i].Name = cmp.Or(s.Checks[i].Name, fmt.Sprintf("service: %q check", s.Name))
			}
		}
	}
	for _, g := range job.TaskGroups {
		network(g.Networks)
		services(g.Services)
		for _, t := range g.Tasks {
			services(t.Services)
			if t.Resources != nil {
				network(t.Resources.Networks)
			}
			if id := t.Identity; id != nil && cmp.Or(id.Name, "default") == "default" && !id.Env && !id.File {
				t.Identity = nil // every task has it
			}
		}
	}
}

// flattenObject adds the leaves of one block at the path at.
func flattenObject(at string, object map[string]any, leaves map[string]string) {
	for name, v := range object {
		switch v := v.(type) {
		case []any:
			flattenList(at, name, v, leaves)
		case map[string]any:
			if name == "Env" || name == "Meta" {
				for key, inner := range v {
					addLeaf(join(at, name+"["+key+"]"), key, inner, leaves)
				}
				continue
			}
			flattenObject(join(at, name), v, leaves)
		default:
			addLeaf(join(at, name), name, v, leaves)
		}
	}
}

// blockNames are lists of blocks: each block has the singular name in a job
// spec and in a plan.
var blockNames = map[string]string{
	"Constraints": "Constraint", "Affinities": "Affinity", "Spreads": "Spread", "SpreadTarget": "Target", "Networks": "Network",
	"Services": "Service", "Checks": "Check", "Templates": "Template", "Artifacts": "Artifact", "VolumeMounts": "VolumeMount",
	"Devices": "Device", "Identities": "Identity", "Actions": "Action", "Upstreams": "Upstreams", "ReservedPorts": "StaticPort",
	"DynamicPorts": "DynamicPort", "Secrets": "Secret",
}

func flattenList(at, name string, list []any, leaves map[string]string) {
	var words []string
	for i, v := range list {
		object, ok := v.(map[string]any)
		if !ok {
			words = append(words, fmt.Sprint(v))
			continue
		}
		label := ""
		for _, key := range []string{"Name", "DestPath", "Label", "Destination", "GetterSource", "LTarget", "Attribute"} {
			if text, ok := object[key].(string); ok && text != "" {
				label = text
				break
			}
		}
		switch {
		case name == "TaskGroups":
			flattenObject("group."+label, object, leaves)
			continue
		case name == "Tasks":
			flattenObject(at+".task."+label, object, leaves)
			continue
		case label == "" && len(list) > 1:
			label = strconv.Itoa(i)
		}
		path := join(at, name)
		if singular := blockNames[name]; singular != "" {
			path = join(at, singular)
		}
		if label != "" {
			path += "[" + label + "]"
		}
		flattenObject(path, object, leaves)
	}
	if len(words) > 0 {
		leaves[join(at, name)] = strings.Join(words, ", ")
	}
}

// addLeaf leaves out what has no value: Nomad writes "", 0 and false for what a
// spec does not say.
func addLeaf(path, name string, v any, leaves map[string]string) {
	var text string
	switch v := v.(type) {
	case nil:
	case string:
		text = v
	case bool:
		if v {
			text = "true"
		}
	case json.Number:
		if text = v.String(); text == "0" {
			text = ""
		}
		text = spelled(name, text)
	default:
		text = fmt.Sprint(v)
	}
	if text != "" {
		leaves[path] = text
	}
}
