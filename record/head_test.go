package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/stack"
)

// largeHead is the head of a release with a wave for each target, and its lines.
func largeHead(t *testing.T, targets, services int) (*Release, []Service) {
	t.Helper()
	head := &Release{Number: 1, State: Running, Owner: "me", By: holder("ann")}
	var list []*stack.Target
	var lines []Service
	for i := range targets {
		target := &stack.Target{Name: fmt.Sprintf("target-%03d", i), Region: fmt.Sprintf("region-%d", i)}
		wave := &stack.Wave{Name: target.Name, Gate: stack.Gate{Timeout: 5 * time.Minute}}
		for k := range services {
			name := fmt.Sprintf("service-%02d", k)
			target.Services = append(target.Services, name)
			wave.Members = append(wave.Members, stack.Member{Target: target.Name, Service: name})
			lines = append(lines, Service{
				Target: target.Name, Name: name, JobID: name + "-" + target.Name, Region: target.Region, Wave: i, Change: ChangeCreate, Step: StepPending,
				Spec: Digest(fmt.Append(nil, i, k)),
			})
		}
		gate, err := json.Marshal(wave)
		if err != nil {
			t.Fatal(err)
		}
		head.Waves = append(head.Waves, Wave{Name: wave.Name, Gate: gate})
		list = append(list, target)
	}
	var err error
	if head.Targets, err = json.Marshal(list); err != nil {
		t.Fatal(err)
	}
	return head, lines
}

// A release of 200 targets with 25 services and a wave each is written, driven
// to its end and read, as one of a handful is.
func testLargeRelease(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "large", "default")
	head, services := largeHead(t, 200, 25)
	want := slices.Clone(head.Waves)
	j, err := r.Create(t.Context(), head, services)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Update(t.Context(), 4999, func(s *Service) { s.Step = StepDone }); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		_, err := r.Change(t.Context(), 1, func(h *Release) error {
			w := &h.Waves[i]
			w.State, w.Started, w.Ended = Done, time.Now().UTC(), time.Now().UTC().Add(time.Second)
			w.Approved, w.ApprovedAt = "ann@laptop", time.Now().UTC()
			return nil
		})
		if err != nil {
			t.Fatalf("wave %d: %v", i, err)
		}
	}
	other := OpenReleases(c, "large", "default")
	got, err := other.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Targets) != string(head.Targets) || len(got.Waves) != 200 {
		t.Errorf("%d bytes of targets, want %d; %d waves", len(got.Targets), len(head.Targets), len(got.Waves))
	}
	for i, w := range got.Waves {
		if w.Name != want[i].Name || string(w.Gate) != string(want[i].Gate) || w.State != Done || w.Approved != "ann@laptop" {
			t.Fatalf("wave %d is %+v, want %+v", i, w, want[i])
		}
	}
	got, j2 := takeOver(t, other, got)
	if lines := j2.Services(); len(lines) != 5000 || lines[4999].Step != StepDone || lines[4999].JobID != "service-24-target-199" {
		t.Errorf("%d lines, the last is %+v", len(lines), lines[len(lines)-1])
	}
	items := items(t, c, r.headPath(1))
	if items[variables.LayoutItem] != "2" || variables.Size(items) > 64<<10 {
		t.Errorf("layout %s, %d bytes", items[variables.LayoutItem], variables.Size(items))
	}

	// The blobs of the plan are kept as long as a release needs them.
	got.State = Done
	if err := other.Save(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if err := other.collect(t.Context(), []*Release{got}); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReleases(c, "large", "default").Read(t.Context(), 1); err != nil {
		t.Errorf("after the blobs were collected: %v", err)
	}
}

func takeOver(t *testing.T, r *Releases, head *Release) (*Release, *Journal) {
	t.Helper()
	j, err := r.TakeOver(t.Context(), head, "second")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return head, j
}

func TestHeadLayout(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		targets, services int
		layout            string
	}{{0, 0, "1"}, {1, 30, "1"}, {3, 30, "1"}, {60, 25, "2"}, {200, 25, "2"}, {200, 100, "2"}} {
		t.Run(fmt.Sprintf("%d targets with %d services", test.targets, test.services), func(t *testing.T) {
			t.Parallel()
			head, _ := largeHead(t, test.targets, test.services)
			out, parts, err := split(head)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range []*Release{out, ended(out)} {
				items, err := headItems(h)
				if err != nil || items[variables.LayoutItem] != test.layout || variables.Size(items) > 64<<10 {
					t.Errorf("layout %s, want %s; %d bytes, %v", items[variables.LayoutItem], test.layout, variables.Size(items), err)
				}
			}
			for digest, part := range parts {
				if variables.Size(map[string]string{variables.LayoutItem: "1", "part": part}) > 64<<10 || Digest([]byte(part)) != digest {
					t.Errorf("part %s has %d bytes", digest, len(part))
				}
			}
			if (len(parts) > 0) != (test.layout == "2") {
				t.Errorf("%d parts", len(parts))
			}
		})
	}
	t.Run("a head without end is refused before it is written", func(t *testing.T) {
		t.Parallel()
		head, _ := largeHead(t, 20_000, 1)
		var large *HeadTooLargeError
		if err := (&Releases{}).Fits(head); !errors.As(err, &large) {
			t.Errorf("%v", err)
		}
	})
	t.Run("1000 waves fit", func(t *testing.T) {
		t.Parallel()
		head, _ := largeHead(t, 1000, 25)
		if err := (&Releases{}).Fits(head); err != nil {
			t.Error(err)
		}
	})
}

func TestPages_StayWithinAVariable(t *testing.T) {
	t.Parallel()
	r := OpenReleases(nil, "s", "e")
	services := make([]Service, 150)
	for i := range services {
		services[i] = Service{Name: fmt.Sprint("s", i), JobID: fmt.Sprint("s", i), Spec: Digest(fmt.Append(nil, i)), Before: Digest(fmt.Append(nil, "b", i))}
		for k := range i { // every service depends on many others
			services[i].DependsOn = append(services[i].DependsOn, Digest(fmt.Append(nil, i, k)))
		}
	}
	pages, err := r.paged(services)
	if err != nil {
		t.Fatal(err)
	}
	var all []Service
	for _, p := range pages {
		all = append(all, p...)
		text, err := variables.Pack(page{Services: p})
		if err != nil || len(text) > blobLimit {
			t.Errorf("a page of %d services has %d bytes, %v", len(p), len(text), err)
		}
	}
	if len(all) != 150 || all[149].Name != "s149" || len(pages) < 2 {
		t.Errorf("%d services on %d pages", len(all), len(pages))
	}
	// Their details during a deployment have no limit of their own.
	small := lines(150)
	for i := range small {
		small[i].Detail = noise(uint8(i), 2000)
	}
	text, err := OpenReleases(nil, "small", "default").packPage(page{Services: small})
	if err != nil || len(text) > blobLimit {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// 300 services are one page, unless their outlines do not fit into it: a status would
// read one spec for each of them.
func TestPages_KeepOutlines(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outline int // bytes of each, which do not compress
		pages   int
	}{"without outlines": {0, 1}, "with small ones": {8, 1}, "with large ones": {100, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := OpenReleases(nil, "s", "e")
			services := lines(300)
			for i := range services {
				if c.outline > 0 {
					services[i].Outline = json.RawMessage(strconv.Quote(noise(uint8(i), c.outline)))
				}
			}
			pages, err := r.paged(services)
			if err != nil {
				t.Fatal(err)
			}
			if len(pages) != c.pages {
				t.Errorf("got %d pages, want %d", len(pages), c.pages)
			}
			for i, p := range pages {
				if items, err := r.outlineItems(p); err != nil || (items != nil) != (c.outline > 0) {
					t.Errorf("page %d of %d services: got outlines: %t, %v, want %t", i, len(p), items != nil, err, c.outline > 0)
				}
			}
		})
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in    string
		limit int
		want  string
	}{{"abc", 3, "abc"}, {"abcdef", 5, "ab…"}, {"ääää", 6, "ä…"}, {"abc", 0, ""}} {
		if got := clip(test.in, test.limit); got != test.want {
			t.Errorf("clip(%q, %d) = %q, want %q", test.in, test.limit, got, test.want)
		}
	}
}

// Fields that a newer drover has added to a head, its waves and its holder, to a page
// and its lines, to a schedule and its runs, and to their variables, survive a write of
// this drover.
func testUnknownKept(t *testing.T, c *api.Client, _ *tamper) {
	r := OpenReleases(c, "unknown", "default")
	head := &Release{Number: 1, State: Running, Owner: "me", By: holder("ann"), Waves: []Wave{{Name: "all"}}}
	j, err := r.Create(t.Context(), head, lines(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	add := func(text, after, member string) string {
		t.Helper()
		out := strings.Replace(text, after, after+member, 1)
		if out == text {
			t.Fatalf("no %q in %s", after, text)
		}
		return out
	}
	v, _, err := c.Variables().Peek(r.headPath(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	text := add(v.Items["release"], `{`, `"new_of_head":{"a":[1,2]},`)
	text = add(text, `"by":{`, `"new_of_holder":"x",`)
	v.Items["release"], v.Items["new_item"] = add(text, `"waves":[{`, `"new_of_wave":7,`), "of a newer drover"
	if _, _, err := c.Variables().Update(v, nil); err != nil {
		t.Fatal(err)
	}
	p, _, err := c.Variables().Peek(r.pagePath(1, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	var raw json.RawMessage
	if err := variables.Unpack(p.Items["services"], &raw); err != nil {
		t.Fatal(err)
	}
	text = add(string(raw), `{`, `"new_of_page":true,`)
	text = add(text, `"services":[{`, `"new_of_line":"y",`)
	if p.Items["services"], err = variables.Pack(json.RawMessage(text)); err != nil {
		t.Fatal(err)
	}
	p.Items["new_item"] = "of a page"
	if _, _, err := c.Variables().Update(p, nil); err != nil {
		t.Fatal(err)
	}

	if head, err = r.Change(t.Context(), 1, func(h *Release) error { h.Waves[0].State = Done; return nil }); err != nil {
		t.Fatal(err)
	}
	if j, err = r.TakeOver(t.Context(), head, "second"); err != nil {
		t.Fatal(err)
	}
	if err := j.Update(t.Context(), 0, func(s *Service) { s.Step = StepDone }); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := items(t, c, r.headPath(1))
	want(t, now["release"], `"new_of_head":{"a":[1,2]}`, `"new_of_holder":"x"`, `"new_of_wave":7`, `"owner":"second"`)
	want(t, now["new_item"], "of a newer drover")
	now = items(t, c, r.pagePath(1, 0))
	if err := variables.Unpack(now["services"], &raw); err != nil {
		t.Fatal(err)
	}
	want(t, string(raw), `"new_of_page":true`, `"new_of_line":"y"`, `"st":"done"`)
	want(t, now["new_item"], "of a page")

	s := OpenSchedules(c, "unknown", "default")
	if _, err := s.Change(t.Context(), "nightly", func(s *Schedule) { s.Runs = []Run{{Outcome: "deployed"}} }); err != nil {
		t.Fatal(err)
	}
	if v, _, err = c.Variables().Peek(s.path("nightly"), nil); err != nil {
		t.Fatal(err)
	}
	v.Items["schedule"], v.Items["runs"] = add(v.Items["schedule"], `{`, `"Timeout":"1h",`), add(v.Items["runs"], `[{`, `"new_of_run":1,`)
	v.Items["new_item"] = "of a schedule"
	if _, _, err := c.Variables().Update(v, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Change(t.Context(), "nightly", func(s *Schedule) { s.Paused = "by ann" }); err != nil {
		t.Fatal(err)
	}
	now = items(t, c, s.path("nightly"))
	want(t, now["schedule"], `"Timeout":"1h"`)
	want(t, now["runs"], `"new_of_run":1`)
	want(t, now["new_item"], "of a schedule")
}

func want(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s is not in %s", p, text)
		}
	}
}

// Every stored type writes what it has read, with what it does not know.
func TestUnknownMembers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		into any
		text string
	}{
		"release": {&Release{}, `{"number":3,"x":{"y":1}}`},
		"wave":    {&Wave{}, `{"name":"all","x":[null]}`},
		"service": {&Service{}, `{"s":"web","x":"<a>"}`},
		"holder":  {&Holder{}, `{"user":"ann","x":2}`},
		"page":    {&page{}, `{"owner":"me","x":1.50}`},
		"run":     {&Run{}, `{"outcome":"deployed","x":false}`},
		"nothing": {&Wave{}, `{"x":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := json.Unmarshal([]byte(test.text), test.into); err != nil {
				t.Fatal(err)
			}
			out, err := json.Marshal(test.into)
			if err != nil {
				t.Fatal(err)
			}
			var was, now map[string]any
			if err := errors.Join(json.Unmarshal([]byte(test.text), &was), json.Unmarshal(out, &now)); err != nil {
				t.Fatal(err)
			}
			for member, value := range was {
				if fmt.Sprint(now[member]) != fmt.Sprint(value) {
					t.Errorf("%s is %v, want %v: %s", member, now[member], value, out)
				}
			}
		})
	}
	if got := otherItems(map[string]string{variables.LayoutItem: "1", "a": "1", "b": "2"}, "a"); !maps.Equal(got, map[string]string{"b": "2"}) {
		t.Errorf("%v", got)
	}
}

// noise is n characters that do not compress well.
func noise(seed uint8, n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(Digest([]byte{seed, byte(i), byte(i >> 8)}))
	}
	return b.String()[:n]
}
