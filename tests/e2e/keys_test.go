package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/dns"
)

// hidden are secrets by name, each in all the ways in which it may be spelled.
type hidden map[string][][]byte

func (h hidden) add(name string, spellings ...string) {
	for _, s := range spellings {
		if len(s) >= 16 {
			h[name] = append(h[name], []byte(s))
		}
	}
}

// key adds a private key in PEM: its lines, and what it is made of.
func (h hidden) key(t testing.TB, name, text string) {
	t.Helper()
	signer, err := pki.ParseKey(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if !strings.Contains(block.Type, "PRIVATE KEY") {
			continue
		}
		// The first line begins as that of every such key, the last is short.
		for _, line := range strings.Split(string(pem.EncodeToMemory(block)), "\n")[1:] {
			if len(line) == 64 {
				h.add(name, line[32:])
			}
		}
		h.encoded(name, block.Bytes)
	}
	if k, ok := signer.(*ecdsa.PrivateKey); ok {
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		h.encoded(name, d)
	}
}

func (h hidden) encoded(name string, b []byte) {
	h.add(name, string(b), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)))
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		h.add(name, e.EncodeToString(b))
	}
}

// in says which secrets are in a text.
func (h hidden) in(text []byte) []string {
	var found []string
	for name, spellings := range h {
		for _, s := range spellings {
			if bytes.Contains(text, s) {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

// watch keeps what can be seen of the cluster while the test runs: the events
// of Nomad, and the arguments and environments of all processes.
type watch struct {
	mu        sync.Mutex
	events    bytes.Buffer
	processes map[string]string // text → where
}

func (r *running) watch(t *testing.T) *watch {
	t.Helper()
	w := &watch{processes: map[string]string{}}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	stream, err := r.nomad.Raw().Response("/v1/event/stream?index=0", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		defer func() { _ = stream.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := stream.Read(buf)
			w.mu.Lock()
			w.events.Write(buf[:n])
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	wg.Go(func() {
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			w.look()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *watch) look() {
	for _, what := range []string{"cmdline", "environ"} {
		files, _ := filepath.Glob("/proc/[0-9]*/" + what)
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && len(b) > 0 {
				w.mu.Lock()
				w.processes[string(b)] = f
				w.mu.Unlock()
			}
		}
	}
}

// forget drops what is meant to be there.
func (w *watch) forget(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for b, where := range w.processes {
		delete(w.processes, b)
		w.processes[strings.ReplaceAll(b, text, "")] = where
	}
}

// testKeys searches for secrets in every place that other users can read. Secrets may be
// in the store, and in files of mode 0600 in the secrets directory of a task.
func testKeys(t *testing.T, r *running, w *watch, secrets hidden, files map[string]bool) {
	seen := map[string][]byte{}
	text := func(name string, v any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		seen[name] = b
	}
	for _, j := range r.jobs(t) {
		versions, _, _, err := r.nomad.Jobs().Versions(j.ID, false, nil)
		text("job "+j.ID, versions, err)
		for _, v := range versions {
			if sub, _, err := r.nomad.Jobs().Submission(j.ID, int(*v.Version), nil); err == nil {
				text(fmt.Sprintf("submission %s %d", j.ID, *v.Version), sub, nil)
			}
		}
	}
	allocs, _, err := r.nomad.Allocations().List(nil)
	text("allocations", allocs, err)
	for _, a := range allocs {
		alloc, _, err := r.nomad.Allocations().Info(a.ID, nil)
		text("allocation "+a.ID, alloc, err)
	}
	evals, _, err := r.nomad.Evaluations().List(nil)
	text("evaluations", evals, err)
	deployments, _, err := r.nomad.Deployments().List(nil)
	text("deployments", deployments, err)
	vars, _, err := r.nomad.Variables().List(nil)
	text("variables", vars, err)
	for _, v := range vars {
		if strings.HasPrefix(v.Path, acme.CertFolder+"/") || v.Path == acme.AccountPath ||
			strings.HasPrefix(v.Path, dns.CredentialFolder+"/") || strings.HasPrefix(v.Path, "drover/stacks/") && strings.HasSuffix(v.Path, "/secrets") {
			continue // the store, and the secrets of stacks
		}
		items, _, err := r.nomad.Variables().Read(v.Path, nil)
		text("variable "+v.Path, items, err)
	}
	kv, _, err := r.consul.KV().List("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range kv {
		seen["Consul KV "+p.Key] = p.Value
	}
	checks, _, err := r.consul.Health().State(capi.HealthAny, nil)
	text("Consul's checks", checks, err)
	services, err := r.consul.Agent().Services()
	text("Consul's services", services, err)
	w.mu.Lock()
	seen["Nomad's events"] = bytes.Clone(w.events.Bytes())
	for b, where := range w.processes {
		seen[where+" "+fmt.Sprint(len(seen))] = []byte(b)
	}
	w.mu.Unlock()
	seen["what drover said"] = r.drover.said.Bytes()
	if len(seen) < 50 || len(seen["Nomad's events"]) < 10_000 || len(seen["what drover said"]) < 1000 {
		t.Errorf("only %d texts were found, %d bytes of events, %d of drover's", len(seen), len(seen["Nomad's events"]), len(seen["what drover said"]))
	}
	for where, b := range seen {
		for _, name := range secrets.in(b) {
			t.Errorf("%s is in %s", name, where)
		}
	}

	// Every file of the cluster: logs, configurations, databases.
	inSecrets := 0
	err = filepath.WalkDir(r.Dir(), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, r.BinDir()) {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return nil // gone meanwhile
		}
		defer func() { _ = f.Close() }()
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(r.Dir(), path)
		for _, name := range secrets.in(b) {
			allowed := files[rel]
			if ok, _ := filepath.Match("alloc/*/*/secrets/certs/*", rel); ok {
				allowed = true
				inSecrets++
			}
			if !allowed || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s is in the file %s of mode %v", name, rel, fi.Mode())
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if inSecrets == 0 {
		t.Error("not even the edge has a key: the search finds nothing")
	}
}
