package record

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/nomad/variables/vartest"
)

// kept makes releases in memory.
type kept struct {
	*testing.T
	server *vartest.Server
	last   int
}

func newKept(t *testing.T) *kept {
	t.Parallel()
	return &kept{T: t, server: vartest.New()}
}

// open returns the releases as a new process sees them.
func (k *kept) open() *Releases {
	k.Helper()
	return OpenReleases(vartest.Client(k.T, k.server), "shop", "prod")
}

// spec is the blob of a job in that version.
func (k *kept) spec(version int) Packed {
	k.Helper()
	p, err := Pack(Blob{Job: json.RawMessage(fmt.Sprintf(`{"ID":"web","Version":%d}`, version))})
	if err != nil {
		k.Fatal(err)
	}
	return p
}

// create makes the next release, which changes one service, and says that it changed so
// many.
func (k *kept) create(r *Releases, state State, changed int) {
	k.Helper()
	k.last++
	p := k.spec(k.last)
	if err := r.Store(k.Context(), []Packed{p}, nil); err != nil {
		k.Fatal(err)
	}
	line := Service{Name: "web", JobID: "web", Change: ChangeUpdate, Spec: p.Digest, Step: StepDone}
	if k.last > 1 {
		line.Before = k.spec(k.last - 1).Digest
	}
	j, err := r.Create(k.Context(), &Release{Number: k.last, State: state, Owner: "me", Changed: changed}, []Service{line})
	if err != nil {
		k.Fatal(err)
	}
	if err := j.Close(k.Context()); err != nil {
		k.Fatal(err)
	}
}

// keep calls Keep, and returns the numbers of the removed releases and of the requests.
func (k *kept) keep(r *Releases, most int) (removed []int, requests int) {
	k.Helper()
	k.server.TakeRequests()
	got, err := r.Keep(k.Context(), most)
	if err != nil {
		k.Fatal(err)
	}
	for _, h := range got {
		removed = append(removed, h.Number)
		if len(h.Services) != 1 {
			k.Errorf("release %d was removed with %d services, want 1", h.Number, len(h.Services))
		}
	}
	return removed, len(k.server.TakeRequests())
}

// A release with a long history makes as many requests as one with a short history.
func TestReleases_KeepRequestsDoNotGrow(t *testing.T) {
	t.Parallel()
	for _, most := range []int{10, 100} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			k := newKept(t)
			for range most {
				k.create(k.open(), Done, 1)
			}
			all := 0
			for range most { // each release in a process of its own
				r := k.open()
				k.create(r, Done, 1)
				removed, requests := k.keep(r, most)
				if want := []int{k.last - most}; !slices.Equal(removed, want) {
					t.Fatalf("removed %v, want %v", removed, want)
				}
				// The list, the oldest release and its page, which are read and deleted.
				if isLast := k.last == 2*most; !isLast && requests != 5 {
					t.Errorf("release %d: got %d requests, want 5", k.last, requests)
				}
				all += requests
			}
			if limit := 9 * most; all > limit {
				t.Errorf("%d releases made %d requests, want at most %d", most, all, limit)
			}
			// The specs of the releases, and the one before the oldest.
			if blobs := k.server.Paths(k.open().folder + "/blobs/"); len(blobs) != most+1 {
				t.Errorf("%d blobs are left after as many releases as are kept, want %d", len(blobs), most+1)
			}
		})
	}
}

// Blobs that a release has replaced are deleted with it if they are as many as the
// requests that it takes.
func TestReleases_KeepDeletesManyBlobsAtOnce(t *testing.T) {
	k := newKept(t)
	for range 7 {
		r := k.open()
		k.create(r, Done, 300)
		k.keep(r, 3)
		if blobs := k.server.Paths(r.folder + "/blobs/"); len(blobs) > 4 {
			t.Errorf("release %d: %d blobs are left, want at most 4", k.last, len(blobs))
		}
	}
}

func TestReleases_KeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		states []State // from release 1 on
		broken []int   // releases whose head cannot be read
		most   int
		want   []int // numbers that are left
	}{
		"the newest":                        {[]State{Done, Done, Done, Done}, nil, 2, []int{3, 4}},
		"all, if they are few":              {[]State{Done, Done}, nil, 2, []int{1, 2}},
		"the last good one":                 {[]State{Done, Done, FailedState, Reverted}, nil, 2, []int{2, 3, 4}},
		"no older good one":                 {[]State{Done, Done, Done, Reverted}, nil, 2, []int{3, 4}},
		"the last good one after a destroy": {[]State{Done, Done, Done, Destroyed}, nil, 1, []int{3, 4}},
		"open ones":                         {[]State{Interrupted, Done, Paused, Done, Done}, nil, 1, []int{1, 3, 5}},
		"an old one that cannot be read":    {[]State{Done, Done, Done, Done}, []int{1}, 2, []int{1, 3, 4}},
		"a good one before unreadable ones": {[]State{Done, Done, Done, Done}, []int{3, 4}, 2, []int{2, 3, 4}},
		"an unreadable one counts":          {[]State{Done, Done, Done}, []int{3}, 2, []int{2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKept(t)
			r := k.open()
			for _, s := range c.states {
				k.create(r, s, 1)
			}
			for _, n := range c.broken {
				k.server.Put(&api.Variable{Path: r.headPath(n), Items: api.VariableItems{variables.LayoutItem: "1", "release": "{"}})
			}
			k.keep(k.open(), c.most)
			if got, err := r.Numbers(t.Context()); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
			for _, n := range c.want {
				if _, err := r.Blob(t.Context(), k.spec(n).Digest); err != nil {
					t.Errorf("the spec of release %d: %v", n, err)
				}
			}
		})
	}
}

// A blob that waits to be deleted is no problem of the record.
func TestReleases_CheckAfterKeep(t *testing.T) {
	k := newKept(t)
	for range 4 {
		k.create(k.open(), Done, 1)
	}
	k.keep(k.open(), 3)
	r := k.open()
	if blobs := k.server.Paths(r.folder + "/blobs/"); len(blobs) != 4 {
		t.Fatalf("%d blobs are left, want 4", len(blobs))
	}
	k.create(r, Done, 1)
	k.keep(r, 3)
	got, err := k.open().Check(t.Context())
	if err != nil || len(got.Problems) > 0 || len(got.Releases) != 3 {
		t.Errorf("got %d releases, problems %+v, %v, want 3 and none", len(got.Releases), got.Problems, err)
	}
}
