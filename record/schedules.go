package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/stack"
)

// ErrNoSchedule means that there is no schedule of that name.
var ErrNoSchedule = errors.New("no such schedule")

// Schedule is what is kept of a schedule: what it does, whether it may, and
// what came of it lately.
type Schedule struct {
	stack.Schedule
	JobID  string // of the periodic job in Nomad
	Paused string // by whom and since when; "" when it is not
	Runs   []Run  // the newest last, at most keptRuns

	index   uint64
	items   map[string]string // of its variable that this drover does not know
	unknown unknown           // of the schedule itself
}

// keptRuns is how many runs are remembered.
const keptRuns = 40

// Run is one time that a schedule fired, or was not allowed to.
type Run struct {
	At      time.Time     `json:"at"`
	Job     string        `json:"job,omitempty"` // ID of the one that Nomad made for it; older drovers do not say it
	Skipped bool          `json:"skipped,omitempty"`
	Base    int           `json:"base,omitempty"`    // the release that was there
	Release int           `json:"release,omitempty"` // the one that it made
	Outcome string        `json:"outcome,omitempty"` // of the release, or of the check
	OK      bool          `json:"ok"`
	Detail  string        `json:"detail,omitempty"`
	Elapsed time.Duration `json:"elapsed_ns,omitempty"`

	unknown unknown
}

// Schedules are those of one stack in one environment, a Nomad Variable each:
// drover/stacks/STACK/ENV/schedules/NAME.
type Schedules struct {
	client     *api.Client
	stack, env string
	prefix     string
}

// OpenSchedules makes no request.
func OpenSchedules(client *api.Client, stackName, env string) *Schedules {
	return &Schedules{client: client, stack: stackName, env: env, prefix: Folder(stackName, env) + "/schedules/"}
}

// Stack returns the name of the stack.
func (s *Schedules) Stack() string { return s.stack }

// Environment returns the name of the environment, "" for none.
func (s *Schedules) Environment() string { return s.env }

func (s *Schedules) path(name string) string { return s.prefix + PathName(name) }

// Read returns a schedule; ErrNoSchedule when there is none.
func (s *Schedules) Read(ctx context.Context, name string) (*Schedule, error) {
	v, _, err := s.client.Variables().Peek(s.path(name), (&api.QueryOptions{}).WithContext(ctx))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading schedule %s: %w", name, err)
	case v == nil:
		return nil, fmt.Errorf("%w: %s", ErrNoSchedule, name)
	}
	if err := checkLayout(v.Items[variables.LayoutItem], "the items of "+v.Path); err != nil {
		return nil, &UnreadableError{v.Path, err}
	}
	out := &Schedule{JobID: v.Items["job"], Paused: v.Items["paused"], index: v.ModifyIndex}
	out.items = otherItems(v.Items, "schedule", "job", "paused", "runs")
	out.unknown, err = decodeKnown([]byte(v.Items["schedule"]), &out.Schedule, scheduleFields)
	if err := errors.Join(err, json.Unmarshal([]byte(v.Items["runs"]), &out.Runs)); err != nil {
		return nil, &UnreadableError{v.Path, err}
	}
	return out, nil
}

// List reads all, by name.
func (s *Schedules) List(ctx context.Context) ([]*Schedule, error) {
	metas, _, err := s.client.Variables().PrefixList(s.prefix, (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(metas) == 0 {
		err = variables.CheckList(ctx, s.client, strings.TrimSuffix(s.prefix, "/"))
	}
	if err != nil {
		return nil, fmt.Errorf("listing schedules: %w", err)
	}
	out := make([]*Schedule, len(metas))
	err = parallel.Each(len(metas), 8, func(i int) (err error) {
		out[i], err = s.Read(ctx, nameOf(strings.TrimPrefix(metas[i].Path, s.prefix)))
		return err
	})
	out = slices.DeleteFunc(out, func(s *Schedule) bool { return s == nil })
	slices.SortFunc(out, func(a, b *Schedule) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// Change applies f to a schedule, a new one if there is none, by
// check-and-set.
func (s *Schedules) Change(ctx context.Context, name string, f func(*Schedule)) (*Schedule, error) {
	var now *Schedule
	err := nomad.RetryConflict(ctx, func() (err error) {
		now, err = s.Read(ctx, name)
		if errors.Is(err, ErrNoSchedule) {
			now, err = &Schedule{Schedule: stack.Schedule{Name: name}}, nil
		}
		if err != nil {
			return err
		}
		f(now)
		if n := len(now.Runs) - keptRuns; n > 0 {
			now.Runs = now.Runs[n:]
		}
		spec, err := encodeKnown(now.Schedule, now.unknown)
		if err != nil {
			return fmt.Errorf("encoding schedule %s: %w", name, err)
		}
		runs, err := json.Marshal(now.Runs)
		if err != nil {
			return fmt.Errorf("encoding schedule %s: %w", name, err)
		}
		v := &api.Variable{Path: s.path(name), ModifyIndex: now.index, Items: map[string]string{
			variables.LayoutItem: layoutText, "schedule": string(spec), "job": now.JobID, "paused": now.Paused, "runs": string(runs),
		}}
		maps.Copy(v.Items, now.items)
		written, err := variables.Write(ctx, s.client, v, &api.WriteOptions{})
		if err != nil {
			return err
		}
		now.index = written.ModifyIndex
		return nil
	})
	if err != nil {
		return nil, err
	}
	return now, nil
}

// Remove forgets a schedule.
func (s *Schedules) Remove(ctx context.Context, name string) error {
	if err := variables.Delete(ctx, s.client, s.path(name), 0, &api.WriteOptions{}); err != nil {
		return fmt.Errorf("removing schedule %s: %w", name, err)
	}
	return nil
}
