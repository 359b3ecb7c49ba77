package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render/lint"
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

// annotateError tells the error with which a command ends.
func annotateError(streams *IO, err error) {
	var (
		silent errSilent
		diags  hcl.Diagnostics
	)
	switch {
	case err == nil, errors.As(err, &silent):
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

func annotateFinding(streams *IO, f lint.Finding) {
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

// annotateEnd tells the end of a release that did not come out well, and which
// services are why.
func annotateEnd(streams *IO, name, summary string, code int, r release.Result) {
	if code == exitOK {
		return
	}
	for _, s := range r.Services {
		if s.Failure != nil || !s.Outcome.OK() && s.Submitted {
			annotate(streams, "error", s.Detail, "title", fmt.Sprintf("%s: %s %s", name, s.Name(), s.Outcome))
		}
	}
	level := "error"
	if code == exitPromotion || code == exitCancelled { // nothing is wrong
		level = "warning"
	}
	if r.Halt != nil {
		summary += "; " + r.Halt.String()
	}
	annotate(streams, level, summary, "title", name)
}
