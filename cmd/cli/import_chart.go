package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

// renderChart has the helm on PATH render a chart, a directory or an archive, and returns
// its manifests. release is the name of the release, "" for that of the chart.
func renderChart(ctx context.Context, chart, release string, values []string) (importer.Input, error) {
	if _, err := os.Stat(chart); err != nil {
		return importer.Input{}, usagef("--chart %s: give a directory or an archive; 'helm pull' gets one from a repository", chart)
	}
	helm, err := exec.LookPath("helm")
	if err != nil {
		return importer.Input{}, usagef("--chart needs helm on PATH; or render the chart where it is: helm template NAME CHART | drover import kubernetes -")
	}
	path, err := filepath.Abs(chart) // it may begin with "-"
	if err != nil {
		return importer.Input{}, fmt.Errorf("cannot find the chart: %w", err)
	}
	if release == "" {
		release = importer.DNSName(strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".tgz"), ".tar.gz"))
	}
	args := []string{"template", release, path}
	for _, v := range values {
		args = append(args, "--values", v)
	}
	var out, msg bytes.Buffer
	cmd := exec.CommandContext(ctx, helm, args...) //nolint:gosec // the operator's own helm
	cmd.Stdout, cmd.Stderr = &limitedBuffer{b: &out, left: importer.MaxFile + 1}, &limitedBuffer{b: &msg, left: 64 << 10}
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return importer.Input{}, ctx.Err()
	case out.Len() > importer.MaxFile:
		return importer.Input{}, usagef("the manifests of %s have more than %d MiB", chart, importer.MaxFile>>20)
	case err != nil:
		return importer.Input{}, usagef("helm cannot render %s: %s", chart, strings.TrimSpace(msg.String()))
	}
	return importer.Input{Name: chart + " (rendered)", Text: out.Bytes()}, nil
}

// limitedBuffer keeps the first bytes that are written, and fails afterwards.
type limitedBuffer struct {
	b    *bytes.Buffer
	left int
}

var errFull = errors.New("the output is too long")

func (l *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	if l.left -= n; n < len(p) {
		return n, errFull
	}
	return n, nil
}
