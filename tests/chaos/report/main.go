// Command report writes what came of chaos runs into docs/reliability.md,
// between two markers. It reads the lines that `make chaos` has appended to
// the file of its flag -rows.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/drover-nomad/drover/tests/chaos"
)

const (
	begin = "<!-- Written by tests/chaos/report from here -->\n"
	end   = "<!-- to here -->\n"
)

func main() {
	rows := flag.String("rows", "docs/chaos.ndjson", "`file` of the runs")
	page := flag.String("page", "docs/reliability.md", "`file` to write into")
	flag.Parse()
	if err := report(*rows, *page); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func report(rowsFile, page string) error {
	rows, err := read(rowsFile)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(page) // #nosec G304 -- the caller's choice
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(text, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s has not both markers: %q and %q", page, begin, end)
	}
	machine := fmt.Sprintf("%d cores", runtime.NumCPU())
	var out bytes.Buffer
	out.Write(head)
	fmt.Fprintf(&out, "%s%s\n%s%s", begin, chaos.Summary(rows, machine), chaos.Table(rows), end)
	out.Write(tail)
	return os.WriteFile(page, out.Bytes(), 0o644) // #nosec G306 -- a page
}

// read returns the runs, of each seed the last one.
func read(file string) ([]chaos.Row, error) {
	f, err := os.Open(file) // #nosec G304 -- the caller's choice
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	var rows []chaos.Row
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var r chaos.Row
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		rows = slices.DeleteFunc(rows, func(o chaos.Row) bool { return o.Seed == r.Seed && o.Site == r.Site })
		rows = append(rows, r)
	}
	if len(rows) == 0 && sc.Err() == nil {
		return nil, errors.New(file + " has no runs")
	}
	return rows, sc.Err()
}
