package schedule

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Check returns a diagnostic with stack.CodeSchedule for each schedule of an environment
// that cannot work in the cluster: there is no drover_driver, or its releases would need
// an operator or a local file. jobs are those of the stack.
func Check(s *stack.Stack, jobs []render.Job) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, sc := range s.Schedules {
		bad := func(summary, detail string) {
			at := sc.Range
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("Schedule %q cannot work: %s", sc.Name, summary), Detail: detail, Subject: &at, Extra: stack.CodeSchedule})
		}
		if s.Driver == nil {
			bad("the environment has no drover_driver, which says how drover gets to the nodes", `Write for instance drover_driver "raw_exec" { path = "/usr/local/bin/drover" }.`)
		}
		if sc.Action == stack.ScheduleCheck {
			continue // it changes nothing
		}
		touched := map[stack.Member]bool{}
		var canaries []string
		for _, j := range jobs {
			if len(sc.Services) > 0 && !slices.Contains(sc.Services, j.Service) {
				continue
			}
			if sc.Action == stack.ScheduleRedeploy && len(sc.Services) == 0 && !release.KeepsRunning(j.Job) {
				continue
			}
			touched[stack.Member{Target: j.Target, Service: j.Service}] = true
			if judged := slices.ContainsFunc(s.Waves, func(w *stack.Wave) bool {
				return w.Promote && slices.Contains(w.Members, stack.Member{Target: j.Target, Service: j.Service})
			}); !judged && rollout.WaitsForPromotion(j.Job) && !slices.Contains(canaries, j.Service) {
				canaries = append(canaries, j.Service)
			}
		}
		for _, w := range s.Waves {
			if !slices.ContainsFunc(w.Members, func(m stack.Member) bool { return touched[m] }) {
				continue
			}
			if w.Approve && !sc.SkipApproval {
				bad(fmt.Sprintf("wave %q waits for an approval", w.Name), `Its release would stay open and block the next deploy. Write approve = "skip" in the schedule, or choose services of other waves.`)
			}
			if len(w.Gate.Command) > 0 && sc.GateCommand == "" {
				bad(fmt.Sprintf("the gate of wave %q runs the command %s", w.Name, w.Gate.Command[0]), `The job in the cluster has no files of the stack. Write gate_command = "skip" in the schedule, or "run" where the image or node of drover_driver has the command.`)
			}
		}
		if len(canaries) > 0 && !sc.SkipApproval {
			bad(fmt.Sprintf("canaries of %s wait for a promotion", strings.Join(canaries, ", ")), `Its release would stay open and block the next deploy. Write auto_promote = true in the update block, or approve = "skip" in the schedule.`)
		}
	}
	return diags
}
