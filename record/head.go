package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
)

// A head of layout 1 is plain JSON in one item, as every drover reads it. One
// that would pass the limit of a variable while its release runs has layout 2:
//
//	release  the head as plain JSON, without its waves and targets
//	waves    how each wave stands: []Wave, compressed
//	plan     the digests of the parts of its plan, which never changes: the
//	         targets, and of each wave its name and gate; it is compressed, and
//	         split over as many blobs as it needs
//
// An older drover refuses layout 2 as written by a newer one.
const planLayout = 2

// plan is the part of a head that never changes and grows with the number of
// services and targets.
type plan struct {
	Targets json.RawMessage `json:"targets,omitempty"`
	Waves   []Wave          `json:"waves,omitempty"`
}

// HeadTooLargeError reports that the head of a release does not fit into a
// Nomad Variable.
type HeadTooLargeError struct {
	Waves int
	Size  int // of the head when its release has ended, in bytes
}

func (e *HeadTooLargeError) Error() string {
	return fmt.Sprintf("the record of a release with %d waves has up to %d KiB compressed and a Nomad Variable takes 64; use fewer waves, or a shorter message",
		e.Waves, (e.Size+1023)>>10)
}

// UnreadableError reports that the content of a variable of the record cannot
// be used. Nomad has answered: a retry would not help.
type UnreadableError struct {
	Path string // of the variable
	Err  error
}

func (e *UnreadableError) Error() string {
	var newer *variables.NewerLayoutError
	if errors.As(e.Err, &newer) {
		return e.Err.Error()
	}
	return fmt.Sprintf("cannot read %s: %s", e.Path, e.Err)
}

func (e *UnreadableError) Unwrap() error { return e.Err }

// Newer reports whether a newer drover wrote the variable, so that it is not
// broken.
func (e *UnreadableError) Newer() bool {
	var newer *variables.NewerLayoutError
	return errors.As(e.Err, &newer)
}

// OwnerOf returns the stack and environment whose record a variable belongs to.
func OwnerOf(path string) (stackName, env string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, stacksFolder), "/")
	if !strings.HasPrefix(path, stacksFolder) || len(parts) < 3 {
		return "", "", false
	}
	return nameOf(parts[0]), nameOf(parts[1]), true
}

// detailLimit is the size in bytes to which the details of a head are
// shortened.
const detailLimit = 2000

// clip shortens a text to at most limit bytes, at the end of a character.
func clip(s string, limit int) string {
	const dots = "…"
	if len(s) <= limit {
		return s
	}
	if limit < len(dots) {
		return ""
	}
	end := limit - len(dots)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + dots
}

// decodeHead reads the head in a variable, with its plan.
func (r *Releases) decodeHead(ctx context.Context, v *api.Variable) (*Release, error) {
	head := &Release{}
	err := variables.CheckLayout(v.Items[variables.LayoutItem], "the items of "+v.Path, planLayout)
	if err == nil {
		err = json.Unmarshal([]byte(v.Items["release"]), head)
	}
	if text := v.Items["plan"]; err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &head.plan)
	}
	if err == nil && len(head.plan) > 0 {
		err = variables.Unpack(v.Items["waves"], &head.Waves)
	}
	if err != nil {
		return nil, &UnreadableError{v.Path, err}
	}
	head.index, head.items = v.ModifyIndex, otherItems(v.Items, "release", "plan", "waves")
	if len(head.plan) == 0 {
		return head, nil
	}
	p, err := r.readPlan(ctx, head.plan)
	if err != nil {
		return nil, err
	}
	if len(p.Waves) != len(head.Waves) {
		return nil, &UnreadableError{v.Path, fmt.Errorf("it has %d waves and its plan %d", len(head.Waves), len(p.Waves))}
	}
	head.Targets = p.Targets
	for i, static := range p.Waves {
		w := &head.Waves[i]
		w.Name, w.Gate = static.Name, static.Gate
	}
	return head, nil
}

// headItems are the items of the variable of a head.
func headItems(head *Release) (map[string]string, error) {
	out := *head
	out.Detail = clip(out.Detail, detailLimit)
	out.Waves = slices.Clone(head.Waves)
	for i := range out.Waves {
		out.Waves[i].Detail = clip(out.Waves[i].Detail, detailLimit)
	}
	items := map[string]string{variables.LayoutItem: layoutText}
	maps.Copy(items, head.items)
	if len(head.plan) > 0 {
		states := out.Waves
		for i := range states {
			states[i].Name, states[i].Gate = "", nil
		}
		out.Waves, out.Targets = nil, nil
		digests, err := json.Marshal(head.plan)
		if err != nil {
			return nil, err
		}
		if items["waves"], err = variables.Pack(states); err != nil {
			return nil, err
		}
		items[variables.LayoutItem], items["plan"] = strconv.Itoa(planLayout), string(digests)
	}
	text, err := json.Marshal(out)
	items["release"] = string(text)
	return items, err
}

// Save writes the head: a new one if it was not read, else just over what was
// read. It returns ErrTakenOver if another process has written it since.
func (r *Releases) Save(ctx context.Context, head *Release) error {
	if head.State == Unreadable {
		return fmt.Errorf("writing %s: it is not readable", r.what(head.Number))
	}
	items, err := headItems(head)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", r.what(head.Number), err)
	}
	index, err := r.put(ctx, r.headPath(head.Number), items, head.index)
	if err != nil {
		return fmt.Errorf("writing %s: %w", r.what(head.Number), err)
	}
	head.index = index
	r.keepHead(head.Number, index, items)
	return nil
}

// ended is a head as large as it may become: every wave approved and done, one
// of them with a detail.
func ended(head *Release) *Release {
	out := *head
	out.State, out.Cause, out.Detail, out.Aborting = RevertFailed, "placement-failed", strings.Repeat("d", detailLimit), true
	out.Ended = time.Now().UTC()
	out.Waves = slices.Clone(head.Waves)
	for i := range out.Waves {
		w := &out.Waves[i]
		// Times that do not compress better than those of a real release.
		at := out.Ended.Add(time.Duration(i) * 7_919_373_391 * time.Nanosecond)
		w.State, w.Started, w.Ended = NeedsApproval, at, at.Add(1_234_567_891*time.Duration(i%97))
		w.Approved, w.ApprovedAt = head.By.User+"@"+head.By.Host, at
		if bytes.Contains(w.Gate, []byte(`"Metrics"`)) { // only such a gate can be inconclusive
			w.Inconclusive, w.Passed, w.PassedAt = true, w.Approved, at
		}
	}
	if n := len(out.Waves); n > 0 {
		out.Waves[n-1].Detail = out.Detail
	}
	return &out
}

// headLimit is what a Nomad Variable takes (64 KiB), with a reserve for items
// of newer drovers.
const headLimit = 60 << 10

// Fits returns a *HeadTooLargeError if the head of a release would not fit into
// its variable until the release ends. It makes no request.
func (r *Releases) Fits(head *Release) error {
	_, _, err := split(head)
	return err
}

// split gives a head that is too large for layout 1 a plan, and returns the
// parts of the plan by their digest; none if the head stays in layout 1.
func split(head *Release) (*Release, map[string]string, error) {
	items, err := headItems(ended(head))
	if err != nil || variables.Size(items) <= headLimit {
		return head, nil, err
	}
	p := plan{Targets: head.Targets}
	for _, w := range head.Waves {
		p.Waves = append(p.Waves, Wave{Name: w.Name, Gate: w.Gate})
	}
	text, err := variables.Pack(p)
	if err != nil {
		return nil, nil, err
	}
	out := *head
	parts := map[string]string{}
	for chunk := range slices.Chunk([]byte(text), blobLimit-1<<10) {
		digest := Digest(chunk)
		out.plan = append(out.plan, digest)
		parts[digest] = string(chunk)
	}
	if items, err = headItems(ended(&out)); err == nil && variables.Size(items) > headLimit {
		err = &HeadTooLargeError{len(head.Waves), variables.Size(items)}
	}
	return &out, parts, err
}

// storePlan writes the plan of a head that needs one.
func (r *Releases) storePlan(ctx context.Context, head *Release) error {
	planned, parts, err := split(head)
	if err != nil {
		return fmt.Errorf("writing %s: %w", r.what(head.Number), err)
	}
	head.plan = planned.plan
	digests := slices.Sorted(maps.Keys(parts))
	return parallel.Each(len(digests), 8, func(i int) error {
		_, err := r.put(ctx, r.blobPath(digests[i]), map[string]string{"part": parts[digests[i]]}, 0)
		if err != nil && !errors.Is(err, ErrTakenOver) { // it is there
			return fmt.Errorf("storing the plan of %s: %w", r.what(head.Number), err)
		}
		return nil
	})
}

// readPlan reads the parts of a plan. Their names are digests of what they
// hold, so that a plan that was read once is not read again.
func (r *Releases) readPlan(ctx context.Context, digests []string) (plan, error) {
	name := strings.Join(digests, " ")
	r.mu.Lock()
	p, known := r.plans[name]
	r.mu.Unlock()
	if known {
		return p, nil
	}
	parts := make([]string, len(digests))
	err := parallel.Each(len(digests), 8, func(i int) error {
		path := r.blobPath(digests[i])
		v, _, err := r.client.Variables().Peek(path, (&api.QueryOptions{}).WithContext(ctx))
		switch {
		case err != nil:
			return fmt.Errorf("reading %s: %w", path, err)
		case v == nil:
			return &UnreadableError{path, ErrMissing}
		}
		if err := checkLayout(v.Items[variables.LayoutItem], "the items of "+path); err != nil {
			return &UnreadableError{path, err}
		}
		if parts[i] = v.Items["part"]; Digest([]byte(parts[i])) != digests[i] {
			return &UnreadableError{path, errContent}
		}
		return nil
	})
	if err != nil {
		return p, err
	}
	if err := variables.Unpack(strings.Join(parts, ""), &p); err != nil {
		return p, &UnreadableError{r.blobPath(digests[0]), err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plans == nil {
		r.plans = map[string]plan{}
	}
	r.plans[name] = p
	return p, nil
}

var (
	// ErrMissing reports that a variable which the record names is not there.
	ErrMissing = errors.New("it is missing")
	errContent = errors.New("its content does not match its digest")
)
