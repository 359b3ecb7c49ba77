package cli

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/deploy"
)

// The scripts get certificates from a real CA, all from the same.
func TestCert(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	http := l.Addr().(*net.TCPAddr)
	_ = l.Close() // drover listens there itself
	ca := acmetest.Start(t, acmetest.Options{HTTPPort: http.Port})
	p := scripts("cert", "DIRECTORY="+ca.Directory, "HTTP="+http.String(), "DNS="+ca.DNS, "NOMAD_ADDR=http://127.0.0.1:1")
	vars := p.Setup
	p.Setup = func(e *testscript.Env) error {
		return errors.Join(vars(e), os.WriteFile(e.Cd+"/ca.pem", []byte(ca.Root), 0o600))
	}
	p.Cmds["serve"] = serve
	testscript.Run(t, p)
}

// TestCertStores takes certificates with three names each through their life,
// by commands, in Nomad Variables and in Consul: issued, renewed because the
// CA asks for it, revoked, and the account given a new key.
func TestCertStores(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	nc := api.DefaultConfig()
	nc.Address = strings.TrimPrefix(env[0], "NOMAD_ADDR=")
	nomad, err := api.NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	cc := capi.DefaultConfig()
	cc.Address = strings.TrimPrefix(env[1], "CONSUL_HTTP_ADDR=")
	consul, err := capi.NewClient(cc)
	if err != nil {
		t.Fatal(err)
	}
	seal := []byte(rand.Text() + rand.Text())[:32]
	key, err := acme.NewSealKey(seal)
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, sealEnv+"="+string(seal), deploy.TermsEnv+"="+acme.AnyTerms)
	together(t, env, map[string]func(*testing.T, []string){
		"nomad": func(t *testing.T, env []string) {
			lifeOf(t, plainDrover(t), env, 20, "nomad", acme.NewStore(acme.NomadVariables(nomad)))
		},
		"consul": func(t *testing.T, env []string) {
			lifeOf(t, "drover", env, 3, "consul", acme.NewStore(acme.ConsulKV(consul, key)))
			resealed(t, env, consul, seal)
		},
	})
}

// resealed gives the store in Consul a new key by the command: it opens every object, and
// the old one none.
func resealed(t *testing.T, env []string, consul *capi.Client, old []byte) {
	t.Helper()
	line := base64.StdEncoding.EncodeToString
	fresh := []byte(rand.Text() + rand.Text())[:32]
	file := func(lines ...string) string {
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(wantCode int, want string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "drover", append([]string{"cert"}, args...)...)
		cmd.Env = append(slices.DeleteFunc(append(os.Environ(), env...), func(e string) bool { return strings.HasPrefix(e, sealEnv+"=") }), "HOME="+t.TempDir())
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != wantCode || !strings.Contains(string(out), want) {
			t.Errorf("%v: got code %d and\n%s\nwant code %d and %q", args, code, out, wantCode, want)
		}
		for _, key := range [][]byte{old, fresh} {
			if strings.Contains(string(out), string(key)) || strings.Contains(string(out), line(key)) {
				t.Errorf("%v prints a key", args)
			}
		}
	}
	first, second, both := file(line(old)), file(line(fresh)), file(line(fresh), line(old))
	objects := func(key []byte) (opened, closed int) {
		k, err := acme.NewSealKey(key)
		if err != nil {
			t.Fatal(err)
		}
		list, err := acme.NewStore(acme.ConsulKV(consul, k)).List(t.Context())
		if err != nil {
			return 0, 1
		}
		return len(list), 0
	}
	n, closed := objects(old)
	if n < 3 || closed > 0 {
		t.Fatalf("the old key opens %d certificates, want 3 or more", n)
	}
	run(2, `--store cannot be "nomad"`, "reseal", "--store", "nomad")
	run(1, "", "reseal", "--store", "consul", "--seal-key-file", second) // it opens nothing
	if after, _ := objects(old); after != n {
		t.Errorf("after a refused reseal the old key opens %d certificates, want %d", after, n)
	}
	run(0, "objects are sealed with the first key", "reseal", "--store", "consul", "--seal-key-file", both)
	if after, _ := objects(fresh); after != n {
		t.Errorf("the new key opens %d certificates, want %d", after, n)
	}
	if after, closed := objects(old); after > 0 && closed == 0 {
		t.Errorf("the old key still opens %d certificates", after)
	}
	run(0, "c0", "list", "--store", "consul", "--seal-key-file", second)
	run(1, "", "list", "--store", "consul", "--seal-key-file", first)
}

func lifeOf(t *testing.T, program string, env []string, n int, name string, store *acme.Store) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	http := l.Addr().(*net.TCPAddr)
	_ = l.Close() // drover listens there itself
	ca := acmetest.Start(t, acmetest.Options{HTTPPort: http.Port})
	dir := t.TempDir()
	stack := fmt.Sprintf("stack \"many\" {}\nissuer \"test\" {\n  directory_url = %q\n  ca_file = \"ca.pem\"\n}\n", ca.Directory)
	for i := range n {
		stack += fmt.Sprintf("certificate \"c%[1]d\" {\n  issuer = \"test\"\n  names = [\"a%[1]d.example.com\", \"b%[1]d.example.com\", \"c%[1]d.example.com\"]\n}\n", i)
	}
	for file, text := range map[string]string{"stack.hcl": stack, "ca.pem": ca.Root} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, append(args, "--store", name)...)
		cmd.Env = append(os.Environ(), env...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("drover %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}
	listen := []string{"--http", http.String()}
	issued := run(append([]string{"cert", "issue", dir}, listen...)...)
	if got := strings.Count(issued, "  issued  a"); got != n {
		t.Fatalf("%d of %d were issued:\n%s", got, n, issued)
	}
	serials := func() map[string]string {
		t.Helper()
		var list []struct {
			Name   string
			Names  []string
			Status acme.Status
		}
		if err := json.Unmarshal([]byte(run("cert", "list", "-o", "json")), &list); err != nil || len(list) != n {
			t.Fatalf("%d certificates are listed: %v", len(list), err)
		}
		out := map[string]string{}
		for _, c := range list {
			if len(c.Names) != 3 {
				t.Errorf("%s has the names %q", c.Name, c.Names)
			}
			out[c.Name] = c.Status.Serial
		}
		return out
	}
	before := serials()

	// Nothing is due, until the CA asks, and has been asked whether it does.
	if out := run(append([]string{"cert", "renew"}, listen...)...); strings.Count(out, "unchanged") != n {
		t.Errorf("renewed before its time:\n%s", out)
	}
	for c := range before {
		o, err := store.Get(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := ca.SetRenewal(o.Chain, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		// Hours pass.
		if _, err := store.Update(t.Context(), c, func(o *acme.Object) error {
			o.Status.ARI.CheckAfter = time.Now().Add(-time.Minute)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if out := run(append([]string{"cert", "renew"}, listen...)...); strings.Count(out, "because its CA asks for it") != n {
		t.Errorf("not all are renewed because the CA asks for it:\n%s", out)
	}
	after := serials()
	known := 0
	for c, serial := range after {
		if serial == before[c] {
			t.Errorf("%s is not renewed", c)
		}
		if acmetest.KnowsReplaced(before[c]) {
			known++
		}
	}
	if got := strings.Count(ca.Log(), "is a replacement of"); got != known {
		t.Errorf("replacements in the log of the CA: got %d, want %d", got, known)
	}

	// A new account key; what comes after is signed with it.
	show := run("cert", "account", "show")
	if now := run("cert", "account", "rollover"); now == show || !strings.Contains(now, ca.Directory) {
		t.Errorf("the account was\n%sand is\n%s", show, now)
	}
	for c, serial := range after {
		if out := run("cert", "revoke", c, "--reason", "superseded"); strings.Contains(out, "PRIVATE KEY") {
			t.Error("the output contains a private key")
		}
		if yes, err := ca.IsRevoked(serial); err != nil || !yes {
			t.Errorf("the CA says that %s is revoked: %v, %v", c, yes, err)
		}
	}
	if out := run("cert", "list"); strings.Count(out, "Revoked") != n {
		t.Errorf("not all are revoked:\n%s", out)
	}
	if out := run(append([]string{"cert", "renew", "c0", "--force"}, listen...)...); !strings.Contains(out, "c0  renewed") || strings.Contains(out, "registered") {
		t.Errorf("after the rollover:\n%s", out)
	}
}

// serve VAR DIR serves what is exported in DIR, at $VAR.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[1])
	cert, err := tls.LoadX509KeyPair(dir+"/fullchain.pem", dir+"/privkey.pem")
	ts.Check(err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = c.(*tls.Conn).Handshake()
				_ = c.Close()
			}()
		}
	}()
	ts.Setenv(args[0], fmt.Sprint(l.Addr()))
}
