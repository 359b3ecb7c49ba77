package stack

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/cronexpr"
	"github.com/hashicorp/hcl/v2"
)

// Actions of a schedule.
const (
	ScheduleRedeploy = "redeploy" // restart by a rolling update
	ScheduleDeploy   = "deploy"   // render again and deploy what changed
	ScheduleCheck    = "check"    // the stack's checks, and whether anything drifted
)

// How a schedule treats the commands of gates.
const (
	GateCommandSkip = "skip" // they are not run
	GateCommandRun  = "run"  // they are run where drover runs, in the cluster
)

// Schedule is a schedule block: an action that drover performs at given times.
type Schedule struct {
	Name     string
	Crons    []string // as Nomad's periodic block takes them
	TimeZone string   // IANA name, of Crons and window; "UTC" by default
	Action   string   // one of the Schedule constants
	Services []string // empty for all

	// SkipApproval is set if its releases begin waves and promote canaries without an
	// approval. GateCommand is one of the GateCommand constants, "" if it is not set.
	SkipApproval bool   `json:",omitempty"`
	GateCommand  string `json:",omitempty"`

	// The window in which it may start, in TimeZone: since midnight, and how
	// long. WindowFor is 0 for any time.
	WindowFrom, WindowFor time.Duration
	Range                 hcl.Range
}

type scheduleBlock struct {
	Crons    []string `hcl:"crons"`
	TimeZone string   `hcl:"time_zone,optional"`
	Action   string   `hcl:"action"`
	Services []string `hcl:"services,optional"`
	Window   string   `hcl:"window,optional"`

	Approve     string `hcl:"approve,optional"`
	GateCommand string `hcl:"gate_command,optional"`
}

func (r *environmentReader) schedule(b *hcl.Block) {
	var v scheduleBlock
	if !r.decode(b, &v) {
		return
	}
	sc := &Schedule{Name: b.Labels[0], Crons: v.Crons, TimeZone: cmp.Or(v.TimeZone, "UTC"), Action: v.Action, Range: b.DefRange}
	actions := []string{ScheduleRedeploy, ScheduleDeploy, ScheduleCheck}
	if !slices.Contains(actions, v.Action) {
		hint := "Write one of " + strings.Join(actions, ", ") + "."
		if near := Nearest(v.Action, actions); near != "" {
			hint = fmt.Sprintf("Did you mean %q?", near)
		}
		r.bad(attrRange(b, "action"), fmt.Sprintf("Unknown action %q of a schedule", v.Action), hint)
	}
	sc.Services = r.known(b, "services", "service", v.Services, r.services)
	if v.Action != ScheduleRedeploy && len(v.Services) > 0 {
		r.bad(attrRange(b, "services"), fmt.Sprintf("A schedule with action %q takes no services", v.Action), "It is about the whole stack. Remove services.")
	}
	if v.Approve != "" && v.Approve != "skip" {
		r.bad(attrRange(b, "approve"), fmt.Sprintf("Invalid approve %q of a schedule", v.Approve), `Write "skip": its releases wait for no approval and no promotion.`)
	}
	sc.SkipApproval = v.Approve == "skip"
	if v.GateCommand != "" && v.GateCommand != GateCommandSkip && v.GateCommand != GateCommandRun {
		r.bad(attrRange(b, "gate_command"), fmt.Sprintf("Invalid gate_command %q of a schedule", v.GateCommand), `Write "skip", or "run" where the program that runs drover in the cluster has the command.`)
	}
	sc.GateCommand = v.GateCommand
	zone, err := time.LoadLocation(sc.TimeZone)
	if err != nil || v.TimeZone == "Local" { // Local depends on the machine
		r.bad(attrRange(b, "time_zone"), fmt.Sprintf("Unknown time zone %q", v.TimeZone), `Write a name such as "Europe/Berlin" or "UTC".`)
		zone = time.UTC
	}
	if v.Window != "" {
		var ok bool
		if sc.WindowFrom, sc.WindowFor, ok = parseWindow(v.Window); !ok {
			r.bad(attrRange(b, "window"), fmt.Sprintf("Invalid window %q", v.Window), `Write hours in the schedule's time zone, such as "02:00-05:00".`)
		}
	}
	if len(v.Crons) == 0 {
		r.bad(attrRange(b, "crons"), "A schedule without a time", `Write crons = ["0 3 * * 0"].`)
	}
	for _, text := range v.Crons {
		r.cron(b, text, sc, zone)
	}
	r.s.Schedules = append(r.s.Schedules, sc)
}

// cron checks one cron expression with the parser that Nomad uses.
func (r *environmentReader) cron(b *hcl.Block, text string, sc *Schedule, zone *time.Location) {
	expr, err := cronexpr.Parse(text)
	if err != nil {
		r.bad(attrRange(b, "crons"), fmt.Sprintf("Invalid cron expression %q", text), "Nomad says: "+err.Error()+`. Write minute, hour, day, month and weekday, as "0 3 * * 0".`)
		return
	}
	const looked = 1000 // starts: enough to see each hour of the day that it names
	next := expr.NextN(r.now.In(zone), looked)
	if len(next) == 0 {
		r.bad(attrRange(b, "crons"), fmt.Sprintf("The cron expression %q never fires", text), "No such date will come again.")
		return
	}
	if sc.WindowFor > 0 && !slices.ContainsFunc(next, sc.MayStart) {
		r.bad(attrRange(b, "crons"), fmt.Sprintf("The cron expression %q never fires inside the window", text), fmt.Sprintf("Its next time is %s.", next[0].Format("Mon 2006-01-02 15:04 MST")))
	}
}

// MayStart reports whether t is inside the window.
func (s *Schedule) MayStart(t time.Time) bool {
	if s.WindowFor == 0 {
		return true
	}
	zone, err := time.LoadLocation(s.TimeZone)
	if err != nil {
		return false // never stored unchecked
	}
	t = t.In(zone)
	since := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second - s.WindowFrom
	if since < 0 {
		since += 24 * time.Hour
	}
	return since < s.WindowFor
}

// parseWindow reads hours of the day, as "23:00-01:30".
func parseWindow(text string) (from, length time.Duration, ok bool) {
	a, b, ok := strings.Cut(text, "-")
	start, err1 := time.Parse("15:04", strings.TrimSpace(a))
	end, err2 := time.Parse("15:04", strings.TrimSpace(b))
	if !ok || err1 != nil || err2 != nil || start.Equal(end) {
		return 0, 0, false
	}
	from = time.Duration(start.Hour())*time.Hour + time.Duration(start.Minute())*time.Minute
	if length = end.Sub(start); length < 0 {
		length += 24 * time.Hour // past midnight
	}
	return from, length, true
}
