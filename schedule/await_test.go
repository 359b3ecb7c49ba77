package schedule

import (
	"testing"
	"time"

	"github.com/drover-nomad/drover/record"
)

func TestRunOf(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	run := func(job string, minutes int) record.Run {
		return record.Run{Job: job, At: noon.Add(time.Duration(minutes) * time.Minute)}
	}
	for name, test := range map[string]struct {
		job         string
		before, now []record.Run
		want        int // of now; -1 for none
	}{
		"first one":            {"j", nil, []record.Run{run("j", 0)}, 0},
		"not yet":              {"j", nil, nil, -1},
		"still the old one":    {"j", []record.Run{run("", 0)}, []record.Run{run("", 0)}, -1},
		"slow clock":           {"j", []record.Run{run("i", 60)}, []record.Run{run("i", 60), run("j", 0)}, 1},
		"another one ends":     {"j", []record.Run{run("i", 0)}, []record.Run{run("i", 0), run("k", 1)}, -1},
		"another one is later": {"j", nil, []record.Run{run("j", 0), run("k", 1)}, 0},
		"older drover":         {"j", []record.Run{run("", 60)}, []record.Run{run("", 60), run("", 0)}, 1},
		"job not known":        {"", []record.Run{run("i", 60)}, []record.Run{run("i", 60), run("j", 0)}, 1},
		"job not known yet":    {"", []record.Run{run("i", 0)}, []record.Run{run("i", 0)}, -1},
	} {
		got := runOf(test.job, test.before, test.now)
		if test.want < 0 && got != nil || test.want >= 0 && got != &test.now[test.want] {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
