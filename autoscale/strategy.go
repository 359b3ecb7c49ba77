package autoscale

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Strategy computes a count from samples.
type Strategy interface {
	// next returns the count that the samples ask for, and why. count is the number of
	// running instances. samples are in the order of time; the last is the newest.
	next(count int, samples []float64) (want int, reason string)
}

// strategyNames are those of nomad-autoscaler.
var strategyNames = []string{"target-value", "threshold", "fixed-value", "pass-through"}

func (r *reader) strategy(name string) Strategy {
	switch name {
	case "target-value":
		r.knows("target", "threshold", "max_scale_up", "max_scale_down")
		return targetValue{r.number("target", 0, true), r.number("threshold", 0.01, false), r.limits()}
	case "pass-through":
		r.knows("max_scale_up", "max_scale_down")
		return passThrough{r.limits()}
	case "fixed-value":
		r.knows("value")
		return fixedValue{r.whole("value", 0, 0, true)}
	case "threshold":
		return r.threshold()
	}
	r.problem(fmt.Sprintf("Unknown strategy %q", name), "There are "+quoted(strategyNames)+".")
	return nil
}

// limits bounds one step.
type limits struct{ up, down int } // math.MaxInt for none

func (r *reader) limits() limits {
	return limits{r.whole("max_scale_up", math.MaxInt32, 0, false), r.whole("max_scale_down", math.MaxInt32, 0, false)}
}

func (l limits) of(count, want int) int {
	return min(max(want, count-l.down), count+l.up)
}

// whole converts a count, which may be infinite or not a number.
func whole(v float64) int {
	if !(v > 0) {
		return 0
	}
	return int(min(v, math.MaxInt32))
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) }

// targetValue keeps a metric near a value.
type targetValue struct {
	target, threshold float64
	limits            limits
}

func (s targetValue) next(count int, samples []float64) (int, string) {
	value := samples[len(samples)-1]
	factor := value
	reason := number(value)
	if s.target != 0 {
		factor = value / s.target
		reason = fmt.Sprintf("%s is %s times the target %s", number(value), number(factor), number(s.target))
	}
	var want int
	switch {
	case count == 0:
		want = whole(math.Ceil(factor))
	case factor < 1-s.threshold, factor > 1+s.threshold:
		want = whole(math.Ceil(float64(count) * factor))
	default:
		return count, reason + ", within the threshold"
	}
	return s.limits.of(count, want), reason
}

// passThrough takes a metric as the count.
type passThrough struct{ limits limits }

func (s passThrough) next(count int, samples []float64) (int, string) {
	value := samples[len(samples)-1]
	return s.limits.of(count, whole(value)), "the metric is " + number(value)
}

// fixedValue is a count without a metric, for schedules.
type fixedValue struct{ value int }

func (s fixedValue) next(int, []float64) (int, string) {
	return s.value, fmt.Sprintf("the fixed value is %d", s.value)
}

// threshold changes the count while a metric is within bounds.
type threshold struct {
	lower, upper float64
	trigger      int // that many samples have to be within
	change       func(count int) int
	action       string
}

func (r *reader) threshold() Strategy {
	r.knows("lower_bound", "upper_bound", "within_bounds_trigger", "delta", "percentage", "value")
	s := threshold{
		lower: r.number("lower_bound", math.Inf(-1), false), upper: r.number("upper_bound", math.Inf(1), false),
		trigger: r.whole("within_bounds_trigger", 5, 1, false),
	}
	if r.text("lower_bound") == "" && r.text("upper_bound") == "" {
		r.problem("The strategy has neither lower_bound nor upper_bound", "Write one of them or both.")
	}
	var actions []string
	for _, name := range []string{"delta", "percentage", "value"} {
		if r.text(name) != "" {
			actions = append(actions, name)
		}
	}
	if len(actions) != 1 {
		r.problem(fmt.Sprintf("The strategy has %d of delta, percentage and value", len(actions)), "Write one of them.")
		return nil
	}
	s.action = actions[0] + " " + r.text(actions[0])
	switch actions[0] {
	case "delta":
		n := r.whole("delta", 0, math.MinInt32, true)
		s.change = func(count int) int { return max(count+n, 0) }
	case "percentage":
		n := r.number("percentage", 0, true)
		s.change = func(count int) int { return whole(math.Ceil(float64(count) * (1 + n/100))) }
	case "value":
		n := r.whole("value", 0, 0, true)
		s.change = func(int) int { return n }
	}
	return s
}

func (s threshold) next(count int, samples []float64) (int, string) {
	within := 0
	for _, v := range samples {
		if v >= s.lower && v < s.upper {
			within++
		}
	}
	reason := fmt.Sprintf("%d of %d samples are within %s and %s, the last is %s", within, len(samples), number(s.lower), number(s.upper), number(samples[len(samples)-1]))
	if within < s.trigger {
		return count, fmt.Sprintf("%s; %d are needed", reason, s.trigger)
	}
	return s.change(count), reason + ": " + s.action
}

// finite returns the samples that are numbers.
func finite(samples []float64) []float64 {
	return slices.DeleteFunc(slices.Clone(samples), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}
