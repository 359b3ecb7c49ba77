// Package record stores in Nomad Variables what drover must remember of a stack
// in an environment: its releases, secrets, schedules and lock. Each object has
// the number of its layout; a layout newer than this drover knows is refused.
package record

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
)

// Releases are the records of one stack in one environment, in Nomad
// Variables of the client's region and namespace below
// drover/stacks/STACK/ENV: lock, releases/NUMBER, releases/NUMBER/PAGE and
// blobs/DIGEST. Everything is written by check-and-set.
type Releases struct {
	client       *api.Client
	stack, env   string
	folder       string
	pageServices int
	packer       *variables.Packer

	mu    sync.Mutex
	plans map[string]plan     // that were read, by their digests
	heads map[int]headVersion // that were read or written last, by the number of the release
}

// headVersion is the variable of a head at its index.
type headVersion struct {
	index uint64
	items map[string]string
}

// OpenReleases makes no request.
func OpenReleases(client *api.Client, stackName, env string) *Releases {
	return &Releases{client: client, stack: stackName, env: env, folder: Folder(stackName, env), pageServices: 400, packer: variables.NewPacker()}
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

// Stack returns the name of the stack.
func (r *Releases) Stack() string { return r.stack }

// Environment returns the name of the environment, "" for none.
func (r *Releases) Environment() string { return r.env }

// ErrNoRelease means that there is no release of that number.
var ErrNoRelease = errors.New("no such release")

// ErrTakenOver means that another process has taken over the release.
var ErrTakenOver = errors.New("another process has taken over the release")

func isLocked(err error) bool { return errors.Is(err, variables.ErrLocked) }

// Numbers of the releases that are kept, the newest last.
func (r *Releases) Numbers(ctx context.Context) ([]int, error) {
	numbers, _, err := r.listed(ctx)
	return numbers, err
}

// listed returns the numbers of the releases that are kept, the newest last, and
// the index of the head of each (GET /v1/vars).
func (r *Releases) listed(ctx context.Context) (numbers []int, indexes map[int]uint64, err error) {
	list, _, err := r.client.Variables().PrefixList(r.folder+"/releases/", (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(list) == 0 {
		err = variables.CheckList(ctx, r.client, r.folder+"/releases")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("listing the releases of stack %s: %w", r.stack, err)
	}
	indexes = map[int]uint64{}
	for _, v := range list {
		rest := strings.TrimPrefix(v.Path, r.folder+"/releases/")
		if n, err := strconv.Atoi(rest); err == nil {
			numbers = append(numbers, n)
			indexes[n] = v.ModifyIndex
		}
	}
	slices.Sort(numbers)
	return numbers, indexes, nil
}

// readAt returns the head of a release that has that index, as a list has just
// said. It makes no request for a version of the head that was read or written
// before.
func (r *Releases) readAt(ctx context.Context, number int, index uint64) (*Release, error) {
	r.mu.Lock()
	known := r.heads[number]
	r.mu.Unlock()
	if known.index != index || index == 0 {
		return r.Read(ctx, number)
	}
	return r.decodeNumbered(ctx, number, &api.Variable{Path: r.headPath(number), Items: known.items, ModifyIndex: index})
}

// keepHead notes the items of a head as they are at that index.
func (r *Releases) keepHead(number int, index uint64, items map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heads == nil {
		r.heads = map[int]headVersion{}
	}
	r.heads[number] = headVersion{index, items}
}

// List reads the heads of all releases, the newest first. One that cannot be
// read has the state Unreadable, and its Detail says why.
func (r *Releases) List(ctx context.Context) ([]*Release, error) {
	numbers, indexes, err := r.listed(ctx)
	if err != nil {
		return nil, err
	}
	return r.readAll(ctx, numbers, indexes)
}

// readAll reads heads that were listed, the newest first.
func (r *Releases) readAll(ctx context.Context, numbers []int, indexes map[int]uint64) ([]*Release, error) {
	numbers = slices.Clone(numbers)
	slices.Reverse(numbers)
	out := make([]*Release, len(numbers))
	err := parallel.Each(len(numbers), 8, func(i int) error {
		var err error
		out[i], err = r.readAt(ctx, numbers[i], indexes[numbers[i]])
		var broken *UnreadableError
		switch {
		case errors.Is(err, ErrNoRelease):
			return nil // just removed
		case errors.As(err, &broken):
			out[i] = r.unreadable(numbers[i], broken)
			return nil
		}
		return err
	})
	return slices.DeleteFunc(out, func(r *Release) bool { return r == nil }), err
}

// Last is the newest release, nil when there is none.
func (r *Releases) Last(ctx context.Context) (*Release, error) {
	numbers, indexes, err := r.listed(ctx)
	if err != nil || len(numbers) == 0 {
		return nil, err
	}
	newest := numbers[len(numbers)-1]
	return r.readAt(ctx, newest, indexes[newest])
}

// contents are the variables of a record.
type contents struct {
	heads  map[int]uint64  // index of the head of each release, by its number
	blobs  map[string]bool // digests
	locked bool
}

// newest returns the number of the newest release, 0 if there is none.
func (c contents) newest() int {
	n := 0
	for number := range c.heads {
		n = max(n, number)
	}
	return n
}

// contents lists the variables of the record (GET /v1/vars).
func (r *Releases) contents(ctx context.Context) (contents, error) {
	list, _, err := r.client.Variables().PrefixList(r.folder+"/", (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(list) == 0 {
		err = variables.CheckList(ctx, r.client, r.folder+"/releases")
	}
	if err != nil {
		return contents{}, fmt.Errorf("listing the releases of stack %s: %w", r.stack, err)
	}
	out := contents{heads: map[int]uint64{}, blobs: map[string]bool{}}
	for _, v := range list {
		if n, err := strconv.Atoi(strings.TrimPrefix(v.Path, r.folder+"/releases/")); err == nil {
			out.heads[n] = v.ModifyIndex
		}
		if digest, ok := strings.CutPrefix(v.Path, r.folder+"/blobs/"); ok {
			out.blobs[digest] = true
		}
		out.locked = out.locked || v.Path == r.lockPath() && variables.IsLocked(v.Lock, v.CreateIndex, v.ModifyIndex)
	}
	return out, nil
}

// Current is what there is of a record at one moment.
type Current struct {
	Last   *Release        // the newest; nil if there is none
	Holder *Holder         // of the lock; nil if that is free
	Blobs  map[string]bool // digests of the blobs that are stored
}

// Now returns what there is of the record. It sends two requests (GET /v1/vars and
// /v1/var/:path), and a third while the lock is held.
func (r *Releases) Now(ctx context.Context) (Current, error) {
	all, err := r.contents(ctx)
	if err != nil {
		return Current{}, err
	}
	out := Current{Blobs: all.blobs}
	if all.locked {
		if out.Holder, err = r.Holder(ctx); err != nil {
			return Current{}, err
		}
	}
	newest := all.newest()
	if newest == 0 {
		return out, nil
	}
	out.Last, err = r.Read(ctx, newest)
	var broken *UnreadableError
	if errors.As(err, &broken) {
		out.Last, err = r.unreadable(newest, broken), nil
	}
	return out, err
}

// unreadable stands for a release whose head cannot be read.
func (r *Releases) unreadable(number int, err *UnreadableError) *Release {
	return &Release{Number: number, Stack: r.stack, Environment: r.env, State: Unreadable, Detail: err.Error()}
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
	head, err := r.decodeNumbered(ctx, number, v)
	if err != nil {
		return nil, 0, err
	}
	r.keepHead(number, v.ModifyIndex, v.Items)
	return head, meta.LastIndex, nil
}

// decodeNumbered is decodeHead for the variable of a release of that number.
func (r *Releases) decodeNumbered(ctx context.Context, number int, v *api.Variable) (*Release, error) {
	head, err := r.decodeHead(ctx, v)
	if err == nil && head.Number != number {
		err = &UnreadableError{v.Path, fmt.Errorf("it contains release %d", head.Number)}
	}
	if err != nil {
		return nil, err
	}
	return head, nil
}

// Change reads the head, calls f to change it, and writes it. It repeats this if the head
// was written in between. It returns an error of f at once.
func (r *Releases) Change(ctx context.Context, number int, f func(*Release) error) (*Release, error) {
	var head *Release
	err := nomad.RetryConflict(ctx, func() (err error) {
		if head, err = r.Read(ctx, number); err != nil {
			return err
		}
		if err := f(head); err != nil {
			return err
		}
		return orConflict(r.Save(ctx, head))
	})
	if err != nil {
		return nil, err
	}
	return head, nil
}

// orConflict returns nomad.ErrConflict for ErrTakenOver, and err otherwise.
func orConflict(err error) error {
	if errors.Is(err, ErrTakenOver) {
		return nomad.ErrConflict
	}
	return err
}

// put writes one variable by check-and-set and returns its new index. It
// returns ErrTakenOver if another process has written it since.
func (r *Releases) put(ctx context.Context, path string, items map[string]string, index uint64) (uint64, error) {
	if items[variables.LayoutItem] == "" {
		items[variables.LayoutItem] = layoutText
	}
	out, err := variables.Write(ctx, r.client, &api.Variable{Path: path, Items: items, ModifyIndex: index}, &api.WriteOptions{})
	switch {
	case nomad.IsConflict(err):
		return 0, ErrTakenOver
	case err != nil:
		return 0, err
	}
	return out.ModifyIndex, nil
}

// page is the content of one variable with services.
type page struct {
	Owner    string    `json:"owner"`
	Seq      int       `json:"seq"`
	Services []Service `json:"services"`

	items   map[string]string // of its variable that this drover does not know
	unknown unknown
}

// paged splits services into pages, each of one target and small enough for a
// variable.
func (r *Releases) paged(services []Service) ([][]Service, error) {
	var out [][]Service
	for _, s := range services {
		n := len(out)
		if n == 0 || len(out[n-1]) == r.pageServices || out[n-1][0].Target != s.Target {
			out = append(out, nil)
			n++
		}
		out[n-1] = append(out[n-1], s)
	}
	for i := 0; i < len(out); i++ {
		for len(out[i]) > 1 {
			fits, err := r.fitsPage(out[i])
			if err != nil {
				return nil, err
			}
			if fits {
				break
			}
			half := len(out[i]) / 2
			out = slices.Insert(out, i+1, out[i][half:])
			out[i] = out[i][:half:half]
		}
	}
	return out, nil
}

// fitsPage reports whether services are few enough for one page. A large page has to
// have room for their outlines: without them, a status reads the spec of each service.
func (r *Releases) fitsPage(services []Service) (bool, error) {
	text, err := r.packer.Pack(page{Services: services})
	if err != nil || len(text) > pageStart || len(services) <= largePage {
		return err == nil && len(text) <= pageStart, err
	}
	items, err := r.outlineItems(services)
	return err == nil && (items != nil || !hasOutlines(services)), err
}

// largePage is the number of services from which a page is split for its outlines.
const largePage = 150

// pageStart is the size of a new page, compressed, from which it is split: it
// grows when the outcomes of its services are written.
const pageStart = blobLimit / 2

// packPage compresses a page. Where it would pass the limit of a variable, it
// shortens the details of the services.
func (r *Releases) packPage(p page) (string, error) {
	text, err := r.packer.Pack(p)
	limit := blobLimit - variables.Size(p.items)
	for _, most := range []int{500, 100, 0} {
		if err != nil || len(text) <= limit {
			break
		}
		p.Services = slices.Clone(p.Services)
		for i := range p.Services {
			p.Services[i].Detail = clip(p.Services[i].Detail, most)
		}
		text, err = r.packer.Pack(p)
	}
	return text, err
}

// Services reads the lines of a release. It returns an *UnreadableError if the
// head or a page cannot be read.
func (r *Releases) Services(ctx context.Context, head *Release) ([]Service, error) {
	if head.State == Unreadable {
		return nil, &UnreadableError{r.headPath(head.Number), errors.New(head.Detail)}
	}
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

// Readable returns the lines of a release that can be read, none if its head
// cannot. Services returns an error instead.
func (r *Releases) Readable(ctx context.Context, head *Release) ([]Service, error) {
	pages := make([]page, head.Pages)
	err := parallel.Each(head.Pages, 8, func(i int) error {
		var err error
		var broken *UnreadableError
		if pages[i], _, err = r.readPage(ctx, head.Number, i); errors.As(err, &broken) {
			pages[i], err = page{}, nil
		}
		return err
	})
	var out []Service
	for _, p := range pages {
		out = append(out, p.Services...)
	}
	return out, err
}

func (r *Releases) pages(ctx context.Context, head *Release) ([]page, []uint64, error) {
	pages, indexes := make([]page, head.Pages), make([]uint64, head.Pages)
	return pages, indexes, parallel.Each(head.Pages, 8, func(i int) error {
		var err error
		pages[i], indexes[i], err = r.readPage(ctx, head.Number, i)
		return err
	})
}

func (r *Releases) readPage(ctx context.Context, number, i int) (page, uint64, error) {
	var p page
	v, _, err := r.client.Variables().Peek(r.pagePath(number, i), (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return p, 0, fmt.Errorf("reading the services of %s: %w", r.what(number), err)
	}
	if v == nil {
		return p, 0, &UnreadableError{r.pagePath(number, i), ErrMissing}
	}
	if err := checkLayout(v.Items[variables.LayoutItem], "the items of "+v.Path); err != nil {
		return p, 0, &UnreadableError{v.Path, err}
	}
	if err := variables.Unpack(v.Items["services"], &p); err != nil {
		return p, 0, &UnreadableError{v.Path, err}
	}
	p.items = otherItems(v.Items, "services")
	readOutlines(p.items, p.Services)
	return p, v.ModifyIndex, nil
}

func (r *Releases) writePage(ctx context.Context, number, i int, p page, index uint64) (uint64, error) {
	text, err := r.packPage(p)
	if err == nil {
		items := map[string]string{"services": text}
		maps.Copy(items, p.items)
		index, err = r.put(ctx, r.pagePath(number, i), items, index)
	}
	if err != nil {
		return 0, fmt.Errorf("writing the services of %s: %w", r.what(number), err)
	}
	return index, nil
}

// Create writes a new release: its services first, so that a head always has
// them. The number must be new.
func (r *Releases) Create(ctx context.Context, head *Release, services []Service) (*Journal, error) {
	split, err := r.paged(services)
	if err != nil {
		return nil, err
	}
	head.Pages = len(split)
	if err := r.storePlan(ctx, head); err != nil {
		return nil, err
	}
	j := newJournal(ctx, r, head, split)
	err = parallel.Each(len(split), 8, func(i int) error {
		p := page{Owner: head.Owner, Services: split[i]}
		var err error
		if p.items, err = r.outlineItems(p.Services); err != nil {
			return err
		}
		index, err := r.writePage(ctx, head.Number, i, p, 0)
		if errors.Is(err, ErrTakenOver) { // a deployer that was killed before it wrote the head left one
			if _, herr := r.Read(ctx, head.Number); !errors.Is(herr, ErrNoRelease) {
				return cmp.Or(herr, err) // it is that of another process, which holds the lock now
			}
			if _, index, err = r.readPage(ctx, head.Number, i); err != nil && !errors.Is(err, ErrMissing) {
				return err
			}
			index, err = r.writePage(ctx, head.Number, i, p, index)
		}
		if err != nil {
			return err
		}
		j.pages[i].index, j.pages[i].items = index, p.items
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

// TakeOver makes owner the owner of the release, in the head and in the journal. From
// then on, the former owner cannot write the journal, and so cannot submit a job.
func (r *Releases) TakeOver(ctx context.Context, head *Release, owner string) (*Journal, error) {
	head.Owner = owner
	if err := r.Save(ctx, head); err != nil {
		return nil, err
	}
	pages := make([]page, head.Pages)
	indexes := make([]uint64, head.Pages)
	err := parallel.Each(head.Pages, 8, func(i int) error {
		return nomad.RetryConflict(ctx, func() error { // its former owner may be writing
			p, index, err := r.readPage(ctx, head.Number, i)
			if err != nil {
				return err
			}
			p.Owner, p.Seq = owner, p.Seq+1
			index, err = r.writePage(ctx, head.Number, i, p, index)
			pages[i], indexes[i] = p, index
			return orConflict(err)
		})
	})
	if err != nil {
		return nil, err
	}
	split := make([][]Service, len(pages))
	for i, p := range pages {
		split[i] = p.Services
	}
	j := newJournal(ctx, r, head, split)
	for i, p := range pages {
		j.pages[i].index, j.pages[i].seq, j.pages[i].items, j.pages[i].unknown = indexes[i], p.Seq, p.items, p.unknown
	}
	j.start()
	return j, nil
}

// Keep removes the oldest releases until most are left, never the last good one
// nor one that is open or cannot be read. It returns the removed ones with their
// services, the newest first. The lock must be held.
//
// Blobs that no release names any more are deleted too, but it takes the journals of
// all releases to find them: see isSweepDue. All other requests are for releases that
// are too old, and for those since the last good one.
func (r *Releases) Keep(ctx context.Context, most int) ([]Removed, error) {
	numbers, indexes, err := r.listed(ctx)
	if err != nil || len(numbers) <= most {
		return nil, err
	}
	recent := numbers[len(numbers)-most:]
	old, err := r.readAll(ctx, numbers[:len(numbers)-most], indexes)
	if err != nil {
		return nil, err
	}
	good, err := r.anyGood(ctx, recent, indexes)
	if err != nil {
		return nil, err
	}
	var removed []Removed
	for _, h := range old {
		keep := h.State.Open() || h.State == Unreadable || h.State == Done && !good
		good = good || h.State == Done
		if keep {
			continue
		}
		services, err := r.Readable(ctx, h)
		if err != nil {
			return nil, err
		}
		removed = append(removed, Removed{h, services})
	}
	for _, h := range removed {
		if err := r.remove(ctx, h.Release); err != nil {
			return nil, err
		}
	}
	if kept := len(numbers) - len(removed); isSweepDue(removed, kept, numbers[len(numbers)-1], most) {
		heads, err := r.List(ctx)
		if err != nil {
			return removed, err
		}
		return removed, r.collect(ctx, heads)
	}
	return removed, nil
}

// anyGood reports whether one of the releases is good. It reads the newest first, and
// none after a good one.
func (r *Releases) anyGood(ctx context.Context, numbers []int, indexes map[int]uint64) (bool, error) {
	for _, n := range slices.Backward(numbers) {
		heads, err := r.readAll(ctx, []int{n}, indexes)
		if err != nil {
			return false, err
		}
		if len(heads) > 0 && heads[0].State == Done {
			return true, nil
		}
	}
	return false, nil
}

// isSweepDue reports whether Keep searches the releases that it keeps for the blobs that
// they need, to delete the others. That takes requests for each of them: it is due if as
// many blobs may be found, and otherwise with every most-th release.
func isSweepDue(removed []Removed, kept, newest, most int) bool {
	replaced := 0 // specs, by the removed releases
	for _, h := range removed {
		replaced += h.Changed + h.Pruned
	}
	return len(removed) > 1 || len(removed) == 1 && (replaced >= kept || newest%max(most, 1) == 0)
}

// Removed is a release that is not kept any more.
type Removed struct {
	*Release
	Services []Service
}

// remove deletes the head first, so that no head is without services.
func (r *Releases) remove(ctx context.Context, h *Release) error {
	if err := variables.Delete(ctx, r.client, r.headPath(h.Number), h.index, &api.WriteOptions{}); err != nil {
		return fmt.Errorf("deleting %s: %w", r.what(h.Number), err)
	}
	return parallel.Each(h.Pages, 8, func(i int) error {
		if err := variables.Delete(ctx, r.client, r.pagePath(h.Number, i), 0, &api.WriteOptions{}); err != nil {
			return fmt.Errorf("deleting the services of %s: %w", r.what(h.Number), err)
		}
		return nil
	})
}

// collect deletes the blobs that none of the heads needs. It deletes none if a
// head or a page cannot be read, since it may need any.
func (r *Releases) collect(ctx context.Context, heads []*Release) error {
	needed, err := r.needed(ctx, heads)
	var broken *UnreadableError
	if errors.As(err, &broken) {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := r.variables(ctx, "/blobs/")
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(path string) bool { return needed[strings.TrimPrefix(path, r.folder+"/blobs/")] })
	return r.deleteAll(ctx, list)
}

// needed are the digests of the blobs that heads and their services name.
func (r *Releases) needed(ctx context.Context, heads []*Release) (map[string]bool, error) {
	of := make([]map[string]bool, len(heads))
	err := parallel.Each(len(heads), 8, func(i int) error {
		services, err := r.Services(ctx, heads[i])
		of[i] = map[string]bool{heads[i].Values: true, heads[i].Checks: true}
		for _, digest := range heads[i].plan {
			of[i][digest] = true
		}
		for _, s := range services {
			of[i][s.Spec], of[i][s.Before] = true, true
			if s.Completed != nil {
				of[i][s.Completed.Spec] = true
			}
		}
		return err
	})
	all := map[string]bool{}
	for _, n := range of {
		maps.Copy(all, n)
	}
	return all, err
}

// variables are the paths below the folder of the stack that begin with prefix.
func (r *Releases) variables(ctx context.Context, prefix string) ([]string, error) {
	list, _, err := r.client.Variables().PrefixList(r.folder+prefix, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("listing the record of stack %s: %w", r.stack, err)
	}
	var out []string
	for _, v := range list {
		out = append(out, v.Path)
	}
	return out, nil
}

func (r *Releases) deleteAll(ctx context.Context, paths []string) error {
	return parallel.Each(len(paths), 8, func(i int) error {
		if err := variables.Delete(ctx, r.client, paths[i], 0, &api.WriteOptions{}); err != nil {
			return fmt.Errorf("deleting %s: %w", paths[i], err)
		}
		return nil
	})
}

// Purge deletes everything that is known of the stack's releases, readable or
// not: heads first, so that no head is without services.
func (r *Releases) Purge(ctx context.Context) error {
	list, err := r.variables(ctx, "/releases/")
	if err != nil {
		return err
	}
	isPage := func(path string) bool { return strings.Contains(strings.TrimPrefix(path, r.folder+"/releases/"), "/") }
	heads := slices.DeleteFunc(slices.Clone(list), isPage)
	if err := r.deleteAll(ctx, heads); err != nil {
		return err
	}
	if err := r.deleteAll(ctx, slices.DeleteFunc(list, func(path string) bool { return !isPage(path) })); err != nil {
		return err
	}
	if list, err = r.variables(ctx, "/blobs/"); err != nil {
		return err
	}
	return r.deleteAll(ctx, list)
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
