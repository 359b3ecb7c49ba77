package devtest

import (
	"cmp"
	"fmt"
	"strings"
)

// MockJob is the spec of a job with one group and one task of Nomad's mock driver. The
// task is no process, so that it starts and ends at once. Its allocations are neither
// restarted nor rescheduled.
type MockJob struct {
	ID         string
	Type       string // "" for service
	Value      string // of the task's variable VALUE, "" for none
	Count      int    // 0 for 1
	MinHealthy string // min_healthy_time of a service, "" for 200ms
	Config     string // of the driver, "" for `run_for = "1h"`; Broken does not start
	Logs       bool   // whether Nomad collects the output, with a process for each task

	// HCL that is added to the blocks.
	Job, Update, Group, Task string
}

// Broken is the Config of a task that does not start. A task that runs for a moment
// can be healthy first.
const Broken = `start_error = "broken"`

// String returns the spec in HCL.
func (j MockJob) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "job %q {\n", j.ID)
	add := func(indent, text string) {
		for line := range strings.Lines(strings.Trim(text, "\n")) {
			b.WriteString(indent + strings.TrimRight(line, "\n") + "\n")
		}
	}
	if j.Type != "" {
		add("  ", fmt.Sprintf("type = %q", j.Type))
	}
	add("  ", j.Job)
	service := j.Type == "" || j.Type == "service"
	if service {
		fmt.Fprintf(&b, `  update {
    min_healthy_time  = %q
    healthy_deadline  = "2m"
    progress_deadline = "3m"
    health_check      = "task_states"
`, cmp.Or(j.MinHealthy, "200ms"))
		add("    ", j.Update)
		b.WriteString("  }\n")
	}
	b.WriteString("  group \"g\" {\n")
	if j.Count > 0 {
		fmt.Fprintf(&b, "    count = %d\n", j.Count)
	}
	add("    ", j.Group)
	b.WriteString("    restart {\n      attempts = 0\n      mode     = \"fail\"\n    }\n")
	b.WriteString("    reschedule {\n      attempts  = 0\n      unlimited = false\n    }\n")
	fmt.Fprintf(&b, "    task \"t\" {\n      driver = \"mock_driver\"\n      logs {\n        disabled = %t\n      }\n", !j.Logs)
	if j.Value != "" {
		fmt.Fprintf(&b, "      env {\n        VALUE = %q\n      }\n", j.Value)
	}
	b.WriteString("      config {\n")
	add("        ", cmp.Or(j.Config, `run_for = "1h"`))
	b.WriteString("      }\n")
	add("      ", j.Task)
	b.WriteString("      resources {\n        cpu    = 1\n        memory = 10\n      }\n    }\n  }\n}\n")
	return b.String()
}
