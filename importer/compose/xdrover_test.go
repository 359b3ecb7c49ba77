package compose_test

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/importertest"
)

// TestRead_XDrover: x-drover says what flags say, and flags count before it.
func TestRead_XDrover(t *testing.T) {
	t.Parallel()
	const text = "services:\n" +
		"  web:\n    build: .\n    ports: ['8080:80']\n    environment: {DB: db}\n" +
		"    x-drover: {image: 'example.org/web:${TAG:-3}', route: [shop.example.org, 'www.example.org/a'], memory: 300m, publish: edge, colour: red}\n" +
		"  db: {image: 'db:1', environment: {WEB: web}, x-drover: {port: 5432, memory: 200}}\n" +
		"  once: {image: 'once:1', x-drover: {kind: batch}}\n"
	importertest.Compare(t, project(t, map[string]string{"compose.yaml": text}, importer.Source{}), map[string][]string{
		"web.nomad.hcl":  {`image = "example.org/web:3"`, `"drover.route=shop.example.org/"`, `"drover.route=www.example.org/a"`, "memory = 300"},
		"db.nomad.hcl":   {"to = 5432", "memory = 200"},
		"once.nomad.hcl": {`type = "batch"`},
		"findings":       {"services.web.x-drover.colour is not imported", "port 8080 of every node is not published"},
	}, map[string][]string{"mesh.nomad.hcl": {"-published-"}, "variables.hcl": {"image_web"}})

	importertest.Compare(t, project(t, map[string]string{"compose.yaml": text}, importer.Source{
		Images: map[string]string{"web": "web:flag"}, Ports: map[string][]int{"db": {5433}}, Routes: map[string][]string{"web": {"flag.example.org"}},
		Kinds: map[string]string{"once": importer.KindService}, Publish: map[string]string{"web": importer.PublishMesh},
	}), map[string][]string{
		"web.nomad.hcl":  {`image = "web:flag"`, `"drover.route=flag.example.org/"`},
		"db.nomad.hcl":   {"to = 5433"},
		"mesh.nomad.hcl": {"-published-"},
	}, map[string][]string{"db.nomad.hcl": {"to = 5432"}, "web.nomad.hcl": {"shop.example.org"}, "once.nomad.hcl": {"batch"}})

	for key, value := range map[string]string{"port": "x", "route": "'a b'", "kind": "cron", "publish": "host", "memory": "much", "image": "[a, b]"} {
		res := project(t, map[string]string{"compose.yaml": "services:\n  web:\n    image: a:1\n    x-drover: {" + key + ": " + value + "}\n"}, importer.Source{})
		if got := importertest.Findings(res); !res.Refused() || !strings.Contains(got, "compose.yaml:4: refusal: "+key+" of x-drover of web is ") {
			t.Errorf("%s: got\n%s\nwant a refusal with its place", key, got)
		}
	}
}
