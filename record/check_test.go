package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
)

// damaged writes releases 1 to n of one service each, and returns their specs.
func damaged(t *testing.T, r *Releases, n int) []string {
	t.Helper()
	var specs []string
	for i := 1; i <= n; i++ {
		p, err := Pack(Blob{Job: json.RawMessage(fmt.Sprintf(`{"ID":"%s-v%d"}`, r.stack, i))})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Store(t.Context(), []Packed{p}, nil); err != nil {
			t.Fatal(err)
		}
		j, err := r.Create(t.Context(), &Release{
			Number: i, Stack: r.stack, Environment: r.env, State: Done, Owner: "me", Targets: json.RawMessage(`[{"Name":"","Region":"eu"}]`),
		}, []Service{{Name: "a", JobID: "a", Spec: p.Digest, Step: StepDone, Change: ChangeCreate, Index: uint64(i)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		specs = append(specs, p.Digest)
	}
	return specs
}

// breakItem replaces an item of a variable.
func breakItem(t *testing.T, c *api.Client, path, item, text string) {
	t.Helper()
	v, _, err := c.Variables().Peek(path, nil)
	if err != nil || v == nil {
		t.Fatalf("%s: %v", path, err)
	}
	v.Items[item] = text
	if _, _, err := c.Variables().Update(v, nil); err != nil {
		t.Fatal(err)
	}
}

// A head and a page that cannot be read are named, and everything else is read,
// kept and removed as without them.
func testUnreadable(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "unreadable", "default")
	damaged(t, r, 6)
	breakItem(t, c, r.headPath(2), "release", "{")
	breakItem(t, c, r.pagePath(3, 0), "services", "zzz")
	list, err := r.List(t.Context())
	if err != nil || len(list) != 6 {
		t.Fatalf("%d releases, %v", len(list), err)
	}
	for _, h := range list {
		if (h.State == Unreadable) != (h.Number == 2) {
			t.Errorf("release %d is %s", h.Number, h.State)
		}
	}
	if h := list[4]; !strings.Contains(h.Detail, "cannot read drover/stacks/unreadable/default/releases/000002: ") {
		t.Errorf("detail %q", h.Detail)
	}
	var broken *UnreadableError
	for _, i := range []int{3, 4} { // releases 3 and 2
		if _, err := r.Services(t.Context(), list[i]); !errors.As(err, &broken) || !strings.HasPrefix(broken.Path, r.headPath(list[i].Number)) {
			t.Errorf("release %d: %v", list[i].Number, err)
		}
		if lines, err := r.Readable(t.Context(), list[i]); err != nil || len(lines) != 0 {
			t.Errorf("release %d: %v, %v", list[i].Number, lines, err)
		}
	}
	// Retention goes on; nothing that an unreadable release may need is deleted.
	removed, err := r.Keep(t.Context(), 2)
	numbers, nerr := r.Numbers(t.Context())
	if err != nil || nerr != nil || len(removed) != 3 || !slices.Equal(numbers, []int{2, 5, 6}) {
		t.Errorf("%d removed, left %v, %v, %v", len(removed), numbers, err, nerr)
	}
	blobs, err := r.variables(t.Context(), "/blobs/")
	if err != nil || len(blobs) != 6 {
		t.Errorf("%d blobs are left, want 6: %v", len(blobs), err)
	}
	if err := r.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := r.variables(t.Context(), "/"); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func testRepair(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "repair", "default")
	specs := damaged(t, r, 7)
	got, err := r.Check(t.Context())
	if err != nil || len(got.Problems) > 0 || len(got.Releases) != 7 {
		t.Fatalf("a sound record: %+v, %v", got, err)
	}
	breakItem(t, c, r.headPath(1), "release", "{")                             // its services are readable
	breakItem(t, c, r.headPath(2), "release", "{")                             // nothing of it is
	breakItem(t, c, r.pagePath(2, 0), "services", "zzz")                       //
	breakItem(t, c, r.pagePath(3, 0), "services", "zzz")                       // its head is readable
	breakItem(t, c, r.headPath(4), variables.LayoutItem, "9")                  // of a newer drover
	breakItem(t, c, r.blobPath(specs[4]), "blob", "zzz")                       // of release 5
	if _, err := c.Variables().Delete(r.blobPath(specs[5]), nil); err != nil { // of release 6
		t.Fatal(err)
	}
	for path, items := range map[string]api.VariableItems{
		r.lockPath():     {variables.LayoutItem: "1", "holder": "{}"},
		r.pagePath(7, 1): {variables.LayoutItem: "1", "services": "x"},
	} {
		if _, _, err := c.Variables().Create(&api.Variable{Path: path, Items: items}, nil); err != nil {
			t.Fatal(err)
		}
	}
	// Modified after it was created: the lock is not held.
	breakItem(t, c, r.lockPath(), "holder", `{"user":"ann"}`)
	if _, err := r.Create(t.Context(), &Release{Number: 9, Stack: "repair", State: Running, Owner: "me"}, lines(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Variables().Delete(r.headPath(9), nil); err != nil { // killed before its head
		t.Fatal(err)
	}

	got, err = r.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	repairs := map[string]string{}
	for _, p := range got.Problems {
		repairs[strings.TrimPrefix(p.Variable, r.folder+"/")] = p.Repair
		if p.Problem == "" || p.Variable == "" {
			t.Errorf("%+v", p)
		}
	}
	for variable, repair := range map[string]string{
		"releases/000001": "rebuild the release, as an abandoned one, from the 1 services that can be read", "releases/000002": "remove the release from the list",
		"releases/000003/00": "mark the release as abandoned, with the 0 of its services that can be read", "releases/000004": "",
		"releases/000007/01": "delete it", "releases/000009": "delete them", "lock": "delete it",
		"blobs/" + specs[4]: "", "blobs/" + specs[5]: "", // the last that is said of it: what needs it
	} {
		if is, there := repairs[variable]; !there || is != repair {
			t.Errorf("%s: %q, %v, want %q", variable, is, there, repair)
		}
	}

	l, err := r.Lock(t.Context(), holder("ann"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	done, err := r.Repair(t.Context(), got.Problems)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.Repair(t.Context(), got.Problems); err != nil || len(again) > 0 {
		t.Errorf("once more: %v, %v", again, err)
	}
	if err := l.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d repairs", len(done))
	list, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := map[int]State{}
	for _, h := range list {
		states[h.Number] = h.State
	}
	if want := (map[int]State{1: Abandoned, 3: Abandoned, 4: Unreadable, 5: Done, 6: Done, 7: Done}); fmt.Sprint(states) != fmt.Sprint(want) {
		t.Errorf("states %v, want %v", states, want)
	}
	one, err := r.Read(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	services, err := r.Services(t.Context(), one)
	if err != nil || len(services) != 1 || services[0].Spec != specs[0] || string(one.Targets) != `[{"Name":"","Region":"eu"}]` {
		t.Errorf("release 1 has %+v, targets %s, %v", services, one.Targets, err)
	}
	// A problem that cannot be repaired is still reported.
	if got, err = r.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range got.Problems {
		if p.Repair != "" {
			t.Errorf("not repaired: %+v", p)
		}
	}
	if len(got.Problems) != 3 { // release 4, and what releases 5 and 6 lack
		t.Errorf("%+v", got.Problems)
	}
}

// While a deployer holds the lock, what it may just be writing is no problem.
func TestCheck_WhileADeployerWrites(t *testing.T) {
	t.Parallel()
	f := &found{number: 3, pages: map[int]uint64{0: 7}, lines: []Service{{Name: "a", Step: StepPending}}}
	for _, busy := range []bool{true, false} {
		out := &Checked{}
		(&Releases{}).judge(out, f, []*found{f}, busy)
		if (len(out.Problems) == 0) != busy {
			t.Errorf("busy %v: %+v", busy, out.Problems)
		}
	}
}
