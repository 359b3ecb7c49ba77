package deploy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func TestVarsOf(t *testing.T) {
	got := varsOf(json.RawMessage(`{"domain":"example.org","count":3,"names":["a","b"],"unset":null,"web.image":"x"}`))
	want := []string{"count=3", "domain=example.org", `names=["a","b"]`}
	if !slices.Equal(got, want) {
		t.Errorf("varsOf() = %q, want %q", got, want)
	}
	if got := varsOf(json.RawMessage("[]")); got != nil {
		t.Errorf("varsOf(not an object) = %q, want nil", got)
	}
}

func TestRestoreWithheld(t *testing.T) {
	recorded := []*stack.Check{{Name: "open"}, {Name: "private", Withheld: true}, {Name: "removed", Withheld: true}}
	source := []*stack.Check{{Name: "open", URL: "other"}, {Name: "private", Password: "pw"}}
	got := restoreWithheld(recorded, source)
	if got[0] != recorded[0] || got[1] != source[1] || got[2] != recorded[2] {
		t.Errorf("restoreWithheld() = %v, want the second from the source and the others from the record", got)
	}
	if recorded[1].Password != "" {
		t.Error("restoreWithheld changed its argument")
	}
}

func TestCheckNamed(t *testing.T) {
	checks := []*stack.Check{{Name: "leader"}, {Name: "login"}}
	got, err := checkNamed("shop", checks, "login")
	if err != nil || len(got) != 1 || got[0] != checks[1] {
		t.Errorf("checkNamed(login) = %v, %v, want the check and no error", got, err)
	}
	_, err = checkNamed("shop", checks, "nothing")
	if want := `stack shop has no check "nothing"; it has leader, login`; message(err) != want || ClassOf(err) != ClassInvalid {
		t.Errorf("error = %q of class %v, want %q of class %v", message(err), ClassOf(err), want, ClassInvalid)
	}
}

func TestRunChecks_Withheld(t *testing.T) {
	got := runChecks(t.Context(), []*stack.Check{{Name: "private", Withheld: true}}, 0)
	if len(got) != 1 || got[0].OK || !strings.HasPrefix(got[0].Problem, "not run: its credentials are not in the record") {
		t.Errorf("runChecks(withheld) = %+v, want one that is not run", got)
	}
	if n := (CheckResult{Checks: append(got, rollout.CheckResult{OK: true})}).Failed(); n != 1 {
		t.Errorf("Failed() = %d, want 1", n)
	}
}

func TestCredentialsOf(t *testing.T) {
	hide := credentialsOf(&stack.Check{Password: "pass-word-1", Headers: map[string]string{"Authorization": "Bearer token-2", "Accept": "text/plain"}})
	got := hide("pass-word-1 Bearer token-2 text/plain")
	if strings.Contains(got, "pass-word-1") || strings.Contains(got, "token-2") || !strings.Contains(got, "text/plain") {
		t.Errorf("hide() = %q, want it without credentials and with text/plain", got)
	}
}
