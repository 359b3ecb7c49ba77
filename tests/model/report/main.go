// Command report writes what came of the sequences of `make model` into
// docs/reliability.md, between two markers. Of each seed the last line counts.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/drover-nomad/drover/tests/model"
	"github.com/drover-nomad/drover/tests/report"
)

const (
	begin = "<!-- Written by tests/model/report from here -->\n"
	end   = "<!-- to here, model -->\n"
)

func main() {
	rows := flag.String("rows", "docs/model.ndjson", "`file` of the sequences")
	page := flag.String("page", "docs/reliability.md", "`file` to write into")
	flag.Parse()
	if err := write(*rows, *page); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func write(rowsFile, page string) error {
	rows, err := report.Rows(rowsFile, func(a, b model.Row) bool { return a.Seed == b.Seed })
	if err != nil {
		return err
	}
	return report.Write(page, begin, end, "\n"+model.Table(rows))
}
