// Command report writes what came of chaos runs into docs/reliability.md,
// between two markers. It reads the lines that `make chaos` has appended to
// the file of its flag -rows.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/drover-nomad/drover/tests/chaos"
	"github.com/drover-nomad/drover/tests/report"
)

const (
	begin = "<!-- Written by tests/chaos/report from here -->\n"
	end   = "<!-- to here -->\n"
)

func main() {
	rows := flag.String("rows", "docs/chaos.ndjson", "`file` of the runs")
	page := flag.String("page", "docs/reliability.md", "`file` to write into")
	flag.Parse()
	if err := write(*rows, *page); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func write(rowsFile, page string) error {
	rows, err := report.Rows(rowsFile, func(a, b chaos.Row) bool { return a.Seed == b.Seed && a.Site == b.Site })
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errors.New(rowsFile + " has no runs")
	}
	machine := fmt.Sprintf("%d cores", runtime.NumCPU())
	return report.Write(page, begin, end, chaos.Summary(rows, machine)+"\n"+chaos.Table(rows))
}
