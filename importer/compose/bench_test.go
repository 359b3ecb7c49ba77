package compose_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/compose"
)

// BenchmarkImport compares the import of 60 services, with rendering and lint, with what
// Compose's own library needs to load them.
func BenchmarkImport(b *testing.B) {
	var text strings.Builder
	text.WriteString("name: shop\nservices:\n")
	for i := range 60 {
		fmt.Fprintf(&text, "  s%d:\n    image: example.org/s%d:${TAG:-1}\n    ports: ['80']\n    environment: {NEXT: 'http://s%d', PASSWORD: 'x%dy'}\n    volumes: ['d%d:/data']\n    restart: always\n", i, i, (i+1)%60, i, i)
	}
	text.WriteString("volumes:\n")
	for i := range 60 {
		fmt.Fprintf(&text, "  d%d: {}\n", i)
	}
	b.Run("Compose", func(b *testing.B) {
		for b.Loop() {
			_, err := loader.LoadWithContext(b.Context(), types.ConfigDetails{WorkingDir: b.TempDir(), ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: []byte(text.String())}}, Environment: types.Mapping{}})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("import", func(b *testing.B) {
		for b.Loop() {
			res, err := importer.Run(b.Context(), "compose", compose.Read, importer.Source{Inputs: []importer.Input{{Name: b.TempDir() + "/compose.yaml", Text: []byte(text.String())}}})
			if err != nil || res.Refused() {
				b.Fatalf("got %v and %v", err, res)
			}
		}
	})
}
