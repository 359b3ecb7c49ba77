// Package report writes the results of test runs into a page.
package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// Rows reads a file with one JSON object per line. A row replaces the earlier rows of
// which it is a repetition.
func Rows[T any](file string, repeats func(earlier, later T) bool) ([]T, error) {
	f, err := os.Open(file) // #nosec G304 -- the caller's choice
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	var rows []T
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var r T
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		rows = append(slices.DeleteFunc(rows, func(o T) bool { return repeats(o, r) }), r)
	}
	return rows, sc.Err()
}

// Write replaces what is between the markers begin and end of a page.
func Write(page, begin, end, content string) error {
	text, err := os.ReadFile(page) // #nosec G304 -- the caller's choice
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(text, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s does not have both markers: %q and %q", page, begin, end)
	}
	out := slices.Concat(head, []byte(begin+content+end), tail)
	return os.WriteFile(page, out, 0o644) // #nosec G306 G703 -- a page that make names
}
