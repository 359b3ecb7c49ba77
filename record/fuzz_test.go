package record

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/drover-nomad/drover/nomad/variables"
)

// FuzzRelease tests that a stored head is read or refused, and that packing it again
// gives the same.
func FuzzRelease(f *testing.F) {
	text, err := variables.Pack(page{Owner: "o", Seq: 3, Services: []Service{{Name: "web"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, []byte(`{"number":1,"pages":2}`))
	f.Add("H4sIAAAAAAAA/6tWKkotLs0pUbKqVkosLlGyMtRRKkktLlGyUqqtBQDDeO9uGQAAAA==", []byte(`null`))
	f.Fuzz(func(t *testing.T, text string, plain []byte) {
		var p page
		_ = variables.Unpack(text, &p)
		var b Blob
		_ = variables.Unpack(text, &b)

		var head Release
		if json.Unmarshal(plain, &head) == nil {
			one, err := json.Marshal(head)
			if err != nil {
				return // a year that JSON cannot say
			}
			var again Release
			if err := json.Unmarshal(one, &again); err != nil {
				t.Fatalf("a head that was written is refused: %v\n%s", err, one)
			}
			if two, err := json.Marshal(again); err != nil || string(one) != string(two) {
				t.Errorf("a head written again differs (%v)\n%s\n%s", err, one, two)
			}
		}
		if json.Valid(plain) {
			packed, err := Pack(Blob{Values: plain, File: "f"})
			if err != nil {
				return // too large
			}
			text, err := variables.Pack(packed.blob)
			if err != nil {
				t.Fatal(err)
			}
			if len(text) > blobLimit {
				t.Errorf("%d bytes were said to fit", len(text))
			}
			if err := variables.Unpack(text, &b); err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			if err := json.Compact(&want, plain); err != nil {
				t.Fatal(err)
			}
			if Digest(plain) != packed.Digest {
				t.Errorf("packed %q under %s", plain, packed.Digest)
			}
		}
		if name := nameOf(PathName(text)); name != text {
			t.Errorf("%q is %q in a path, and %q again", text, PathName(text), name)
		}
	})
}
