package dns_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
)

// hook is a provider in a shell script: a zone is a file of JSON lines, one
// for each record set. It is what docs/reference/dns.md shows.
const hook = `#!/bin/sh
set -eu
request=$(cat)
zone=$(printf %s "$request" | jq -r .zone)
file="$(dirname "$0")/$zone.zone"
[ -e "$file" ] || { echo '{"error": "no such zone", "kind": "no-zone"}'; exit; }
case $(printf %s "$request" | jq -r .operation) in
list)
  jq -s '{records: .}' "$file" ;;
apply)
  if printf %s "$request" | jq -e '[.changes[].name] | any(startswith("bad."))' >/dev/null; then
    echo '{"error": "a bad name", "kind": "refused"}'; exit
  fi
  printf %s "$request" | jq -c --slurpfile have "$file" '
    .changes as $c | ($c | map([.name, .type])) as $keys
    | ($have | map(select(([.name, .type]) as $k | $keys | index([$k]) | not)))
      + ($c | map(select(.action == "set") | del(.action))) | .[]' >"$file.new"
  mv "$file.new" "$file"
  echo '{}' ;;
esac
`

func script(t *testing.T, text string) []string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "hook")
	devtest.Script(t, name, text)
	return []string{"/bin/sh", name} // not itself: a fork elsewhere may still hold it open for writing
}

func execOptions(command []string) dns.Options {
	return dns.Options{Provider: dns.ProviderExec, Command: command}
}

func TestExec(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("jq"); err != nil {
		t.Fatal("jq is not installed: apt-get install jq")
	}
	command := script(t, hook)
	file := filepath.Join(filepath.Dir(command[1]), "example.org.zone")
	if err := os.WriteFile(file, []byte(`{"name":"Mail.example.org.","type":"mx","ttl":60,"values":["10 mx.example.org."]}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := dns.Open(execOptions(command))
	if err != nil {
		t.Fatal(err)
	}
	m := manager(p, "example.org")
	desired := append(everyType(), dns.Record{Name: "bad", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}})
	_, res := reconcile(t, m, desired)
	if len(res.Done) != len(everyType()) || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "bad.example.org A: exec: a bad name") {
		t.Fatalf("done %d, failed %v", len(res.Done), res.Failed)
	}
	if plan, _ := reconcile(t, m, everyType()); !plan.Empty() || plan.Count(dns.Unchanged) != len(everyType()) {
		t.Errorf("a second plan: %+v", plan.Changes)
	}
	m.Policy = dns.Sync
	if _, res := reconcile(t, m, nil); len(res.Done) != len(everyType()) {
		t.Errorf("sync: %+v", res)
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), "Mail") {
		t.Errorf("the foreign record: %s %v", text, err)
	}
	dns.LibdnsContract(t, p, "example.org")
}

func TestExecFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, script, want string }{
		{"fails", "echo one >&2; echo 'token expired' >&2; exit 3", "ended with 3: token expired"},
		{"no JSON", "echo hello", "did not answer with JSON"},
		{"no zone", `echo '{"error":"who?","kind":"no-zone"}'`, "who?"},
		{"hangs", "sleep 1000 & sleep 1000", "did not end in time"},
		{"reads nothing", `exec <&-; echo '{"error":"busy","kind":"unavailable"}'`, "busy"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p, err := dns.Open(execOptions(script(t, tc.script)))
			if err != nil {
				t.Fatal(err)
			}
			m := manager(p, "example.org")
			m.Timeout = 10 * time.Second
			if tc.name == "hangs" {
				m.Timeout = 200 * time.Millisecond
			}
			start := time.Now()
			plan, err := m.Plan(t.Context(), nil)
			if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), tc.want) {
				t.Errorf("it says %v (%v), not %q", plan.Errors, err, tc.want)
			}
			if d := time.Since(start); tc.name == "hangs" && d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
	if _, err := dns.Open(execOptions([]string{"/nowhere/at/all"})); err == nil {
		t.Error("a program that is not there was accepted")
	}
}
