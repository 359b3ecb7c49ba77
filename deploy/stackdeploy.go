package deploy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// stackDeploy deploys one stack: that of the verb, or one that has to run first.
type stackDeploy struct {
	*maker
	verb    *Deploy
	stack   *stack.Stack
	jobs    []render.Job
	saved   *release.Saved // nil when the files were rendered now
	partial bool
	dns     string // digest of the DNS records that the controller got

	clients map[string]nomad.Clients           // of targets
	create  map[string][]rollout.MissingVolume // volumes that the release creates, by target
}

// connect reaches the clusters and finds the namespaces of all jobs and of the
// record.
func (d *stackDeploy) connect(ctx context.Context, s *stream, agreed map[string]bool) error {
	var err error
	if d.clients, err = d.verb.Home.Targets(ctx, d.stack.Targets, d.jobs, true); err != nil {
		return err
	}
	home, ok := d.clients[""]
	if !ok {
		if home, err = d.verb.Home.Connect(ctx, false); err != nil {
			return err
		}
	}
	errs := []error{rollout.CheckNamespaces(ctx, home, nil)}
	for _, name := range TargetNames(d.jobs) {
		errs = append(errs, rollout.CheckNamespaces(ctx, d.clients[name], JobsIn(d.jobs, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	v := d.verb
	d.maker = s.newMaker(&v.Home, &v.Limits, v.Person, home, d.stack.Name, d.stack.Environment)
	d.agreed, d.replace = agreed, v.Replace || d.saved != nil // which showed what it recreates
	d.d.Operator, d.d.Keep, d.d.Rollout.Replace = d, v.New.Keep, d.replace
	d.d.Dial = v.Home.dialer(d.clients)
	return nil
}

// needs finds what the jobs need and do not have: jobs that run first, and volumes.
// Early is before the edge and the controller are deployed.
func (d *stackDeploy) needs(ctx context.Context, early bool) error {
	required := d.stack.RequiresJobs
	if early {
		required = slices.DeleteFunc(slices.Clone(required), func(id string) bool { return id == edge.ServiceName || id == edge.Controller })
	}
	var volumes []rollout.MissingVolume
	d.create = map[string][]rollout.MissingVolume{}
	for _, name := range TargetNames(d.jobs) {
		c, here := d.clients[name], JobsIn(d.jobs, name)
		if err := rollout.CheckRequired(ctx, c, required); err != nil {
			return err
		}
		if err := rollout.CheckCSIVolumes(ctx, c, here); err != nil {
			return err
		}
		if !early { // the certificates of the stack come before it
			if err := checkStored(ctx, c, here); err != nil {
				return err
			}
		}
		missing, err := rollout.MissingVolumes(ctx, c, here, d.stack.Volumes)
		if err != nil {
			return err
		}
		if d.verb.CreateVolumes {
			d.create[name] = missing
			missing = slices.DeleteFunc(slices.Clone(missing), rollout.MissingVolume.Creatable)
		}
		volumes = append(volumes, missing...)
	}
	if len(volumes) > 0 {
		return &MissingVolumesError{volumes}
	}
	return nil
}

// request is the release that is asked for.
func (d *stackDeploy) request() (release.Request, error) {
	values, err := valuesOf(d.stack)
	if err != nil {
		return release.Request{}, err
	}
	v := d.verb
	req := release.RequestFor(d.stack, d.jobs, values)
	v.New.apply(&req)
	req.Partial, req.DNS, req.Forget = d.partial, d.dns, v.Forget
	req.Prune = v.New.Prune || d.saved != nil // which was looked at
	req.Volumes = d.create
	return req, nil
}

// Agree implements release.Operator. A saved plan has to be what it was.
func (d *stackDeploy) Agree(ctx context.Context, p *release.Plan) error {
	d.planned(p)
	if err := d.mayMake(p); err != nil {
		return err
	}
	return d.confirmPrune(ctx, p)
}

// mayMake returns an error if the plan does what was not asked for, or not what the
// saved plan showed.
func (d *stackDeploy) mayMake(p *release.Plan) error {
	if err := d.allowed(p); err != nil || d.saved == nil {
		return err
	}
	return cmp.Or(d.saved.Check(p), checkSecrets(d.saved.Secrets, p.Secrets()))
}

// check returns an error if the release would be refused. It writes nothing, and
// reports the plan only to ask about it.
func (d *stackDeploy) check(ctx context.Context) error {
	req, err := d.request()
	if err != nil {
		return err
	}
	p, err := d.d.Plan(ctx, req)
	if err != nil {
		return err
	}
	if err := d.mayMake(p); err != nil {
		return err
	}
	if p.PruneAllowed() == nil {
		return nil
	}
	d.planned(p)
	return d.confirmPrune(ctx, p)
}

// rollout makes the release and completes end.
func (d *stackDeploy) rollout(ctx context.Context, end *End) error {
	d.names(end)
	req, err := d.request()
	if err != nil {
		return err
	}
	res, err := d.d.Make(ctx, req)
	if err != nil {
		return err
	}
	if r := res.Release; r != nil && r.State == record.Done && !req.Partial {
		return end.outcome(res) // DNS is looked after with the stack's files
	}
	return d.settle(ctx, res, end)
}

// valuesOf returns the values of a stack's variables as JSON, for the record, which
// holds no secrets.
func valuesOf(s *stack.Stack) (json.RawMessage, error) {
	values := map[string]ctyjson.SimpleJSONValue{}
	for name, v := range s.PublicValues() {
		values[name] = ctyjson.SimpleJSONValue{Value: v}
	}
	text, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("encoding the values of the variables: %w", err)
	}
	return text, nil
}
