package stack

import (
	"strings"
	"testing"
)

// hclsyntax alone says of the first one that line 3 is wrong, and nothing of
// one that ends there.
func TestNotUTF8(t *testing.T) {
	t.Parallel()
	for _, src := range []string{"a = 1\nb = \xe60\nc {}\n", "a = 1\nb = \"\xe6\"\n"} {
		_, diags := (&Layer{File: "web.nomad.hcl", Src: []byte(src)}).Parse()
		if !diags.HasErrors() || !strings.HasPrefix(diags[0].Error(), "web.nomad.hcl:2,") || !strings.Contains(diags[0].Detail, "UTF-8") {
			t.Errorf("%q: %v", src, diags)
		}
	}
}
