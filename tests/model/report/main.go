// Command report writes what came of the sequences of `make model` into
// docs/reliability.md, between two markers. Of each seed the last line counts.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/drover-nomad/drover/tests/model"
)

const (
	begin = "<!-- Written by tests/model/report from here -->\n"
	end   = "<!-- to here, model -->\n"
)

func main() {
	rows := flag.String("rows", "docs/model.ndjson", "`file` of the sequences")
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
		return fmt.Errorf("%s does not have both markers: %q and %q", page, begin, end)
	}
	out := slices.Concat(head, []byte(begin+"\n"+model.Table(rows)+end), tail)
	return os.WriteFile(page, out, 0o644) // #nosec G306 G703 -- a page that make names
}

// read returns the sequences, of each seed the last one.
func read(file string) ([]model.Row, error) {
	text, err := os.ReadFile(file) // #nosec G304 -- the caller's choice
	if err != nil {
		return nil, err
	}
	var rows []model.Row
	sc := bufio.NewScanner(bytes.NewReader(text))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var r model.Row
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		rows = slices.DeleteFunc(rows, func(o model.Row) bool { return o.Seed == r.Seed })
		rows = append(rows, r)
	}
	return rows, sc.Err()
}
