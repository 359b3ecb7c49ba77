package record

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// State is how far a release has come.
type State string

// States of a release. Those that are open can be gone on with or gone back
// from; no other release begins before that.
const (
	Running        State = "running"            // somebody is at it, or was killed over it
	Interrupted    State = "interrupted"        // stopped by its deployer
	Paused         State = "paused"             // stopped by `drover pause`
	NeedsPromotion State = "awaiting-promotion" // canaries wait
	NeedsApproval  State = "awaiting-approval"  // a wave waits
	Reverting      State = "reverting"          // as Running, on the way back
	RevertFailed   State = "revert-failed"      // failed, everything is as before, and not all of it is healthy
	Done           State = "deployed"           // good
	FailedState    State = "failed"             // left as it was when it failed
	Reverted       State = "reverted"           // failed, and everything is as before
	Aborted        State = "aborted"            // given up, and everything is as before
	Abandoned      State = "abandoned"          // a later release has taken over
)

// Open says that the release is not at its end.
func (s State) Open() bool {
	switch s {
	case Running, Interrupted, Paused, NeedsPromotion, NeedsApproval, Reverting:
		return true
	}
	return false
}

// Release is the head of a record: what does not depend on the number of
// services. It never holds a secret.
type Release struct {
	Number      int    `json:"number"`
	Stack       string `json:"stack"`
	Environment string `json:"environment"`
	Version     string `json:"version,omitempty"`     // of the stack
	AppVersion  string `json:"app_version,omitempty"` // of what it runs
	Kind        string `json:"kind"`                  // deploy, rollback, redeploy, …
	Of          int    `json:"of,omitempty"`          // a rollback: the release that it goes back to
	Inputs      string `json:"inputs"`                // digest of all job specs
	Values      string `json:"values,omitempty"`      // digest of the blob with the variables' values
	DNS         string `json:"dns,omitempty"`         // digest of what it left to be kept in DNS; a part of a stack leaves nothing

	By      Holder `json:"by"`                // who began it
	Message string `json:"message,omitempty"` // why
	Drover  string `json:"drover,omitempty"`  // version

	State   State     `json:"state"`
	Cause   string    `json:"cause,omitempty"`  // the outcome that decided, when it is not good
	Detail  string    `json:"detail,omitempty"` // one line more
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Aborting says that a release on its way back was given up, not failed.
	Aborting bool `json:"aborting,omitempty"`

	OnFailure string `json:"on_failure"`
	Keep      int    `json:"keep,omitempty"` // how many releases are kept; 0 where nobody has said so, as in older records
	Waves     []Wave `json:"waves,omitempty"`
	// Targets are what is needed to reach them, as package release wrote it.
	Targets json.RawMessage `json:"targets,omitempty"`

	// Changed, Pruned and Total count services.
	Changed int `json:"changed"`
	Pruned  int `json:"pruned,omitempty"`
	Total   int `json:"total"`

	// Owner is the process that writes the record: a lease that was lost and
	// a record that somebody else has taken over are the same thing.
	Owner string `json:"owner"`
	Pages int    `json:"pages"` // variables with services

	index uint64
}

// Wave is a part of a release; the next one begins when its gate has held.
type Wave struct {
	Name     string    `json:"name"`
	Targets  []string  `json:"targets,omitempty"`
	Services []string  `json:"services,omitempty"` // none for all
	State    State     `json:"state,omitempty"`    // Running, Done, NeedsApproval, FailedState; "" before
	Detail   string    `json:"detail,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`

	Gate json.RawMessage `json:"gate,omitempty"` // as package release wrote it

	Approved   string    `json:"approved,omitempty"` // by whom
	ApprovedAt time.Time `json:"approved_at,omitzero"`
}

// Step is how far a service has come within a release.
type Step string

// Steps of a service. Each is written before what it announces.
const (
	StepPending    Step = "pending"
	StepUnchanged  Step = "unchanged"  // nothing to do, or not part of this release
	StepSubmitting Step = "submitting" // the register may or may not have arrived
	StepSubmitted  Step = "submitted"  // Index is what Nomad answered
	StepDone       Step = "done"       // healthy
	StepFailed     Step = "failed"     // Outcome says how
	StepPruning    Step = "pruning"
	StepPruned     Step = "pruned"
	StepReverting  Step = "reverting"
	StepReverted   Step = "reverted"
)

// Changes that a release makes to a service.
const (
	ChangeNone   = "none"
	ChangeCreate = "create"
	ChangeUpdate = "update"
	ChangeStop   = "stop" // pruned
)

// Service is one job of a release: a line of its journal.
type Service struct {
	Target    string   `json:"t,omitempty"`
	Name      string   `json:"s"`
	JobID     string   `json:"id"`
	Namespace string   `json:"ns,omitempty"`
	Region    string   `json:"r,omitempty"`
	DependsOn []string `json:"dep,omitempty"`
	Secrets   []string `json:"sec,omitempty"`
	Wave      int      `json:"w,omitempty"`

	Change string `json:"c"`
	Spec   string `json:"spec,omitempty"` // digest of what is (to be) deployed; "" when it is to go

	// What was there before: digest of the spec ("" for nothing), whether the
	// job was stopped, and the JobModifyIndex that the plan saw (0 for no job).
	Before        string `json:"b,omitempty"`
	BeforeStopped bool   `json:"bs,omitempty"`
	Planned       uint64 `json:"p,omitempty"`

	Index   uint64    `json:"i,omitempty"` // JobModifyIndex of Spec in Nomad, once it is known
	Step    Step      `json:"st"`
	Outcome string    `json:"o,omitempty"` // of the rollout
	Detail  string    `json:"d,omitempty"`
	Started time.Time `json:"at,omitzero"`
	Ended   time.Time `json:"end,omitzero"`
}

// Runs says that the release leaves the job in the cluster.
func (s Service) Runs() bool { return s.Spec != "" && s.Change != ChangeStop }

// Expects says that index is the JobModifyIndex that the job must have for the
// release to write it.
func (s Service) Expects(index uint64) bool {
	switch s.Step {
	case StepPending:
		return index == s.Planned
	case StepSubmitting: // or purged, to be created again
		return index == s.Planned || index == 0
	}
	return index == s.Index
}

// Releases are the records of one stack in one environment, in Nomad
// Variables of the client's region and namespace below
// drover/stacks/STACK/ENV: lock, releases/NUMBER, releases/NUMBER/PAGE and
// blobs/DIGEST. Everything is written by check-and-set.
type Releases struct {
	client       *api.Client
	stack, env   string
	folder       string
	pageServices int
}

// OpenReleases makes no request.
func OpenReleases(client *api.Client, stackName, env string) *Releases {
	return &Releases{client: client, stack: stackName, env: env, folder: Folder(stackName, env), pageServices: 150}
}

const stacksFolder = "drover/stacks/"

// Folder is where the Nomad Variables of a stack are in an environment.
func Folder(stackName, env string) string {
	return stacksFolder + PathName(stackName) + "/" + PathName(env)
}

var layoutText = strconv.Itoa(Layout)

// PathName is a name as a part of a variable's path, which knows nothing but
// letters, digits, "-", "_" and "~".
func PathName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "~%02x", c)
		}
	}
	return b.String()
}

func (r *Releases) lockPath() string         { return r.folder + "/lock" }
func (r *Releases) headPath(n int) string    { return fmt.Sprintf("%s/releases/%06d", r.folder, n) }
func (r *Releases) blobPath(d string) string { return r.folder + "/blobs/" + d }
func (r *Releases) pagePath(n, p int) string { return fmt.Sprintf("%s/%02d", r.headPath(n), p) }
func (r *Releases) what(n int) string        { return fmt.Sprintf("release %d of stack %s", n, r.stack) }
func (r *Releases) Stack() string            { return r.stack }
func (r *Releases) Environment() string      { return r.env }

// ErrNoRelease says that there is no release of that number.
var ErrNoRelease = errors.New("no such release")

// ErrTakenOver says that somebody else goes on with the release.
var ErrTakenOver = errors.New("somebody else has taken over the release")

func isLocked(err error) bool { return errors.Is(err, ErrLocked) }

// Numbers of the releases that are kept, the newest last.
func (r *Releases) Numbers(ctx context.Context) ([]int, error) {
	list, _, err := r.client.Variables().PrefixList(r.folder+"/releases/", (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(list) == 0 {
		err = MayRead(ctx, r.client, r.folder+"/releases")
	}
	if err != nil {
		return nil, fmt.Errorf("listing the releases of stack %s: %w", r.stack, err)
	}
	var out []int
	for _, v := range list {
		rest := strings.TrimPrefix(v.Path, r.folder+"/releases/")
		if n, err := strconv.Atoi(rest); err == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// List reads the heads of all releases, the newest first.
func (r *Releases) List(ctx context.Context) ([]*Release, error) {
	numbers, err := r.Numbers(ctx)
	if err != nil {
		return nil, err
	}
	slices.Reverse(numbers)
	out := make([]*Release, len(numbers))
	err = each(len(numbers), func(i int) error {
		var err error
		if out[i], err = r.Read(ctx, numbers[i]); errors.Is(err, ErrNoRelease) {
			err = nil // just removed
		}
		return err
	})
	return slices.DeleteFunc(out, func(r *Release) bool { return r == nil }), err
}

// Last is the newest release, nil when there is none.
func (r *Releases) Last(ctx context.Context) (*Release, error) {
	numbers, err := r.Numbers(ctx)
	if err != nil || len(numbers) == 0 {
		return nil, err
	}
	return r.Read(ctx, numbers[len(numbers)-1])
}

// Now returns the newest release and who holds the lock, nil where there is
// none: two requests (GET /v1/vars and /v1/var/:path), and one more while
// somebody holds the lock.
func (r *Releases) Now(ctx context.Context) (*Release, *Holder, error) {
	list, _, err := r.client.Variables().PrefixList(r.folder+"/", (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(list) == 0 {
		err = MayRead(ctx, r.client, r.folder+"/releases")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("listing the releases of stack %s: %w", r.stack, err)
	}
	newest, locked := 0, false
	for _, v := range list {
		if n, err := strconv.Atoi(strings.TrimPrefix(v.Path, r.folder+"/releases/")); err == nil {
			newest = max(newest, n)
		}
		locked = locked || v.Path == r.lockPath() && isHeld(v.Lock, v.CreateIndex, v.ModifyIndex)
	}
	var holder *Holder
	if locked {
		if holder, err = r.Holder(ctx); err != nil {
			return nil, nil, err
		}
	}
	if newest == 0 {
		return nil, holder, nil
	}
	last, err := r.Read(ctx, newest)
	return last, holder, err
}

// Read returns the head of a release; ErrNoRelease when there is none.
func (r *Releases) Read(ctx context.Context, number int) (*Release, error) {
	head, _, err := r.watch(ctx, number, 0)
	return head, err
}

// Watch returns the head of a release when it is no longer that of index,
// and its own index.
func (r *Releases) Watch(ctx context.Context, number int, index uint64) (*Release, uint64, error) {
	return r.watch(ctx, number, index)
}

func (r *Releases) watch(ctx context.Context, number int, index uint64) (*Release, uint64, error) {
	q := &api.QueryOptions{WaitIndex: index}
	v, meta, err := r.client.Variables().Peek(r.headPath(number), q.WithContext(ctx))
	if err != nil {
		return nil, 0, fmt.Errorf("reading %s: %w", r.what(number), err)
	}
	if v == nil {
		return nil, 0, fmt.Errorf("stack %s has %w: %d", r.stack, ErrNoRelease, number)
	}
	if err := checkLayout(v.Items[layoutItem], "the items of "+v.Path); err != nil {
		return nil, 0, err
	}
	head := &Release{}
	if err := json.Unmarshal([]byte(v.Items["release"]), head); err != nil {
		return nil, 0, fmt.Errorf("%s at %s is not readable: %w", r.what(number), v.Path, err)
	}
	head.index = v.ModifyIndex
	return head, meta.LastIndex, nil
}

// Save writes the head: a new one when it was not read, else just over what
// was read. ErrTakenOver when somebody else wrote meanwhile.
func (r *Releases) Save(ctx context.Context, head *Release) error {
	text, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", r.what(head.Number), err)
	}
	head.index, err = r.put(ctx, r.headPath(head.Number), map[string]string{"release": string(text)}, head.index)
	if err != nil {
		return fmt.Errorf("writing %s: %w", r.what(head.Number), err)
	}
	return nil
}

// Change reads the head, lets f change it and writes it, again when somebody
// else wrote in between. An error of f ends it.
func (r *Releases) Change(ctx context.Context, number int, f func(*Release) error) (*Release, error) {
	for {
		head, err := r.Read(ctx, number)
		if err != nil {
			return nil, err
		}
		if err := f(head); err != nil {
			return nil, err
		}
		if err := r.Save(ctx, head); !errors.Is(err, ErrTakenOver) {
			return head, err
		}
	}
}

// put writes one variable by check-and-set and returns its new index. It goes
// on for a moment when Nomad, or what is before it, does not answer well.
func (r *Releases) put(ctx context.Context, path string, items map[string]string, index uint64) (uint64, error) {
	items[layoutItem] = layoutText
	unsure := false // an earlier attempt may have arrived
	for deadline, pause := time.Now().Add(putPatience), 100*time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		out, err := writeChecked(ctx, r.client, &api.Variable{Path: path, Items: items, ModifyIndex: index}, &api.WriteOptions{})
		var conflict errConflict
		switch {
		case err == nil:
			return out.ModifyIndex, nil
		case errors.As(err, &conflict):
			if there, _, rerr := r.client.Variables().Peek(path, (&api.QueryOptions{}).WithContext(ctx)); unsure && rerr == nil && there != nil && maps.Equal(there.Items, items) {
				return there.ModifyIndex, nil
			}
			return 0, ErrTakenOver
		case refused(err) || time.Now().After(deadline):
			return 0, err
		}
		unsure = true
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, err
		}
	}
}

// putPatience is how long a write of the record is tried.
const putPatience = 10 * time.Second

// page is the content of one variable with services.
type page struct {
	Owner    string    `json:"owner"`
	Seq      int       `json:"seq"`
	Services []Service `json:"services"`
}

// paged splits services into pages, each of one target.
func (r *Releases) paged(services []Service) [][]Service {
	var out [][]Service
	for _, s := range services {
		n := len(out)
		if n == 0 || len(out[n-1]) == r.pageServices || out[n-1][0].Target != s.Target {
			out = append(out, nil)
			n++
		}
		out[n-1] = append(out[n-1], s)
	}
	return out
}

// Services reads the lines of a release.
func (r *Releases) Services(ctx context.Context, head *Release) ([]Service, error) {
	pages, _, err := r.pages(ctx, head)
	if err != nil {
		return nil, err
	}
	var out []Service
	for _, p := range pages {
		out = append(out, p.Services...)
	}
	return out, nil
}

func (r *Releases) pages(ctx context.Context, head *Release) ([]page, []uint64, error) {
	pages, indexes := make([]page, head.Pages), make([]uint64, head.Pages)
	return pages, indexes, each(head.Pages, func(i int) error {
		var err error
		pages[i], indexes[i], err = r.readPage(ctx, head.Number, i)
		return err
	})
}

func (r *Releases) readPage(ctx context.Context, number, i int) (page, uint64, error) {
	var p page
	v, _, err := r.client.Variables().Peek(r.pagePath(number, i), (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && v == nil {
		err = ErrNoRelease
	}
	if err != nil {
		return p, 0, fmt.Errorf("reading the services of %s: %w", r.what(number), err)
	}
	if err := checkLayout(v.Items[layoutItem], "the items of "+v.Path); err != nil {
		return p, 0, err
	}
	if err := unpack(v.Items["services"], &p); err != nil {
		return p, 0, fmt.Errorf("the services of %s at %s are not readable: %w", r.what(number), v.Path, err)
	}
	return p, v.ModifyIndex, nil
}

func (r *Releases) writePage(ctx context.Context, number, i int, p page, index uint64) (uint64, error) {
	text, err := pack(p)
	if err == nil {
		index, err = r.put(ctx, r.pagePath(number, i), map[string]string{"services": text}, index)
	}
	if err != nil {
		return 0, fmt.Errorf("writing the services of %s: %w", r.what(number), err)
	}
	return index, nil
}

// Create writes a new release: its services first, so that a head always has
// them. The number must be new.
func (r *Releases) Create(ctx context.Context, head *Release, services []Service) (*Journal, error) {
	split := r.paged(services)
	head.Pages = len(split)
	j := newJournal(ctx, r, head, split)
	err := each(len(split), func(i int) error {
		// What a deployer that was killed before the head left behind.
		_, index, err := r.readPage(ctx, head.Number, i)
		if err != nil && !errors.Is(err, ErrNoRelease) {
			return err
		}
		p := page{Owner: head.Owner, Services: split[i]}
		if index, err = r.writePage(ctx, head.Number, i, p, index); err != nil {
			return err
		}
		j.pages[i].index = index
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := r.Save(ctx, head); err != nil {
		return nil, err
	}
	j.start()
	return j, nil
}

// TakeOver makes head.Owner the only one who can write the journal of the
// release, and says so in the head: from here on, whoever had it cannot
// submit anything any more.
func (r *Releases) TakeOver(ctx context.Context, head *Release, owner string) (*Journal, error) {
	head.Owner = owner
	if err := r.Save(ctx, head); err != nil {
		return nil, err
	}
	pages := make([]page, head.Pages)
	indexes := make([]uint64, head.Pages)
	err := each(head.Pages, func(i int) error {
		for {
			p, index, err := r.readPage(ctx, head.Number, i)
			if err != nil {
				return err
			}
			p.Owner, p.Seq = owner, p.Seq+1
			index, err = r.writePage(ctx, head.Number, i, p, index)
			if errors.Is(err, ErrTakenOver) {
				continue // its former owner was just writing
			}
			pages[i], indexes[i] = p, index
			return err
		}
	})
	if err != nil {
		return nil, err
	}
	split := make([][]Service, len(pages))
	for i, p := range pages {
		split[i] = p.Services
	}
	j := newJournal(ctx, r, head, split)
	for i := range pages {
		j.pages[i].index, j.pages[i].seq = indexes[i], pages[i].Seq
	}
	j.start()
	return j, nil
}

// Keep removes the oldest releases until max are left, never the last good
// one nor one that is open, and the blobs that no release names any more. It
// returns the removed ones with their services. The lock must be held.
func (r *Releases) Keep(ctx context.Context, most int) ([]Removed, error) {
	numbers, err := r.Numbers(ctx)
	if err != nil || len(numbers) <= most {
		return nil, err
	}
	heads, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	var removed []Removed
	var kept []*Release
	good := false
	for i, h := range heads {
		switch {
		case i < most || h.State.Open(), !good && h.State == Done:
			kept = append(kept, h)
		default:
			services, err := r.Services(ctx, h)
			if err != nil {
				return nil, err
			}
			removed = append(removed, Removed{h, services})
		}
		good = good || h.State == Done
	}
	if len(removed) == 0 {
		return nil, nil
	}
	for _, h := range removed {
		if err := r.remove(ctx, h.Release); err != nil {
			return nil, err
		}
	}
	return removed, r.collect(ctx, kept)
}

// Removed is a release that is not kept any more.
type Removed struct {
	*Release
	Services []Service
}

// remove deletes the head first, so that no head is without services.
func (r *Releases) remove(ctx context.Context, h *Release) error {
	w := (&api.WriteOptions{}).WithContext(ctx)
	if _, err := r.client.Variables().CheckedDelete(r.headPath(h.Number), h.index, w); err != nil {
		return fmt.Errorf("deleting %s: %w", r.what(h.Number), withoutItems(err))
	}
	return each(h.Pages, func(i int) error {
		if _, err := r.client.Variables().Delete(r.pagePath(h.Number, i), w); err != nil {
			return fmt.Errorf("deleting the services of %s: %w", r.what(h.Number), err)
		}
		return nil
	})
}

// collect deletes the blobs that none of the heads needs.
func (r *Releases) collect(ctx context.Context, heads []*Release) error {
	needed := make([]map[string]bool, len(heads))
	err := each(len(heads), func(i int) error {
		services, err := r.Services(ctx, heads[i])
		needed[i] = map[string]bool{heads[i].Values: true}
		for _, s := range services {
			needed[i][s.Spec], needed[i][s.Before] = true, true
		}
		return err
	})
	if err != nil {
		return err
	}
	all := map[string]bool{}
	for _, n := range needed {
		maps.Copy(all, n)
	}
	list, _, err := r.client.Variables().PrefixList(r.folder+"/blobs/", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("listing the job specs of stack %s: %w", r.stack, err)
	}
	list = slices.DeleteFunc(list, func(v *api.VariableMetadata) bool {
		return all[strings.TrimPrefix(v.Path, r.folder+"/blobs/")]
	})
	return each(len(list), func(i int) error {
		if _, err := r.client.Variables().Delete(list[i].Path, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
			return fmt.Errorf("deleting %s: %w", list[i].Path, err)
		}
		return nil
	})
}

// Purge deletes everything that is known of the stack's releases.
func (r *Releases) Purge(ctx context.Context) error {
	heads, err := r.List(ctx)
	if err != nil {
		return err
	}
	for _, h := range heads {
		if err := r.remove(ctx, h); err != nil {
			return err
		}
	}
	return r.collect(ctx, nil)
}

// Stacks lists the stacks and environments that have releases, as STACK/ENV.
func Stacks(ctx context.Context, client *api.Client) ([]string, error) {
	list, _, err := client.Variables().PrefixList(stacksFolder, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("listing stacks: %w", err)
	}
	seen := map[string]bool{}
	for _, v := range list {
		parts := strings.Split(strings.TrimPrefix(v.Path, stacksFolder), "/")
		if len(parts) == 4 && parts[2] == "releases" {
			seen[nameOf(parts[0])+"/"+nameOf(parts[1])] = true
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// nameOf undoes PathName.
func nameOf(path string) string {
	var out []byte
	for i := 0; i < len(path); i++ {
		if path[i] == '~' && i+2 < len(path) {
			if b, err := hex.DecodeString(path[i+1 : i+3]); err == nil {
				out = append(out, b[0])
				i += 2
				continue
			}
		}
		out = append(out, path[i])
	}
	return string(out)
}

// Digest names a text by its content: the first 160 bits of its SHA-256, in
// hexadecimal.
func Digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:20])
}

// Blob is something that releases share: a job spec, stored once however
// many releases have it, or the values of a release.
type Blob struct {
	Job    json.RawMessage `json:"job,omitempty"` // as PUT /v1/jobs takes it below "Job"
	HCL    string          `json:"hcl,omitempty"` // merged, as `nomad job run` takes it
	File   string          `json:"file,omitempty"`
	Values json.RawMessage `json:"values,omitempty"`
}

// blobLimit is what a Nomad Variable takes (64 KiB), less the layout.
const blobLimit = 64<<10 - 64

// Packed is a blob that can be stored.
type Packed struct {
	Digest string
	blob   Blob
}

// TooLargeError says that a blob does not fit into a Nomad Variable.
type TooLargeError struct{ Size int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("it has %d KiB compressed and a Nomad Variable takes 64", (e.Size+1023)>>10)
}

// Pack sees to it that a blob fits into a Nomad Variable: a merged text that
// does not fit beside the job is left out. The digest is that of the job, or of
// the values.
func Pack(b Blob) (Packed, error) {
	p := Packed{Digest: Digest(b.Job), blob: b}
	if b.Job == nil {
		p.Digest = Digest(b.Values)
	}
	// What fits however badly it compresses is compressed when it is stored,
	// which most of the jobs of a release are already.
	if base64.StdEncoding.EncodedLen(len(b.Job)+len(b.Values)+escaped*(len(b.HCL)+len(b.File))+1<<10) <= blobLimit {
		return p, nil
	}
	for {
		text, err := pack(p.blob)
		switch {
		case err != nil:
			return p, err
		case len(text) <= blobLimit:
			return p, nil
		case p.blob.HCL == "":
			return p, &TooLargeError{len(text)}
		}
		p.blob.HCL = ""
	}
}

// escaped is how many bytes JSON makes of one of a string, at most.
const escaped = 6

// Store writes the blobs that are not there yet, several at a time.
func (r *Releases) Store(ctx context.Context, blobs []Packed) error {
	if len(blobs) == 0 {
		return nil
	}
	list, _, err := r.client.Variables().PrefixList(r.folder+"/blobs/", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("listing the job specs of stack %s: %w", r.stack, err)
	}
	there := map[string]bool{}
	for _, v := range list {
		there[strings.TrimPrefix(v.Path, r.folder+"/blobs/")] = true
	}
	blobs = slices.DeleteFunc(slices.Clone(blobs), func(p Packed) bool {
		had := there[p.Digest]
		there[p.Digest] = true
		return had
	})
	return each(len(blobs), func(i int) error {
		text, err := pack(blobs[i].blob)
		if err != nil {
			return err
		}
		_, err = r.put(ctx, r.blobPath(blobs[i].Digest), map[string]string{"blob": text}, 0)
		if err != nil && !errors.Is(err, ErrTakenOver) { // the same, from somebody else
			return fmt.Errorf("storing a job spec of stack %s: %w", r.stack, err)
		}
		return nil
	})
}

// Blob reads what Store wrote.
func (r *Releases) Blob(ctx context.Context, digest string) (Blob, error) {
	var b Blob
	v, _, err := r.client.Variables().Peek(r.blobPath(digest), (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && v == nil {
		err = errors.New("it is not there")
	}
	if err == nil {
		err = checkLayout(v.Items[layoutItem], "the items of "+v.Path)
	}
	if err == nil {
		err = unpack(v.Items["blob"], &b)
	}
	if err == nil && Digest(b.Job) != digest && Digest(b.Values) != digest {
		err = errors.New("its content is not what its name says")
	}
	if err != nil {
		return b, fmt.Errorf("reading %s: %w", r.blobPath(digest), err)
	}
	return b, nil
}

// pack is v as JSON, compressed, in base64.
func pack(v any) (string, error) {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := errors.Join(enc.Encode(v), w.Close()); err != nil {
		return "", fmt.Errorf("compressing: %w", err)
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes()), nil
}

// unpackLimit keeps a broken or hostile record from filling the memory.
const unpackLimit = 64 << 20

func unpack(text string, into any) error {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	plain, err := io.ReadAll(io.LimitReader(z, unpackLimit))
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, into)
}
