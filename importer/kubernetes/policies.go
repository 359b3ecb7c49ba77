package kubernetes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

// policies maps what scales workloads and keeps them available.
func (r *reader) policies() {
	for _, o := range r.all("HorizontalPodAutoscaler") {
		spec := o.node.Get("spec")
		low, ok := spec.Get("minReplicas").Int()
		if !ok {
			low = 1
		}
		name, kind := spec.Get("scaleTargetRef", "name").Text(), spec.Get("scaleTargetRef", "kind").Text()
		for _, p := range r.parts {
			if p.o.name == name && p.o.kind == kind && p.o.ns == o.ns && p.ordinal < 0 && !p.spec.Get("replicas").Exists() && low > 0 && low < 10000 {
				p.s.Count = count(int(low))
			}
		}
		o.node.Get("spec").Warn("scaling", fmt.Sprintf("%s has between %d and %s instances by its load; here it keeps one number", name, low, spec.Get("maxReplicas").Peek()), "Write a scaling block into the group, and run the Nomad Autoscaler.")
	}
	for _, o := range r.all("PodDisruptionBudget") {
		spec := o.node.Get("spec")
		spec.Get("unhealthyPodEvictionPolicy").Drop("Nomad moves unhealthy instances like the others")
		found := false
		for _, p := range r.parts {
			if p.o.ns != o.ns || !p.matches(spec.Get("selector")) {
				continue
			}
			found = true
			most := 0
			if v, ok := amount(spec.Get("maxUnavailable"), p.replicas, true); ok {
				most = v
			} else if v, ok := amount(spec.Get("minAvailable"), p.replicas, true); ok {
				most = p.replicas - v
			}
			if p.s.Kind == importer.KindSystem || p.s.Kind == importer.KindBatch || p.ordinal >= 0 {
				continue
			}
			p.s.MigrateParallel = max(most, 1)
		}
		spec.Get("selector").Take()
		if !found {
			dropRest(spec, "the budget is for no workload of the input")
			spec.Get("selector").Take()
		}
		for _, key := range []string{"maxUnavailable", "minAvailable"} {
			spec.Get(key).Take()
		}
	}
	for _, o := range r.objects {
		if strings.HasSuffix(o.group, "istio.io") {
			r.whole(o, "route", fmt.Sprintf("%s %s of Istio is not mapped", o.kind, o.name), "Write tags drover.route=HOST/PATH into the job, if it leads to a service from outside.")
		}
	}
}

// hooks orders the workloads that are hooks of a Helm release.
func (r *reader) hooks() {
	for _, o := range r.objects {
		n := o.node.Get("metadata", "annotations", "helm.sh/hook")
		if n == nil {
			continue
		}
		hook := n.Text()
		for _, key := range []string{"helm.sh/hook-weight", "helm.sh/hook-delete-policy"} {
			o.node.Get("metadata", "annotations", key).Drop("drover keeps jobs that have ended")
		}
		if !isWorkload(o) {
			continue
		}
		at := slices.IndexFunc(r.parts, func(p *part) bool { return p.o == o })
		if at < 0 {
			continue
		}
		p := r.parts[at]
		leave := func() {
			r.m.Services = slices.DeleteFunc(r.m.Services, func(s *importer.Service) bool { return s == p.s })
		}
		switch {
		case strings.Contains(hook, "test"):
			leave()
			r.ledger.LeaveOut(n.Pos(), fmt.Sprintf("%s is a test of the chart", o.name))
		case strings.Contains(hook, "pre-install") || strings.Contains(hook, "pre-upgrade"):
			for _, other := range r.parts {
				if other != p && other.o.node.Get("metadata", "annotations", "helm.sh/hook") == nil {
					other.s.DependsOn = append(other.s.DependsOn, p.label)
				}
			}
		case strings.Contains(hook, "post-install") || strings.Contains(hook, "post-upgrade"):
			for _, other := range r.parts {
				if other != p && other.o.node.Get("metadata", "annotations", "helm.sh/hook") == nil {
					p.s.DependsOn = append(p.s.DependsOn, other.label)
				}
			}
		default:
			leave()
			n.Warn("hook", fmt.Sprintf("%s would run at %s of the release, which drover does not have", o.name, hook), "Run it by hand: nomad job dispatch, or a batch job.")
		}
	}
}
