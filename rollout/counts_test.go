package rollout

import (
	"reflect"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// TestCounts decides which count a group with a scaling block gets.
func TestCounts(t *testing.T) {
	group := func(n int) map[string]int { return map[string]int{"g": n} }
	for name, c := range map[string]struct {
		is       counts
		spec     int // of the job
		max      int64
		want     int
		kept     []KeptCount
		replaced []ReplacedCount
		said     string
	}{
		"file unchanged, never scaled": {is: counts{asked: group(2), released: group(2), live: group(2)}, spec: 2, want: 2},
		"file unchanged, scaled up": {
			is: counts{asked: group(2), released: group(2), live: group(6)}, spec: 2, want: 6, kept: []KeptCount{{"g", 2, 6, 0}},
			said: "count of group g stays 6, set by scaling; the stack says 2",
		},
		"file changed, never scaled": {is: counts{asked: group(4), released: group(2), live: group(2)}, spec: 4, want: 4},
		"file changed, scaled before": {
			is: counts{asked: group(4), released: group(2), live: group(6)}, spec: 4, want: 4, replaced: []ReplacedCount{{"g", 4, 6}},
			said: "count 4 of group g replaces 6, set by scaling: the stack has changed it",
		},
		"file changed to what it was scaled to": {is: counts{asked: group(6), released: group(2), live: group(6)}, spec: 6, want: 6},
		"max below the live count": {
			is: counts{asked: group(2), released: group(2), live: group(6)}, spec: 2, max: 4, want: 4, kept: []KeptCount{{"g", 2, 4, 6}},
			said: "count of group g goes from 6, set by scaling, to 4, the max of its scaling block; the stack says 2",
		},
		"max is the count of the file": {
			is: counts{asked: group(2), released: group(2), live: group(6)}, spec: 2, max: 2, want: 2, kept: []KeptCount{{"g", 2, 2, 6}},
			said: "count of group g goes from 6, set by scaling, to 2, the max of its scaling block; the stack says 2",
		},
		"not recorded, never scaled": {is: counts{asked: group(4), live: group(2)}, spec: 4, want: 4},
		"not recorded, scaled": {
			is: counts{asked: group(4), live: group(6), scaled: map[string]bool{"g": true}}, spec: 4, want: 6, kept: []KeptCount{{"g", 4, 6, 0}},
			said: "count of group g stays 6, set by scaling; the stack says 4",
		},
		"rollback to a release with the same count": {
			is: counts{asked: group(2), released: group(2), live: group(6)}, spec: 5, want: 6, kept: []KeptCount{{"g", 5, 6, 0}},
			said: "count of group g stays 6, set by scaling; the stack says 5",
		},
		"rollback to a release with another count": {is: counts{asked: group(2), released: group(4), live: group(4)}, spec: 5, want: 5},
		"a new group": {is: counts{asked: group(3), live: map[string]int{"other": 1}}, spec: 3, want: 3},
	} {
		t.Run(name, func(t *testing.T) {
			if c.max == 0 {
				c.max = 10
			}
			job := api.NewServiceJob("j", "j", "global", 50)
			tg := api.NewTaskGroup("g", c.spec)
			tg.Scaling = &api.ScalingPolicy{Min: ptr(int64(1)), Max: &c.max, Enabled: ptr(true)}
			job.AddTaskGroup(tg)
			got, kept, replaced := c.is.apply(job)
			if n := *got.TaskGroups[0].Count; n != c.want || !reflect.DeepEqual(kept, c.kept) || !reflect.DeepEqual(replaced, c.replaced) {
				t.Errorf("got %d, kept %+v, replaced %+v; want %d, %+v, %+v", n, kept, replaced, c.want, c.kept, c.replaced)
			}
			said := ""
			for _, k := range kept {
				said = k.String()
			}
			for _, r := range replaced {
				said = r.String()
			}
			if said != c.said {
				t.Errorf("said %q, want %q", said, c.said)
			}
			if *job.TaskGroups[0].Count != c.spec {
				t.Error("the given job was changed")
			}
		})
	}
}
