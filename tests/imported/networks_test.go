package imported

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// apart is an application whose two services are on two nodes; its verbs are the ports of
// the containers and the published one.
const apart = `
services:
  web:
    image: composespec/conformance-tests-server
    environment: {HTTP_PORT: %[1]d, UDP_PORT: %[1]d}
    ports: ["%[3]d:%[1]d"]
    deploy: {placement: {constraints: ["node.hostname == n1"]}}
  db:
    image: composespec/conformance-tests-server
    environment: {HTTP_PORT: %[2]d, UDP_PORT: %[2]d}
    expose: ["%[2]d"]
    container_name: the-db
    deploy: {placement: {constraints: ["node.hostname == n2"]}}
`

// testNetworks: services find one another by their names on another node without the
// addresses of the mesh, too.
func testNetworks(t *testing.T, w *world) {
	dns := []string{"--var", `mesh_dns=["` + serverAddress + `"]`}
	var all sync.WaitGroup
	for i, c := range []struct {
		network string
		args    []string
	}{{"gateway", nil}, {"consul-dns", dns}, {"host", dns}} {
		all.Go(func() {
			w.run(t, c.network, func(t *testing.T) {
				if c.network != "consul-dns" {
					devtest.NeedsFull(t)
				}
				db, published := 5441+i, 8085+i
				file := filepath.Join(t.TempDir(), "compose.yaml")
				must(t, os.WriteFile(file, fmt.Appendf(nil, apart, 5451+i, db, published), 0o600))
				dir := w.Import(t, "by-"+c.network, "--network", c.network, file)
				w.Deploy(t, dir, append(on(w.Nodes[:2]...), c.args...)...)
				for _, n := range w.Nodes[:2] {
					for _, name := range []string{"db", "the-db"} {
						n.answers(t, fmt.Sprintf("http://127.0.0.1:%d/ping?address=%s:%d/ping", published, name, db), "PONG FROM TARGET")
					}
				}
			})
		})
	}
	all.Wait()
}
