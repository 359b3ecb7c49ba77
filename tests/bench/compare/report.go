package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one way to do the task of a table. base is the index of the row
// that it is compared with.
type row struct {
	what string
	usage
	note string
	base int
}

type table struct {
	title string
	rows  []row
}

func (r row) cells(t table) [5]string {
	c := [5]string{r.what, seconds(r.elapsed), fmt.Sprintf("%.2f", r.elapsed.Seconds()/t.rows[r.base].elapsed.Seconds()), "", ""}
	if r.requests > 0 {
		c[3] = fmt.Sprint(r.requests)
	}
	if r.peak > 0 {
		c[4] = fmt.Sprintf("%.0f", float64(r.peak)/1e6)
	}
	return c
}

// text is the table for a terminal.
func (t table) text() string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "\n%s\n", t.title)
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  WITH\tSECONDS\tRATIO\tREQUESTS\tPEAK MB\tNOTE")
	for _, r := range t.rows {
		c := r.cells(t)
		fmt.Fprintf(w, "  %s\t%s\n", strings.Join(c[:], "\t"), r.note)
	}
	_ = w.Flush() // into memory
	return out.String()
}

func (t table) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "\n## %s\n\n| with | seconds | ratio | requests to Nomad | peak MB | |\n|---|---:|---:|---:|---:|---|\n", t.title)
	for _, r := range t.rows {
		c := r.cells(t)
		fmt.Fprintf(&out, "| %s | %s |\n", strings.Join(c[:], " | "), r.note)
	}
	return out.String()
}

type report struct {
	options
	began   time.Time
	machine string
	tables  []table
	plots   []plot
}

// describeMachine says on what the numbers were measured.
func describeMachine(ctx context.Context, b *bench) (string, error) {
	version := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return "unknown"
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
	field := func(file, pattern string) string {
		text, err := os.ReadFile(file)
		if m := regexp.MustCompile(pattern).FindSubmatch(text); err == nil && m != nil {
			return string(m[1])
		}
		return "unknown"
	}
	memory := field("/proc/meminfo", `MemTotal: +(\d+) kB`)
	var kb int
	if _, err := fmt.Sscan(memory, &kb); err == nil {
		memory = fmt.Sprintf("%.0f GiB", float64(kb)/(1<<20))
	}
	return fmt.Sprintf("| | |\n|---|---|\n| commit | %s |\n| processor | %s, %d cores |\n| memory | %s |\n| system | %s, kernel %s |\n| Go | %s |\n| Nomad | %s |\n| load before, after | %s; %s |\n",
		b.commit, field("/proc/cpuinfo", `model name\s*: (.*)`), runtime.NumCPU(), memory,
		runtime.GOOS+"/"+runtime.GOARCH, regexp.MustCompile(`^[0-9.]+`).FindString(version("uname", "-r")), runtime.Version(), version(b.path.nomad, "version"), b.load, load()), nil
}

func (r report) write(dir string) error {
	var out strings.Builder
	fmt.Fprintf(&out, `# Benchmarks

<!-- Written by tests/bench/compare: run it again instead of editing this page. -->

drover against what an operator would use instead, and against floors:
programs that ask the same of Nomad and do nothing else. All numbers are of one
run; ratios are to the row that has 1.00. A load above the number of cores says
that the machine had other work too, which makes times longer and ratios coarser.

    make bench BENCH='-deploy %d -serial %d -plan %d -ocis=%t -write docs'

ran on %s, for %s:

%s
The services of the deployments are mock_driver jobs that are healthy after a
second and register in Consul: what is measured is the way there, not their
start. Of the services of "render and plan" each is as large as one of oCIS.
Requests are counted by a proxy between the program and Nomad; memory is the
largest resident set of any one process. The floors of "render and plan" and of the
simulation are processes, too, whose start counts as that of drover does.
`, r.deploy, r.serial, r.plan, r.ocis, r.began.UTC().Format("2006-01-02"), time.Since(r.began).Round(time.Second), r.machine)
	for _, t := range r.tables {
		out.WriteString(t.markdown())
	}
	out.WriteString("\n## Growth\n")
	images := filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(images, 0o755); err != nil { //nolint:gosec // documentation
		return err
	}
	for _, p := range r.plots {
		fmt.Fprintf(&out, "\n![%s](benchmarks/%s)\n", p.title, p.file)
		if err := os.WriteFile(filepath.Join(images, p.file), p.svg(), 0o644); err != nil { //nolint:gosec // documentation
			return err
		}
		fmt.Fprintf(&out, "\n| services |")
		for _, l := range p.lines {
			fmt.Fprintf(&out, " %s |", l.name)
		}
		out.WriteString("\n|---:|" + strings.Repeat("---:|", len(p.lines)) + "\n")
		for i, at := range p.lines[0].points {
			fmt.Fprintf(&out, "| %.0f |", at.x)
			for _, l := range p.lines {
				fmt.Fprintf(&out, " %.3g |", l.points[i].y)
			}
			out.WriteString("\n")
		}
	}
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(out.String()), 0o644) //nolint:gosec // documentation
}
