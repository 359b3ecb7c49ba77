package record

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// tamper changes the requests and answers of a client, as another client would.
type tamper struct {
	mu     sync.Mutex
	writes int
	before func(*http.Request) // called before each write
	lose   bool                // the answer to the next write
	wrong  bool                // the next write is done and answered 500
	busy   int                 // so many writes are answered 503
}

func (c *tamper) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		c.mu.Lock()
		c.writes++
		before, lose, wrong := c.before, c.lose, c.wrong
		c.before, c.lose, c.wrong = nil, false, false
		busy := c.busy > 0
		c.busy--
		c.mu.Unlock()
		if busy {
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Request: r}, nil
		}
		if lose {
			return loseAnswer(r)
		}
		if wrong {
			return wrongAnswer(r)
		}
		if before != nil {
			before(r)
		}
	}
	return http.DefaultTransport.RoundTrip(r)
}

func job(id string, secrets ...string) render.Job {
	return render.Job{Service: id, Secrets: secrets, Job: &api.Job{ID: &id}}
}

func TestOnCluster(t *testing.T) {
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{})
	connect := func(t *testing.T) (*api.Client, *tamper) {
		rt := &tamper{}
		cfg := api.DefaultConfig()
		cfg.Address, cfg.HttpClient = dev.NomadAddr(), &http.Client{Transport: rt}
		c, err := api.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c, rt
	}
	for name, test := range map[string]func(*testing.T, *api.Client, *tamper){
		"ensure": testEnsure, "given": testGiven, "foreign variable": testForeignVariable, "newer layout": testNewerLayout,
		"conflict": testConflict, "rotate": testRotate, "transfer": testTransfer, "busy": testBusy, "import": testImportForeign, "purge": testPurge,
		"owner": testSecretOwner, "unmarked variable": testUnmarkedVariable, "move secrets": testMoveSecrets,
		"lock": testLock, "lock of the dead": testLockOfTheDead, "releases": testReleases, "journal": testJournal, "take over": testTakeOver, "keep": testKeep, "newer release": testNewerRelease,
		"large release": testLargeRelease, "unknown members": testUnknownKept,
		"lock answer lost": testLockAnswerLost, "schedule answer lost": testScheduleAnswerLost, "unreadable": testUnreadable, "scrub": testScrub, "repair": testRepair,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, rt := connect(t)
			test(t, c, rt)
		})
	}
}

func items(t *testing.T, c *api.Client, path string) map[string]string {
	t.Helper()
	v, _, err := c.Variables().Peek(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v == nil {
		return nil
	}
	return v.Items
}

// ensured is what Ensure did.
type ensured struct {
	Generated, Renewed, Jobs []string
	Redact                   func(string) string
}

// Ensure does what a whole release does with secrets.
func (s *Secrets) Ensure(ctx context.Context, specs []*stack.Secret, jobs []render.Job) (ensured, error) {
	changes, err := s.Preview(ctx, specs, jobs)
	if err != nil {
		return ensured{}, err
	}
	var out ensured
	for _, j := range changes.Jobs {
		out.Jobs = append(out.Jobs, j.JobID)
	}
	made, err := s.Generate(ctx, specs)
	if err != nil {
		return ensured{}, err
	}
	out.Generated, out.Renewed, out.Redact = made.Secrets, made.Renewed, made.Redact
	if err := s.Grow(ctx, jobs); err != nil {
		return out, err
	}
	if _, err := s.Publish(ctx, jobs); err != nil {
		return out, err
	}
	return out, s.Trim(ctx, jobs)
}

var specs = []*stack.Secret{
	{Name: "jwt", Type: stack.SecretRandom, Length: 24, ImportPaths: []string{"token_manager.jwt_secret"}},
	{Name: "mount", Type: stack.SecretUUID, ImportPaths: []string{"gateway.storage_registry.mount", "storage.mount"}},
	{Name: "ldap", Type: stack.SecretCertificate, DNSNames: []string{"ldap.internal"}},
}

func testEnsure(t *testing.T, c *api.Client, rt *tamper) {
	s := OpenSecrets(c, "ensure", "default", nil)
	jobs := []render.Job{job("ensure-a", "jwt", "ldap_ca"), job("ensure-b", "ldap"), job("ensure-c")}
	rep, err := s.Ensure(t.Context(), specs, jobs)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rep.Generated, []string{"jwt", "mount", "ldap"}) || !slices.Equal(rep.Jobs, []string{"ensure-a", "ensure-b"}) {
		t.Errorf("report %+v", rep)
	}
	master, a, b := items(t, c, s.Path()), items(t, c, "nomad/jobs/ensure-a"), items(t, c, "nomad/jobs/ensure-b")
	if master["_layout"] != "1" || len(master["jwt"]) != 24 || master["ldap_ca_key"] == "" {
		t.Errorf("master has %v", slices.Sorted(maps.Keys(master)))
	}
	if !maps.Equal(a, map[string]string{"_drover": "1", "_owner": "ensure/default", "jwt": master["jwt"], "ldap_ca": master["ldap_ca"]}) {
		t.Errorf("a has %v", slices.Sorted(maps.Keys(a)))
	}
	if got := slices.Sorted(maps.Keys(b)); !slices.Equal(got, []string{"_drover", "_owner", "ldap_ca", "ldap_cert", "ldap_key"}) {
		t.Errorf("b has %v", got)
	}
	if items(t, c, "nomad/jobs/ensure-c") != nil {
		t.Error("c needs no secrets and has a variable")
	}
	if got := rep.Redact("token " + master["jwt"] + " leaked"); got != "token (redacted) leaked" {
		t.Error(got)
	}

	rt.writes = 0
	rep, err = s.Ensure(t.Context(), specs, jobs)
	if err != nil || rt.writes != 0 || len(rep.Generated)+len(rep.Renewed)+len(rep.Jobs) != 0 || !maps.Equal(master, items(t, c, s.Path())) {
		t.Errorf("the second time: %d writes, %+v, %v", rt.writes, rep, err)
	}

	// Most of a year later the leaf is renewed, and nothing else.
	later := OpenSecrets(c, "ensure", "default", func() time.Time { return time.Now().Add(300 * 24 * time.Hour) })
	rep, err = later.Ensure(t.Context(), specs, jobs)
	if err != nil || !slices.Equal(rep.Renewed, []string{"ldap"}) || !slices.Equal(rep.Jobs, []string{"ensure-b"}) || len(rep.Generated) > 0 {
		t.Errorf("renewal: %+v, %v", rep, err)
	}

	list, err := s.List(t.Context(), specs)
	if err != nil || len(list) != 3 || !list[0].Set || list[0].Made.IsZero() || list[2].Expires.IsZero() {
		t.Errorf("list %+v, %v", list, err)
	}
	if v, err := s.Show(t.Context(), specs, "jwt"); err != nil || v.Reveal() != master["jwt"] {
		t.Errorf("show: %v", err)
	}
	if _, err := s.Show(t.Context(), specs, "ldap"); err == nil || !strings.Contains(err.Error(), "ldap_cert") {
		t.Errorf("show of a certificate: %v", err)
	}
	if _, err := s.Show(t.Context(), specs, "nix"); !errors.Is(err, ErrNotFound) {
		t.Errorf("show of nothing: %v", err)
	}
}

func testGiven(t *testing.T, c *api.Client, rt *tamper) {
	s := OpenSecrets(c, "given", "prod", nil)
	specs := []*stack.Secret{{Name: "smtp", Type: stack.SecretGiven}, {Name: "jwt", Type: stack.SecretRandom}, {Name: "api", Type: stack.SecretGiven}}
	jobs := []render.Job{job("given-a", "smtp")}
	_, err := s.Ensure(t.Context(), specs, jobs)
	if err == nil || !strings.Contains(err.Error(), "smtp, api") || !strings.Contains(err.Error(), "drover secrets set given smtp -e prod") {
		t.Errorf("ensure: %v", err)
	}
	if rt.writes != 0 {
		t.Error("something was written though a secret is missing")
	}
	for _, name := range []string{"smtp", "api"} {
		if _, err := s.Set(t.Context(), specs, jobs, name, secrets.NewValue("from the operator")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Ensure(t.Context(), specs, jobs); err != nil {
		t.Fatal(err)
	}
	if got := items(t, c, "nomad/jobs/given-a")["smtp"]; got != "from the operator" {
		t.Errorf("the job has %q", got)
	}
	if _, err := s.Rotate(t.Context(), specs, jobs, "smtp"); err == nil || !strings.Contains(err.Error(), "secrets set") {
		t.Errorf("rotate: %v", err)
	}
	if _, err := s.Set(t.Context(), specs, jobs, "smtp", secrets.NewValue("")); err == nil {
		t.Error("an empty value was taken")
	}
	jobs2, err := s.Set(t.Context(), specs, jobs, "smtp", secrets.NewValue("another"))
	if err != nil || !slices.Equal(jobs2, []string{"given-a"}) || items(t, c, "nomad/jobs/given-a")["smtp"] != "another" {
		t.Errorf("set: %v, %v", jobs2, err)
	}
}

func testForeignVariable(t *testing.T, c *api.Client, rt *tamper) {
	if _, _, err := c.Variables().Create(&api.Variable{Path: "nomad/jobs/foreign-a", Items: api.VariableItems{"x": "theirs"}}, nil); err != nil {
		t.Fatal(err)
	}
	rt.writes = 0
	s := OpenSecrets(c, "foreign", "default", nil)
	_, err := s.Ensure(t.Context(), specs, []render.Job{job("foreign-a", "jwt")})
	if err == nil || !strings.Contains(err.Error(), "nomad/jobs/foreign-a was not made by drover") || strings.Contains(err.Error(), "theirs") {
		t.Errorf("ensure: %v", err)
	}
	if rt.writes != 0 || items(t, c, s.Path()) != nil {
		t.Error("something was written")
	}
}

func testNewerLayout(t *testing.T, c *api.Client, _ *tamper) {
	s := OpenSecrets(c, "newer", "default", nil)
	if _, _, err := c.Variables().Create(&api.Variable{Path: s.Path(), Items: api.VariableItems{"_layout": "2"}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ensure(t.Context(), specs, nil); err == nil || !strings.Contains(err.Error(), "newer drover") {
		t.Errorf("ensure: %v", err)
	}
}

// Two deploys at once: the values of the first one to write win.
func testConflict(t *testing.T, c *api.Client, rt *tamper) {
	s := OpenSecrets(c, "conflict", "default", nil)
	rt.before = func(*http.Request) {
		if _, err := OpenSecrets(c, "conflict", "default", nil).Ensure(t.Context(), specs, nil); err != nil {
			t.Error(err)
		}
	}
	rep, err := s.Ensure(t.Context(), specs, nil)
	if err != nil || len(rep.Generated) != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

func testRotate(t *testing.T, c *api.Client, _ *tamper) {
	s := OpenSecrets(c, "rotate", "default", nil)
	jobs := []render.Job{job("rotate-a", "jwt"), job("rotate-b", "mount"), job("rotate-c", "ldap")}
	if _, err := s.Ensure(t.Context(), specs, jobs); err != nil {
		t.Fatal(err)
	}
	before := items(t, c, s.Path())
	written, err := s.Rotate(t.Context(), specs, jobs, "jwt")
	if err != nil || !slices.Equal(written, []string{"rotate-a"}) {
		t.Fatalf("%v, %v", written, err)
	}
	after := items(t, c, s.Path())
	if after["jwt"] == before["jwt"] || after["mount"] != before["mount"] || items(t, c, "nomad/jobs/rotate-a")["jwt"] != after["jwt"] {
		t.Error("not the new value everywhere, or more than it")
	}
	if written, err = s.Rotate(t.Context(), specs, jobs, "ldap"); err != nil || !slices.Equal(written, []string{"rotate-c"}) {
		t.Fatalf("%v, %v", written, err)
	}
	if got := items(t, c, s.Path()); got["ldap_ca"] != before["ldap_ca"] || got["ldap_cert"] == before["ldap_cert"] {
		t.Error("a rotated certificate is a new leaf of the same CA")
	}
}

func testTransfer(t *testing.T, c *api.Client, rt *tamper) {
	s := OpenSecrets(c, "transfer", "default", nil)
	if _, err := s.Ensure(t.Context(), specs, nil); err != nil {
		t.Fatal(err)
	}
	want := items(t, c, s.Path())
	for _, format := range []string{"json", "yaml"} {
		text, err := s.Export(t.Context(), format)
		if err != nil {
			t.Fatal(err)
		}
		to := OpenSecrets(c, "transfer", format, nil)
		rep, err := to.Import(t.Context(), specs, nil, text, false)
		if err != nil || len(rep.Secrets) != 6 || len(rep.Missing)+len(rep.Ignored) != 0 {
			t.Errorf("%s: %+v, %v", format, rep, err)
		}
		got := items(t, c, to.Path())
		delete(got, infoItem)
		delete(want, infoItem)
		if !maps.Equal(got, want) {
			t.Errorf("%s: what was imported differs", format)
		}
		// Again: nothing to do, nothing written.
		rt.writes = 0
		if rep, err = to.Import(t.Context(), specs, nil, text, false); err != nil || len(rep.Same) != 6 || rt.writes != 0 {
			t.Errorf("%s again: %+v, %v, %d writes", format, rep, err, rt.writes)
		}
	}
}

func testImportForeign(t *testing.T, c *api.Client, rt *tamper) {
	s := OpenSecrets(c, "import", "default", nil)
	jobs := []render.Job{job("import-a", "jwt")}
	file := []byte("token_manager:\n  jwt_secret: 0123456789\nstorage:\n  mount: abc\nother: 1\n")
	rep, err := s.Import(t.Context(), specs, jobs, file, false)
	if err != nil || !slices.Equal(rep.Secrets, []string{"jwt", "mount"}) || !slices.Equal(rep.Missing, []string{"ldap"}) {
		t.Fatalf("%+v, %v", rep, err)
	}
	if got := items(t, c, s.Path()); got["jwt"] != "0123456789" || got["mount"] != "abc" {
		t.Error("not what the file says")
	}
	if _, err := s.Ensure(t.Context(), specs, jobs); err != nil {
		t.Fatal(err)
	}
	if got := items(t, c, "nomad/jobs/import-a")["jwt"]; got != "0123456789" {
		t.Error("the deploy after an import made a new value")
	}

	changed := []byte("token_manager: {jwt_secret: otherwise}\nstorage: {mount: abc}\n")
	rt.writes = 0
	if _, err := s.Import(t.Context(), specs, jobs, changed, false); err == nil || !strings.Contains(err.Error(), "jwt") || !strings.Contains(err.Error(), "--force") || strings.Contains(err.Error(), "otherwise") || rt.writes != 0 {
		t.Errorf("a different value: %v", err)
	}
	if rep, err := s.Import(t.Context(), specs, jobs, changed, true); err != nil || !slices.Equal(rep.Jobs, []string{"import-a"}) || items(t, c, "nomad/jobs/import-a")["jwt"] != "otherwise" {
		t.Errorf("with force: %+v, %v", rep, err)
	}
	for text, want := range map[string]string{
		"a: [": "neither YAML nor JSON", "- 1": "neither YAML nor JSON", "": "neither YAML nor JSON", "x: 1": "none of the secrets",
		"gateway: {storage_registry: {mount: one}}\nstorage: {mount: two}": "different values",
		"layout: 9\nsecrets: {jwt: x}":                                     "newer drover",
	} {
		if _, err := s.Import(t.Context(), specs, jobs, []byte(text), true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func testPurge(t *testing.T, c *api.Client, _ *tamper) {
	s := OpenSecrets(c, "purge", "default", nil)
	jobs := []render.Job{job("purge-a", "jwt")}
	if _, err := s.Ensure(t.Context(), specs, jobs); err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	if items(t, c, s.Path()) != nil || items(t, c, "nomad/jobs/purge-a") != nil {
		t.Error("something is left")
	}
	if err := s.Purge(t.Context(), jobs); err != nil {
		t.Errorf("again: %v", err)
	}
}
