package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/rollout"
)

// exitCodes is what docs/reference/exit-codes.md says, row by row.
var exitCodes = [...]struct {
	code    int
	outcome string // of a rollout, as in -o json
	meaning string
	next    string
}{
	{exitOK, "deployed, unchanged", "everything asked for is done and healthy", ""},
	{exitError, "", "something failed that has no code of its own; `status`: not everything is healthy; `doctor`: there is an error", "read the message"},
	{exitUsage, "", "a mistake on the command line, in the stack or in its values; nothing was done. With `--detailed-exitcode` (`plan`, `drift`): there are changes, and every error is 1", "read the message"},
	{exitFailed, "failed", "a service did not become healthy and was not reverted; its allocations may still run", "`nomad job status JOB`"},
	{exitReverted, "failed-reverted", "a service failed and was reverted: by Nomad, or by drover for the whole release", "`drover show STACK RELEASE`"},
	{exitPromotion, "awaiting-promotion, awaiting-approval", "canaries are healthy beside the old version and wait for a promotion, or a wave waits for an approval", "`drover promote STACK` or `drover approve STACK`, or `drover abort STACK`"},
	{exitSuperseded, "superseded", "another client changed a job during the release, or since the saved plan was made", "`nomad job history JOB`"},
	{exitPlacement, "placement-blocked", "no node can take a service: a constraint, or an exhausted resource. If the plan finds it, nothing was done; after `--placement-timeout` the allocations stay queued", "`nomad node status`"},
	{exitTimeout, "timed-out", "a service was not healthy within `--service-timeout`, or not all services within `--timeout`; Nomad continues the deployment", "`drover status STACK`"},
	{exitCheck, "", "`check`: an answer was not as expected", "`drover logs STACK SERVICE`"},
	{exitCluster, "unreachable", "Nomad or Consul cannot be reached, refuses the token, or is too old; nothing was done unless the output says so", "look at `NOMAD_ADDR`, `NOMAD_TOKEN`, `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN`"},
	{exitBusy, "", "another process is changing the stack, or a release is open, or there is no open release to resume; nothing was done", "`drover status STACK`, `drover resume STACK`, `drover abort STACK`"},
	{exitCancelled, "cancelled", "Ctrl-C or SIGTERM; Nomad continues with the jobs that were submitted, which the output names", "`drover resume STACK` or `drover abort STACK`"},
}

// onlyOutcome returns the outcome of a code, "" if it has none or several.
func onlyOutcome(code int) string {
	for _, e := range exitCodes {
		if e.code == code && !strings.Contains(e.outcome, ",") {
			return e.outcome
		}
	}
	return ""
}

// worstCodes are the codes of outcomes that are not good, the worst first.
func worstCodes() string {
	var codes []string
	for _, o := range rollout.WorstFirst() {
		if code := fmt.Sprint(outcomeCode(o)); !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	return strings.Join(codes, ", ")
}

// newExitCodes is a help topic: `drover help exit-codes`.
func newExitCodes() *cobra.Command {
	var b strings.Builder
	b.WriteString("Every command ends with one of these codes.\n\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "%5d  %s\n", e.code, strings.ReplaceAll(e.meaning, "`", "'"))
		if e.outcome != "" {
			fmt.Fprintf(&b, "       outcome: %s\n", e.outcome)
		}
		if e.next != "" {
			fmt.Fprintf(&b, "       next: %s\n", strings.ReplaceAll(e.next, "`", "'"))
		}
	}
	b.WriteString("\nWith several services the worst counts: " + worstCodes() + ".")
	return &cobra.Command{Use: "exit-codes", Short: "List the exit codes of drover", Long: b.String()}
}
