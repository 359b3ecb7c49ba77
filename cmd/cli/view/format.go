package view

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/stack"
)

// Round rounds d to milliseconds below 1 s, to tenths of a second below 10 s, and
// to seconds from there on.
func Round(d time.Duration) time.Duration {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond)
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

func indent(text, by string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}

// PrintRuns writes a table of the runs of a schedule.
func PrintRuns(out io.Writer, runs []record.Run) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "AT\tOUTCOME\tRELEASE\tTOOK\tDETAIL")
	for _, r := range runs {
		number := "-"
		if r.Release > 0 {
			number = fmt.Sprint(r.Release)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.At.Format(time.RFC3339), r.Outcome, number, Round(r.Elapsed), strings.ReplaceAll(r.Detail, "\n", "; "))
	}
	_ = w.Flush() // as fmt.Fprint
}

// FormatJobSecrets returns what a release changes in the secrets of a job.
func FormatJobSecrets(j record.JobSecrets) string {
	var what []string
	for _, part := range []struct {
		what  string
		items []string
	}{{"gets", j.Added}, {"gets a new value of", j.Changed}, {"loses, when the release is deployed,", j.Removed}} {
		if len(part.items) > 0 {
			what = append(what, part.what+" "+strings.Join(part.items, ", "))
		}
	}
	return fmt.Sprintf("job %s %s", j.JobID, strings.Join(what, "; "))
}

// PrintProcessValues writes the names of the variables that do not come from the stack's files
// but from the environment of the process, never their values.
func PrintProcessValues(w io.Writer, values []stack.ProcessValue) {
	for _, v := range values {
		instead := ""
		if v.Overrides != "" {
			instead = ", which overrides " + v.Overrides
		}
		fmt.Fprintf(w, "Variable %s comes from %s%s.\n", v.Variable, v.From, instead)
	}
}

// FormatChange returns the observed and the desired content of a DNS record, or one
// of them if they are equal or the other is missing.
func FormatChange(c dns.Change) string {
	switch {
	case c.Old == nil && c.New == nil:
		return "-"
	case c.Old == nil:
		return FormatSet(*c.New)
	case c.New == nil || c.Old.Equal(*c.New):
		return FormatSet(*c.Old)
	}
	return FormatSet(*c.Old) + " → " + FormatSet(*c.New)
}

// FormatSet returns the TTL and the values of s, each shortened to 60 characters.
func FormatSet(s dns.Set) string {
	parts := make([]string, len(s.Values))
	for i, p := range s.Values {
		if r := []rune(p); len(r) > 60 {
			p = string(r[:59]) + "…"
		}
		parts[i] = fmt.Sprintf("%q", p)
		if !strings.ContainsAny(p, " \"\\") && len(parts[i]) == len(p)+2 {
			parts[i] = p
		}
	}
	text := fmt.Sprintf("%ds %s", s.TTL, strings.Join(parts, ", "))
	if s.Proxied != nil && *s.Proxied {
		text += ", proxied"
	}
	return text
}
