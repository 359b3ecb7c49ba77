package view

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render/lint"
	"github.com/drover-nomad/drover/rollout"
)

// annotate writes a workflow command of GitHub Actions, which shows it at the
// top of the run and, with a file, beside the line (https://docs.github.com/
// en/actions/reference/workflows-and-actions/workflow-commands). The runner
// reads them on stderr as well, where they do not mix with results.
func annotate(streams *IO, level, message string, properties ...string) {
	if !streams.GitHub {
		return
	}
	var pairs []string
	for i := 0; i+1 < len(properties); i += 2 {
		pairs = append(pairs, properties[i]+"="+strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(properties[i+1]))
	}
	message = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(message)
	fmt.Fprintf(streams.Err, "::%s %s::%s\n", level, strings.Join(pairs, ","), message)
}

// AnnotateError annotates the error with which a command ends, and does nothing if
// err is nil.
func AnnotateError(streams *IO, err error) {
	var diags hcl.Diagnostics
	switch {
	case err == nil:
	case errors.As(err, &diags):
		for _, d := range diags {
			annotateDiagnostic(streams, d)
		}
	default:
		annotate(streams, "error", err.Error(), "title", "drover")
	}
}

func annotateDiagnostic(streams *IO, d *hcl.Diagnostic) {
	level := "error"
	if d.Severity == hcl.DiagWarning {
		level = "warning"
	}
	properties := []string{"title", strings.TrimSuffix(d.Summary, ".")}
	if d.Subject != nil {
		properties = append(properties, "file", d.Subject.Filename, "line", strconv.Itoa(d.Subject.Start.Line), "col", strconv.Itoa(d.Subject.Start.Column))
	}
	message := d.Detail
	if message == "" {
		message = d.Summary
	}
	annotate(streams, level, message, properties...)
}

// AnnotateFinding annotates what lint has found, beside its line.
func AnnotateFinding(streams *IO, f lint.Finding) {
	properties := []string{"title", f.Rule}
	if f.File != "" {
		properties = append(properties, "file", f.File, "line", strconv.Itoa(f.Line), "col", strconv.Itoa(f.Column))
	}
	message := f.Message
	if f.Mend != "" {
		message += "; " + f.Mend
	}
	annotate(streams, string(f.Severity), message, properties...)
}

// annotateEnd annotates the end of a release that is not deployed, and the services
// that are the cause.
func annotateEnd(streams *IO, name, summary string, r release.Result) {
	if r.Outcome().OK() {
		return
	}
	for _, s := range r.Services {
		if s.Failure != nil || !s.Outcome.OK() && s.Submitted {
			annotate(streams, "error", s.Detail, "title", fmt.Sprintf("%s: %s %s", name, s.Name(), s.Outcome))
		}
	}
	level := "error"
	switch r.Outcome() {
	case rollout.AwaitPromotion, rollout.AwaitApproval, rollout.Cancelled: // nothing is wrong
		level = "warning"
	}
	if r.Halt != nil {
		summary += "; " + r.Halt.String()
	}
	annotate(streams, level, summary, "title", name)
}
