package chaos

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	t.Parallel()
	rows := []Row{
		{Seed: 1, Site: "s", Faults: []string{"a"}, Recover: time.Second, Sent: 10, Lost: 1, Commit: "c", Date: "2026-01-01", Files: 3},
		{Seed: 2, Site: "s", Faults: []string{"a"}, Code: 4, Recover: 3 * time.Second, Sent: 10, Commit: "c", Date: "2026-01-01"},
		{Seed: 3, Site: "s", Faults: []string{"a"}, Recover: 2 * time.Second, Sent: 10, Commit: "c", Date: "2026-01-01", Violations: []string{"v"}},
		{Seed: 9, Site: "r", Faults: []string{"a", "b"}, Code: -1, Commit: "c", Date: "2026-01-01"},
	}
	got := Table(rows)
	for _, line := range []string{
		"| s | a | 3 | deployed 2, went back 1 | 1 | 2.0 s, 3.0 s | 1 of 30 | 1–3 |\n",
		"| r | two at a time | 1 | killed 1 | 0 | 0.0 s, 0.0 s |  | 9 |\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is not in\n%s", line, got)
		}
	}
	want := "4 runs, seeds 1–3, 9, on 2026-01-01, commit c, a machine; 1 with a violation. 3 acknowledged files were compared afterwards.\n"
	if got := Summary(rows, "a machine"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
