package release

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSaved_Scrub(t *testing.T) {
	t.Parallel()
	old := &Saved{Layout: SavedLayout, Stack: json.RawMessage(`{"Stack":{"Name":"shop","Issuers":[{"Name":"ca","EABMACKey":"in-clear"}]},"Values":{"mac":{"value":"in-clear","type":"string"}}}`)}
	text, err := old.encode()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ReadSaved(text)
	if err != nil {
		t.Fatal(err)
	}
	text, changed, err := read.Scrub()
	if err != nil || !changed || strings.Contains(string(text), "in-clear") {
		t.Fatalf("%v, %v:\n%s", changed, err, text)
	}
	if read, err = ReadSaved(text); err != nil {
		t.Fatalf("the file that was rewritten is refused: %v", err)
	}
	if _, changed, err := read.Scrub(); err != nil || changed {
		t.Errorf("once more: %v, %v", changed, err)
	}
}
