package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
)

// Problem is what is wrong with one variable of the record of a stack.
type Problem struct {
	Variable string `json:"variable"`
	Release  int    `json:"release,omitempty"` // 0 if it belongs to none
	Problem  string `json:"problem"`
	Repair   string `json:"repair,omitempty"` // what Repair does about it; "" if it can do nothing

	fix func(context.Context) error
}

// Checked is the result of Check.
type Checked struct {
	Stack       string    `json:"stack"`
	Environment string    `json:"environment"`
	Releases    []int     `json:"releases"` // that can be read whole
	Holder      *Holder   `json:"lock"`     // of the lock; nil if it is free
	Problems    []Problem `json:"problems"`
}

// Check reads every variable of the record. It does not report variables that the
// holder of the lock may be writing.
func (r *Releases) Check(ctx context.Context) (*Checked, error) {
	holder, err := r.Holder(ctx)
	var broken *UnreadableError
	if err != nil && !errors.As(err, &broken) {
		return nil, err
	}
	out, err := r.check(ctx, holder != nil)
	if err != nil {
		return nil, err
	}
	out.Holder = holder
	return out, nil
}

// Repair does what Check says, for those problems that show was given: it
// rebuilds what can be read of a broken release, as one that is abandoned, and
// deletes what cannot be read and what nothing names. It touches no job. The
// lock must be held.
func (r *Releases) Repair(ctx context.Context, shown []Problem) ([]Problem, error) {
	now, err := r.check(ctx, false)
	if err != nil {
		return nil, err
	}
	var done []Problem
	for _, p := range now.Problems {
		agreed := slices.ContainsFunc(shown, func(s Problem) bool { return s.Variable == p.Variable && s.Repair == p.Repair })
		if p.fix == nil || !agreed {
			continue
		}
		if err := p.fix(ctx); err != nil {
			return done, fmt.Errorf("cannot repair %s: %w", p.Variable, err)
		}
		done = append(done, p)
	}
	return done, nil
}

// found is what is in the record of one release.
type found struct {
	number   int
	head     *Release // nil if it is missing or cannot be read
	headErr  *UnreadableError
	index    uint64 // of the head's variable, 0 if there is none
	pages    map[int]uint64
	lines    []Service // that can be read
	pageErrs []*UnreadableError
}

func (f *found) newer() bool {
	return f.headErr != nil && f.headErr.Newer() || slices.ContainsFunc(f.pageErrs, (*UnreadableError).Newer)
}

func (f *found) whole() bool { return f.head != nil && len(f.pageErrs) == 0 }

// check reads the record; busy says that a deployer may be writing it.
func (r *Releases) check(ctx context.Context, busy bool) (*Checked, error) {
	list, _, err := r.client.Variables().PrefixList(r.folder+"/", (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(list) == 0 {
		err = variables.CheckList(ctx, r.client, r.folder+"/releases")
	}
	if err != nil {
		return nil, fmt.Errorf("listing the record of stack %s: %w", r.stack, err)
	}
	out := &Checked{Stack: r.stack, Environment: r.env, Releases: []int{}, Problems: []Problem{}}
	byNumber := map[int]*found{}
	release := func(text string) *found {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil
		}
		if byNumber[n] == nil {
			byNumber[n] = &found{number: n, pages: map[int]uint64{}}
		}
		return byNumber[n]
	}
	var blobs, schedules []string
	for _, v := range list {
		parts := strings.Split(strings.TrimPrefix(v.Path, r.folder+"/"), "/")
		switch {
		case parts[0] == "releases" && len(parts) == 2:
			if f := release(parts[1]); f != nil {
				f.index = v.ModifyIndex
			}
		case parts[0] == "releases" && len(parts) == 3:
			if page, err := strconv.Atoi(parts[2]); err == nil {
				if f := release(parts[1]); f != nil {
					f.pages[page] = v.ModifyIndex
				}
			}
		case parts[0] == "blobs" && len(parts) == 2:
			blobs = append(blobs, parts[1])
		case parts[0] == "schedules" && len(parts) == 2:
			schedules = append(schedules, nameOf(parts[1]))
		case v.Path == r.lockPath() && !variables.IsLocked(v.Lock, v.CreateIndex, v.ModifyIndex) && !busy:
			out.add(Problem{Variable: v.Path, Problem: "the lock of a holder that is gone", Repair: "delete it", fix: func(ctx context.Context) error {
				return nil // Lock has replaced it
			}})
		}
	}
	var all []*found
	for _, f := range byNumber {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *found) int { return b.number - a.number })
	if err := parallel.Each(len(all), 8, func(i int) error { return r.inspect(ctx, all[i]) }); err != nil {
		return nil, err
	}
	for _, f := range all {
		r.judge(out, f, all, busy)
	}
	if err := r.checkBlobs(ctx, out, all, blobs); err != nil {
		return nil, err
	}
	store := OpenSchedules(r.client, r.stack, r.env)
	errs := make([]error, len(schedules))
	if err := parallel.Each(len(schedules), 8, func(i int) error {
		_, err := store.Read(ctx, schedules[i])
		var broken *UnreadableError
		if errors.As(err, &broken) {
			errs[i] = err
			err = nil
		}
		if errors.Is(err, ErrNoSchedule) {
			err = nil // just removed
		}
		return err
	}); err != nil {
		return nil, err
	}
	for i, err := range errs {
		if err != nil {
			out.add(Problem{Variable: store.path(schedules[i]), Problem: err.Error() + "; delete it with `nomad var purge` and run `drover schedule apply`"})
		}
	}
	return out, nil
}

func (c *Checked) add(p Problem) { c.Problems = append(c.Problems, p) }

// inspect reads the head and the pages of a release.
func (r *Releases) inspect(ctx context.Context, f *found) error {
	if f.index > 0 {
		head, err := r.Read(ctx, f.number)
		switch {
		case errors.Is(err, ErrNoRelease):
			f.index = 0 // just removed
		case errors.As(err, &f.headErr):
		case err != nil:
			return err
		default:
			f.head = head
			for i := range head.Pages {
				if _, there := f.pages[i]; !there {
					f.pages[i] = 0
				}
			}
		}
	}
	for _, i := range sortedPages(f.pages) {
		p, _, err := r.readPage(ctx, f.number, i)
		var broken *UnreadableError
		switch {
		case f.head != nil && i >= f.head.Pages: // see judge
		case errors.As(err, &broken):
			f.pageErrs = append(f.pageErrs, broken)
		case err != nil:
			return err
		default:
			f.lines = append(f.lines, p.Services...)
		}
	}
	return nil
}

func sortedPages(pages map[int]uint64) []int {
	var out []int
	for i := range pages {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

// judge finds the problems of a release.
func (r *Releases) judge(out *Checked, f *found, all []*found, busy bool) {
	if f.whole() {
		out.Releases = append(out.Releases, f.number)
	}
	switch {
	case f.newer():
		for _, e := range append([]*UnreadableError{f.headErr}, f.pageErrs...) {
			if e != nil {
				out.add(Problem{Variable: e.Path, Release: f.number, Problem: e.Error()})
			}
		}
	case f.headErr != nil:
		p := Problem{Variable: f.headErr.Path, Release: f.number, Problem: f.headErr.Err.Error(), Repair: "remove the release from the list"}
		p.fix = func(ctx context.Context) error { return r.removeAll(ctx, f) }
		if len(f.lines) > 0 {
			p.Repair = fmt.Sprintf("rebuild the release, as an abandoned one, from the %d services that can be read", len(f.lines))
			p.fix = func(ctx context.Context) error { return r.rebuild(ctx, f, all) }
		}
		out.add(p)
	case f.head == nil && busy:
	case f.head == nil && slices.ContainsFunc(f.lines, begun):
		out.add(Problem{
			Variable: r.headPath(f.number), Release: f.number, Problem: "the head of the release is missing",
			Repair: fmt.Sprintf("rebuild the release, as an abandoned one, from the %d services that can be read", len(f.lines)),
			fix:    func(ctx context.Context) error { return r.rebuild(ctx, f, all) },
		})
	case f.head == nil:
		out.add(Problem{
			Variable: r.headPath(f.number), Release: f.number, Problem: "services of a release that was never begun", Repair: "delete them",
			fix: func(ctx context.Context) error { return r.removeAll(ctx, f) },
		})
	case len(f.pageErrs) > 0:
		for i, e := range f.pageErrs {
			p := Problem{Variable: e.Path, Release: f.number, Problem: e.Err.Error(), Repair: "see the first page of the release"}
			if i == 0 {
				p.Repair = fmt.Sprintf("mark the release as abandoned, with the %d of its services that can be read", len(f.lines))
				p.fix = func(ctx context.Context) error { return r.rebuild(ctx, f, all) }
			}
			out.add(p)
		}
	default:
		for _, i := range sortedPages(f.pages) {
			if i >= f.head.Pages && !busy {
				path := r.pagePath(f.number, i)
				out.add(Problem{Variable: path, Release: f.number, Problem: "the head of the release does not name this page", Repair: "delete it", fix: func(ctx context.Context) error {
					return variables.Delete(ctx, r.client, path, 0, &api.WriteOptions{})
				}})
			}
		}
	}
}

// begun reports whether a release has done something for a service. Lines are
// written before the head, and nothing is done before the head is there.
func begun(s Service) bool { return s.Step != StepPending && s.Step != StepUnchanged }

// checkBlobs finds blobs that cannot be read, and that are missing. One that no release
// names is no problem: see [Releases.Keep].
func (r *Releases) checkBlobs(ctx context.Context, out *Checked, all []*found, digests []string) error {
	broken := make([]*UnreadableError, len(digests))
	err := parallel.Each(len(digests), 8, func(i int) error {
		err := r.checkBlob(ctx, digests[i])
		if errors.As(err, &broken[i]) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for i, digest := range digests {
		if broken[i] == nil {
			there[digest] = true
			continue
		}
		there[digest] = broken[i].Newer()
		p := Problem{Variable: broken[i].Path, Problem: broken[i].Err.Error()}
		if !broken[i].Newer() {
			p.Repair, p.fix = "delete it; the next release that needs it writes it again", func(ctx context.Context) error {
				return variables.Delete(ctx, r.client, p.Variable, 0, &api.WriteOptions{})
			}
		}
		out.add(p)
	}
	named := map[string]bool{}
	for _, f := range all {
		need := func(digest, what string) {
			if digest == "" || named[digest] {
				return
			}
			named[digest] = true
			if !there[digest] {
				out.add(Problem{Variable: r.blobPath(digest), Release: f.number, Problem: fmt.Sprintf("release %d lacks %s; no rollback can restore it", f.number, what)})
			}
		}
		if f.head != nil {
			need(f.head.Values, "the variables' values")
			need(f.head.Checks, "the checks of the stack")
		}
		for _, l := range f.lines {
			need(l.Spec, "the job spec of service "+l.Name)
			need(l.Before, "the former job spec of service "+l.Name)
		}
	}
	return nil
}

// checkBlob reads a blob, or a part of a plan.
func (r *Releases) checkBlob(ctx context.Context, digest string) error {
	path := r.blobPath(digest)
	v, _, err := r.client.Variables().Peek(path, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if v == nil {
		return nil // just removed
	}
	if err := checkLayout(v.Items[variables.LayoutItem], "the items of "+path); err != nil {
		return &UnreadableError{path, err}
	}
	if part, ok := v.Items["part"]; ok {
		if Digest([]byte(part)) != digest {
			return &UnreadableError{path, errContent}
		}
		return nil
	}
	_, err = decodeBlob(v, digest)
	return err
}

// removeAll deletes the head and every page of a release.
func (r *Releases) removeAll(ctx context.Context, f *found) error {
	if f.index > 0 {
		if err := variables.Delete(ctx, r.client, r.headPath(f.number), f.index, &api.WriteOptions{}); err != nil {
			return err
		}
	}
	var paths []string
	for i := range f.pages {
		paths = append(paths, r.pagePath(f.number, i))
	}
	return r.deleteAll(ctx, paths)
}

// rebuild writes a release from what can be read of it. It is abandoned: its
// jobs stay, belong to the stack, and the next deploy starts from them; nothing
// goes back to it, since it may lack services.
func (r *Releases) rebuild(ctx context.Context, f *found, all []*found) error {
	const detail = "rebuilt by `drover record repair`"
	now := time.Now().UTC()
	head := f.head
	if head == nil {
		head = &Release{Number: f.number, Stack: r.stack, Environment: r.env, Kind: "deploy", OnFailure: "stop", Started: now, index: f.index}
		for _, l := range f.lines {
			if !l.Started.IsZero() && l.Started.Before(head.Started) {
				head.Started = l.Started
			}
			switch {
			case l.Change == ChangeStop:
				head.Pruned++
			case l.Change != ChangeNone:
				head.Changed++
			}
		}
	}
	targets, err := targetsOf(f, all)
	if err != nil {
		return err
	}
	var list []json.RawMessage
	var lines []Service
	for _, l := range f.lines {
		raw, known := targets[l.Target]
		if !known {
			continue // of a target whose address no release has
		}
		lines = append(lines, l)
		if raw != nil && !slices.ContainsFunc(list, func(have json.RawMessage) bool { return string(have) == string(raw) }) {
			list = append(list, raw)
		}
	}
	if f.head == nil {
		if head.Targets, err = json.Marshal(list); err != nil {
			return err
		}
		head.Total = len(lines) - head.Pruned
		if err := r.storePlan(ctx, head); err != nil {
			return err
		}
	}
	head.State, head.Cause, head.Detail, head.Ended = Abandoned, "", detail, now
	head.Owner = Digest(fmt.Append(nil, now.UnixNano(), f.number)) // a former owner cannot write any more
	pages, err := r.paged(lines)
	if err != nil {
		return err
	}
	head.Pages = len(pages)
	for i, services := range pages {
		if _, err := r.writePage(ctx, f.number, i, page{Owner: head.Owner, Services: services}, f.pages[i]); err != nil {
			return err
		}
	}
	if err := r.Save(ctx, head); err != nil {
		return err
	}
	var rest []string
	for i := range f.pages {
		if i >= head.Pages {
			rest = append(rest, r.pagePath(f.number, i))
		}
	}
	return r.deleteAll(ctx, rest)
}

// targetsOf are the targets that releases have recorded, by name: those of f
// itself, else of the newest release that knows the name. The target without a
// name is where the record is, also if no release has recorded it.
func targetsOf(f *found, all []*found) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	for _, from := range append([]*found{f}, all...) {
		if from.head == nil || len(from.head.Targets) == 0 {
			continue
		}
		var list []json.RawMessage
		if err := json.Unmarshal(from.head.Targets, &list); err != nil {
			return nil, fmt.Errorf("the targets of release %d are not readable: %w", from.number, err)
		}
		for _, raw := range list {
			var named struct{ Name string }
			if err := json.Unmarshal(raw, &named); err != nil {
				return nil, fmt.Errorf("the targets of release %d are not readable: %w", from.number, err)
			}
			if out[named.Name] == nil {
				out[named.Name] = raw
			}
		}
	}
	if out[""] == nil {
		out[""] = json.RawMessage(`{"Name":""}`)
	}
	return out, nil
}
