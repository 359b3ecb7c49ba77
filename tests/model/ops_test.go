package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
)

// Exit codes, as docs/reference/exit-codes.md has them.
const (
	codeOK        = 0
	codeError     = 1
	codeUsage     = 2
	codeFailed    = 3
	codeReverted  = 4
	codePromotion = 5
)

// step does one operation and returns what it did and where drover and the
// model disagree, "" where they agree.
func (w *world) step() (what, violation string) {
	what, do := w.choose()
	alone := slices.Contains([]string{"gc", "drain"}, what)
	if alone {
		w.site.alone.Lock()
		defer w.site.alone.Unlock()
	} else {
		w.site.alone.RLock()
		defer w.site.alone.RUnlock()
	}
	w.log.Reset()
	detail, violation := do()
	if what = strings.TrimSpace(what + " " + detail); violation == "" {
		violation = w.check()
	}
	return what, violation
}

type op = func() (detail, violation string)

// choose picks an operation that makes sense now.
func (w *world) choose() (string, op) {
	type choice struct {
		weight int
		name   string
		do     op
	}
	var list []choice
	switch {
	case len(w.releases) == 0:
		return "deploy", w.deploy
	case w.failed != "":
		list = []choice{{2, "deploy again", w.retryFailed}, {2, "fix", w.fix}, {2, "rollback", w.rollbackFailed}, {1, "gc", w.collect}}
	case len(w.runs) == 0:
		list = []choice{{3, "deploy", w.deploy}, {2, "rollback", w.rollback}, {1, "gc", w.collect}}
	default:
		list = []choice{
			{6, "deploy", w.deploy}, {2, "deploy unchanged", w.unchanged}, {3, "fail", w.fail}, {3, "fail and stop", w.failAndStop},
			{4, "rollback", w.rollback}, {2, "move", w.move}, {1, "foreign", w.foreign}, {1, "prune refused", w.pruneRefused},
			{1, "destroy", w.destroy}, {2, "gc", w.collect}, {2, "drain", w.drain}, {3, "scale", w.scale}, {3, "redeploy", w.redeploy},
			{1, "run again", w.runAgain},
		}
	}
	sum := 0
	for _, c := range list {
		sum += c.weight
	}
	at := w.rng.IntN(sum)
	for _, c := range list {
		if at -= c.weight; at < 0 {
			return c.name, c.do
		}
	}
	panic("unreachable")
}

func (w *world) chance(n int) bool { return w.rng.IntN(n) == 0 }

func pick[T any](w *world, list []T) T { return list[w.rng.IntN(len(list))] }

func (w *world) args(verb string, rest ...string) []string {
	return append([]string{verb, w.dir, "-e", w.env}, rest...)
}

func (w *world) recorded(verb string, rest ...string) []string {
	return append([]string{verb, w.name, "-e", w.env}, rest...)
}

// target returns the jobs that a deploy of the files leads to. It keeps from the running
// jobs a scaled count and the mark of a redeploy.
func (w *world) target() stackOf {
	out := w.files.clone()
	for name, s := range out {
		now, there := w.runs[name]
		if !there || now.ns != s.ns {
			continue
		}
		if s.kind == scaled && s.count == w.asked[name] {
			s.count = now.count
		}
		s.mark = now.mark
		out[name] = s
	}
	return out
}

// waits reports whether an update leads to canaries that wait for a promotion.
func (w *world) waits(to stackOf) bool {
	for name, s := range to {
		now, there := w.runs[name]
		if there && s.kind == canary && now.ns == s.ns && (now.value != s.value || now.mark != s.mark || !slices.Equal(now.secrets, s.secrets)) {
			return true
		}
	}
	return false
}

// release runs a command that makes a release, promotes or aborts it where it
// waits, and notes in the model what it leaves.
func (w *world) release(kind string, to stackOf, args []string) (detail, violation string) {
	if to.equal(w.runs) && w.failed == "" && kind != "redeploy" {
		out, code := w.run(args...)
		if code != codeOK || !strings.Contains(out, "unchanged") {
			return "", fmt.Sprintf("%s changes nothing and ended with %d", args[0], code)
		}
		return "(unchanged)", ""
	}
	number := w.number()
	before := w.runs.clone()
	want := codeOK
	if w.waits(to) {
		want = codePromotion
	}
	_, code := w.run(args...)
	if code != want {
		return "", fmt.Sprintf("%s ended with %d, want %d", args[0], code, want)
	}
	state := record.Done
	if want == codePromotion {
		verb := "promote"
		if w.chance(3) {
			verb, state = "abort", record.Aborted
		}
		if _, code := w.run(w.recorded(verb)...); code != codeOK {
			return "", fmt.Sprintf("%s of a release that waits ended with %d, want 0", verb, code)
		}
		detail = "(" + verb + ")"
	}
	made := to.clone()
	w.releases = append(w.releases, rel{number: number, state: state, kind: kind, made: made, asked: maps.Clone(w.asking)})
	if state == record.Aborted {
		w.runs = before
		return detail, ""
	}
	w.runs, w.failed = to, ""
	w.asked = maps.Clone(w.asking)
	return detail, ""
}

// number is that of the next release.
func (w *world) number() int {
	if last := w.last(); last != nil {
		return last.number + 1
	}
	return 1
}

// edit changes the files and says how.
func (w *world) edit() string {
	names := w.files.names()
	name := pick(w, names)
	s := w.files[name].clone()
	var what string
	switch w.rng.IntN(7) {
	case 0, 1:
		w.next++
		s.value, what = w.next, "value of "+name
	case 2:
		if s.kind == batch {
			w.next++
			s.value, what = w.next, "value of "+name
			break
		}
		s.count, what = 1+w.rng.IntN(3), "count of "+name
	case 3:
		item := pick(w, []string{"alpha", "beta", "gamma"})
		if i := slices.Index(s.secrets, item); i >= 0 {
			s.secrets, what = slices.Delete(s.secrets, i, i+1), "drops secret "+item+" of "+name
		} else {
			s.secrets = append(s.secrets, item)
			slices.Sort(s.secrets)
			what = "adds secret " + item + " to " + name
		}
	case 4:
		if s.kind == scaled {
			w.next++
			s.value, what = w.next, "value of "+name
			break
		}
		s.ns, what = !s.ns, "namespace of "+name
	case 5:
		w.next++
		name = fmt.Sprintf("extra%d", w.next)
		s, what = svc{kind: plain, value: w.next, count: 1}, "adds "+name
		if w.chance(2) {
			s.secrets = []string{"beta"}
		}
	case 6:
		extras := slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, "extra") })
		if len(extras) > 0 {
			name = pick(w, extras)
			delete(w.files, name)
			return "prunes " + name
		}
		w.next++
		s.value, what = w.next, "value of "+name
	}
	w.files[name] = s
	return what
}

func (w *world) deploy() (string, string) {
	var edits []string
	files := w.files.clone()
	if len(w.releases) > 0 {
		for range 1 + w.rng.IntN(2) {
			edits = append(edits, w.edit())
		}
	}
	detail, violation := w.release("deploy", w.writeTarget(), w.args("deploy", "-y"))
	if last := w.last(); last != nil && last.state == record.Aborted {
		w.files = files
	}
	return strings.Join(edits, ", ") + " " + detail, violation
}

// writeTarget writes the files and returns the jobs that they should lead to.
func (w *world) writeTarget() stackOf {
	if err := w.write(); err != nil {
		w.t.Fatal(err)
	}
	to := w.target()
	w.asking = counts(w.files)
	return to
}

func counts(s stackOf) map[string]int {
	out := map[string]int{}
	for name, v := range s {
		out[name] = v.count
	}
	return out
}

func (w *world) unchanged() (string, string) {
	return w.release("deploy", w.writeTarget(), w.args("deploy"))
}

// break_ makes a service of the files one that does not start.
func (w *world) breaks(kinds ...string) string {
	names := slices.DeleteFunc(w.files.names(), func(n string) bool { return !slices.Contains(kinds, w.files[n].kind) })
	name := pick(w, names)
	s := w.files[name].clone()
	w.next++
	s.value, s.crash = w.next, true
	w.files[name] = s
	return name
}

// fail deploys a service that does not start: everything goes back.
func (w *world) fail() (string, string) {
	files := w.files.clone()
	edit := ""
	if w.chance(2) {
		edit = ", " + w.edit()
	}
	name := w.breaks(plain, canary, scaled, batch)
	w.writeTarget()
	number := w.number()
	_, code := w.run(w.args("deploy", "-y", "--on-failure", "revert-release")...)
	w.files = files
	if err := w.write(); err != nil {
		w.t.Fatal(err)
	}
	if code != codeReverted {
		return name, fmt.Sprintf("a deploy that fails and goes back ended with %d, want %d", code, codeReverted)
	}
	w.releases = append(w.releases, rel{number: number, state: record.Reverted, kind: "deploy"})
	return name + edit, ""
}

// failAndStop deploys a service that does not start and leaves it.
func (w *world) failAndStop() (string, string) {
	w.failed = w.breaks(plain, scaled, batch)
	return w.failed, w.leaveFailed()
}

func (w *world) leaveFailed() string {
	to := w.writeTarget()
	number := w.number()
	_, code := w.run(w.args("deploy", "-y", "--on-failure", "stop")...)
	if code != codeFailed {
		return fmt.Sprintf("a deploy that fails and stops ended with %d, want %d", code, codeFailed)
	}
	w.releases = append(w.releases, rel{number: number, state: record.FailedState, kind: "deploy"})
	w.runs, w.asked = to, maps.Clone(w.asking)
	return ""
}

// retryFailed deploys a failed version again: it is not "unchanged".
func (w *world) retryFailed() (string, string) { return w.failed, w.leaveFailed() }

// fix deploys what starts.
func (w *world) fix() (string, string) {
	s := w.files[w.failed]
	w.next++
	s.value, s.crash = w.next, false
	w.files[w.failed] = s
	name := w.failed
	detail, violation := w.release("deploy", w.writeTarget(), w.args("deploy", "-y"))
	return name + " " + detail, violation
}

// rollbackFailed goes back to the newest good release.
func (w *world) rollbackFailed() (string, string) {
	for _, r := range slices.Backward(w.releases) {
		if r.state == record.Done {
			detail, violation := w.backTo(r, w.recorded("rollback", "-y"))
			return fmt.Sprintf("to %d %s", r.number, detail), violation
		}
	}
	return "(nothing good)", ""
}

func (w *world) rollback() (string, string) {
	var good []rel
	kept := w.releases[max(0, len(w.releases)-8):]
	for _, r := range kept {
		if r.state == record.Done {
			good = append(good, r)
		}
	}
	if len(good) == 0 {
		return "(nothing good)", ""
	}
	r := pick(w, good)
	detail, violation := w.backTo(r, w.recorded("rollback", fmt.Sprint(r.number), "-y"))
	return fmt.Sprintf("to %d %s", r.number, detail), violation
}

func (w *world) backTo(r rel, args []string) (string, string) {
	to := r.made.clone()
	w.asking = maps.Clone(r.asked)
	for name, s := range to {
		now, there := w.runs[name]
		if s.kind != scaled {
			continue
		}
		// Else it gets the count that the release registered, which is the one that
		// the group was scaled to then.
		if there && now.ns == s.ns && r.asked[name] == w.asked[name] {
			s.count = now.count // the count that it was scaled to
		}
		to[name] = s
	}
	detail, violation := w.release("rollback", to, args)
	if violation != "" || w.last().state == record.Aborted {
		return detail, violation
	}
	w.files = to.clone()
	for name, s := range w.files { // the operator takes the files of that release
		s.mark, s.count = 0, r.asked[name]
		w.files[name] = s
	}
	if err := w.write(); err != nil {
		w.t.Fatal(err)
	}
	return detail, ""
}

// foreign deploys the stack as another environment, which owns none of the
// jobs: it is refused, and nothing is written.
func (w *world) foreign() (string, string) {
	w.writeTarget()
	out, code := w.run("deploy", w.dir, "-e", w.other(), "-y")
	if code == codeOK || !strings.Contains(out, w.env) {
		return "", fmt.Sprintf("a deploy of the jobs of another environment ended with %d, and does not name it", code)
	}
	return "", ""
}

func (w *world) other() string {
	if w.env == "blue" {
		return "green"
	}
	return "blue"
}

// move renames the environment.
func (w *world) move() (string, string) {
	if !w.site.moves {
		return "(no such command)", ""
	}
	to := w.other()
	if _, code := w.run("move", w.name, "-e", w.env, "--to-env", to); code != codeOK {
		return "", fmt.Sprintf("move ended with %d, want 0", code)
	}
	w.env = to
	return "to " + to, ""
}

// pruneRefused drops a service that runs, without consent.
func (w *world) pruneRefused() (string, string) {
	files := w.files.clone()
	name := pick(w, slices.DeleteFunc(w.files.names(), func(n string) bool { return w.files[n].kind == batch }))
	delete(w.files, name)
	w.writeTarget()
	_, code := w.run(w.args("deploy")...)
	w.files = files
	if err := w.write(); err != nil {
		w.t.Fatal(err)
	}
	if code != codeUsage {
		return name, fmt.Sprintf("a prune without consent ended with %d, want %d", code, codeUsage)
	}
	return name, ""
}

func (w *world) destroy() (string, string) {
	number := w.number()
	if _, code := w.run(w.recorded("destroy", "-y")...); code != codeOK {
		return "", fmt.Sprintf("destroy ended with %d, want 0", code)
	}
	w.releases = append(w.releases, rel{number: number, state: record.Destroyed, kind: "destroy"})
	w.runs, w.asked = stackOf{}, map[string]int{}
	w.values = map[string]string{}
	return "", ""
}

func (w *world) collect() (string, string) {
	if err := w.site.nomad.System().GarbageCollect(); err != nil {
		return "", "gc: " + err.Error()
	}
	return "", ""
}

// drain moves everything off a node.
func (w *world) drain() (string, string) {
	nodes, _, err := w.site.nomad.Nodes().List(nil)
	if err != nil {
		return "", "drain: " + err.Error()
	}
	id := pick(w, nodes).ID
	// A negative deadline stops everything at once.
	if _, err := w.site.nomad.Nodes().UpdateDrain(id, &api.DrainSpec{Deadline: -1}, false, nil); err != nil {
		return "", "drain: " + err.Error()
	}
	violation := w.until("the node is drained", func() bool {
		n, _, err := w.site.nomad.Nodes().Info(id, nil)
		return err == nil && !n.Drain
	})
	if _, err := w.site.nomad.Nodes().ToggleEligibility(id, true, nil); err != nil {
		return "", "drain: " + err.Error()
	}
	if violation == "" {
		violation = w.quiet()
	}
	return "", violation
}

// quiet waits until nothing of any sequence starts or waits.
func (w *world) quiet() string {
	return w.until("nothing is pending", func() bool {
		for _, ns := range []string{"*"} {
			allocs, _, err := w.site.nomad.Allocations().List(&api.QueryOptions{Namespace: ns})
			if err != nil {
				return false
			}
			for _, a := range allocs {
				if a.ClientStatus == api.AllocClientStatusPending || a.DesiredStatus == api.AllocDesiredStatusStop && a.ClientStatus == api.AllocClientStatusRunning {
					return false
				}
			}
			evals, _, err := w.site.nomad.Evaluations().List(&api.QueryOptions{Namespace: ns})
			if err != nil || slices.ContainsFunc(evals, func(e *api.Evaluation) bool { return e.Status == api.EvalStatusPending }) {
				return false
			}
		}
		return true
	})
}

// scale does what an autoscaler does.
func (w *world) scale() (string, string) {
	s, there := w.runs["auto"]
	if !there {
		return "(nothing to scale)", ""
	}
	n := 1 + w.rng.IntN(5)
	if n == s.count {
		n = n%5 + 1
	}
	q := &api.WriteOptions{Namespace: w.namespace(s)}
	if _, _, err := w.site.nomad.Jobs().Scale(w.job("auto"), "g", &n, "load", false, nil, q); err != nil {
		return "", "scale: " + err.Error()
	}
	s.count = n
	w.runs["auto"] = s
	return fmt.Sprintf("to %d", n), w.until("the job is scaled", func() bool { return w.serves("auto") == "" })
}

// redeploy replaces every allocation of what keeps running.
func (w *world) redeploy() (string, string) {
	last := w.lastGood()
	if last == nil || !sameJobs(last.made, w.runs) {
		return "(the last good release is not what runs)", ""
	}
	before, err := w.running()
	if err != nil {
		return "", err.Error()
	}
	to := w.runs.clone()
	w.next++
	for name, s := range to {
		if s.kind != batch {
			s.mark = w.next
			to[name] = s
		}
	}
	w.asking = maps.Clone(w.asked)
	detail, violation := w.release("redeploy", to, w.recorded("redeploy"))
	if violation != "" || w.last().state == record.Aborted {
		return detail, violation
	}
	after, err := w.running()
	if err != nil {
		return "", err.Error()
	}
	for id := range before {
		if after[id] {
			return detail, fmt.Sprintf("allocation %s runs before and after a redeploy", id)
		}
	}
	return detail, ""
}

// runAgain redeploys the batch job by its name.
func (w *world) runAgain() (string, string) {
	last := w.lastGood()
	if _, there := w.runs["once"]; !there || last == nil || !sameJobs(last.made, w.runs) {
		return "(the last good release is not what runs)", ""
	}
	to := w.runs.clone()
	s := to["once"]
	w.next++
	s.mark = w.next
	to["once"] = s
	w.asking = maps.Clone(w.asked)
	ran := w.ran()
	detail, violation := w.release("redeploy", to, w.recorded("redeploy", "once"))
	if violation == "" && w.ran() == ran {
		violation = "the batch job that was named did not run again"
	}
	return detail, violation
}

func (w *world) lastGood() *rel {
	for i := len(w.releases) - 1; i >= 0; i-- {
		if w.releases[i].state == record.Done {
			return &w.releases[i]
		}
	}
	return nil
}

// sameJobs is equal, but for counts that were scaled.
func sameJobs(a, b stackOf) bool {
	a, b = a.clone(), b.clone()
	for _, s := range []stackOf{a, b} {
		for name, v := range s {
			if v.kind == scaled {
				v.count = 0
				s[name] = v
			}
		}
	}
	return a.equal(b)
}
