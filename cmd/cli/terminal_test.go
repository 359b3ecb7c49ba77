package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// waves is a stack of two waves; the second has to be approved.
func waves(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/environments", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		"stack.hcl":                 "stack \"" + name + "\" {}\nservice \"one\" {}\nservice \"two\" {}\n",
		"one.nomad.hcl":             mockJob(name+"-one", "100ms"),
		"two.nomad.hcl":             mockJob(name+"-two", "100ms"),
		"environments/approved.hcl": "wave \"first\" {\n  services = [\"one\"]\n}\nwave \"second\" {\n  approve = true\n}\n",
	})
	return dir
}

// terminal is a command on a terminal of its own, by util-linux's script.
type terminal struct {
	t    *testing.T
	keys io.WriteCloser
	done chan error

	mu     sync.Mutex
	screen bytes.Buffer
}

func (s *terminal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.screen.Write(p)
}

func (s *terminal) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.screen.String()
}

func onTerminal(t *testing.T, env []string, command string) *terminal {
	t.Helper()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("needs script of util-linux")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, script, "-qefc", "exec "+command, "/dev/null")
	cmd.Env = append(append(os.Environ(), env...), "TERM=xterm")
	s := &terminal{t: t, done: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = s, s
	if s.keys, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- cmd.Wait() }()
	return s
}

// sees waits until the screen has shown a text.
func (s *terminal) sees(text string) {
	s.t.Helper()
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("the screen:\n%s", s.text())
		}
	})
	devtest.Until(s.t, 3*time.Minute, fmt.Sprintf("%q on the screen", text), func() bool { return strings.Contains(s.text(), text) })
}

func (s *terminal) types(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.keys, keys); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the end of the command and checks its exit code.
func (s *terminal) ends(code int) {
	s.t.Helper()
	err := <-s.done
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		s.t.Fatal(err)
	}
	if got != code {
		s.t.Fatalf("got exit code %d, want %d:\n%s", got, code, s.text())
	}
}

// approvals tests that drover asks on a terminal for the approval of a wave, and that
// the live tree of each wave shows only its own services.
func approvals(t *testing.T, env []string) {
	dir := waves(t, "asked")
	question := "Begin wave second of release 1 with two? [y/N]"

	s := onTerminal(t, env, "drover deploy "+dir+" -e approved")
	s.sees(question)
	s.types("n\n")
	s.ends(exitPromotion)
	if text := s.text(); strings.Contains(text, "two  ") || !strings.Contains(text, "✓") {
		t.Errorf("the picture of wave first is\n%s", text)
	}

	// There is no question if stdin is no terminal.
	s = onTerminal(t, env, "drover resume "+dir+" -e approved < /dev/null")
	s.ends(exitPromotion)
	if strings.Contains(s.text(), question) {
		t.Errorf("got a question without a terminal:\n%s", s.text())
	}

	s = onTerminal(t, env, "drover resume "+dir+" -e approved")
	s.sees(question)
	s.types("\x04") // Ctrl-D
	s.ends(exitPromotion)

	// An approval by another process removes the question.
	s = onTerminal(t, env, "drover resume "+dir+" -e approved")
	s.sees(question)
	approve := exec.CommandContext(t.Context(), "drover", "approve", dir, "-e", "approved")
	approve.Env = append(os.Environ(), env...)
	if out, err := approve.CombinedOutput(); err != nil || !strings.Contains(string(out), "continues") {
		t.Fatalf("%v\n%s", err, out)
	}
	s.ends(exitOK)

	write(t, dir, map[string]string{"two.nomad.hcl": mockJob("asked-two", "200ms")})
	s = onTerminal(t, env, "drover deploy "+dir+" -e approved")
	s.sees("Begin wave second of release 2 with two? [y/N]")
	s.types("y\n")
	s.ends(exitOK)

	write(t, dir, map[string]string{"two.nomad.hcl": mockJob("asked-two", "300ms")})
	s = onTerminal(t, env, "drover deploy "+dir+" -e approved")
	s.sees("Begin wave second of release 3 with two? [y/N]")
	approve = exec.CommandContext(t.Context(), "drover", "approve", dir, "-e", "approved", "-o", "json")
	approve.Env = append(os.Environ(), env...)
	out, err := approve.Output()
	var end map[string]any
	if err != nil || json.Unmarshal(out, &end) != nil || end["event"] != "end" || end["outcome"] != "approved" || end["exit_code"] != 0.0 || end["wave"] != "second" {
		t.Errorf("approve -o json: %v\n%s", err, out)
	}
	s.ends(exitOK)
}

// watches tests that status -w shows each change of the stack, and exits by the last
// state.
func watches(t *testing.T, env []string) {
	dir := waves(t, "watched")
	deploy := exec.CommandContext(t.Context(), "drover", "deploy", dir)
	deploy.Env = append(os.Environ(), env...)
	if out, err := deploy.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := onTerminal(t, env, "drover status "+dir+" -w")
	s.sees("release 1, deployed")
	if _, _, err := nomadOf(t, env).Jobs().Deregister("watched-two", false, nil); err != nil {
		t.Fatal(err)
	}
	s.sees("the job was stopped")
	s.types("\x03") // Ctrl-C
	s.ends(exitError)
}

// annotates tests that --github reports failures as annotations of GitHub Actions.
func annotates(t *testing.T, env []string) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"stack.hcl":     "stack \"hub\" {}\n",
		"bad.nomad.hcl": strings.Replace(mockJob("hub-bad", "100ms"), "  group", "  constraint {\n    attribute = \"${node.class}\"\n    value = \"50%\"\n  }\n  group", 1),
	})
	deploy := exec.CommandContext(t.Context(), "drover", "deploy", dir, "--github", "--placement-timeout", "1s")
	deploy.Env = append(os.Environ(), env...)
	out, err := deploy.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "\n::error title=hub%3A bad placement-blocked::") || !strings.Contains(string(out), "\n::error title=hub::hub: placement-blocked: 1 placement-blocked") {
		t.Errorf("%v\n%s", err, out)
	}
}

// requests counts the requests of status and plan for a running stack: one per service
// and a few more.
func requests(t *testing.T, env []string) {
	var mu sync.Mutex
	var seen []string
	proxy := proxyOf(t, env)
	proxy.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		return true
	})

	dir := t.TempDir()
	const services = 12
	files := map[string]string{"stack.hcl": "stack \"asks\" {}\n"}
	for i := range services {
		name := fmt.Sprintf("asks-%02d", i)
		files[name+".nomad.hcl"] = strings.Replace(mockJob(name, "100ms"), "    task", "    service {\n      name = \""+name+"\"\n    }\n    task", 1)
	}
	write(t, dir, files)
	for _, step := range []struct {
		command string
		most    int
	}{{"deploy", 10000}, {"status", services + 7}, {"plan", services + 7}} {
		mu.Lock()
		seen = nil
		mu.Unlock()
		cmd := exec.CommandContext(t.Context(), "drover", step.command, dir)
		cmd.Env = append(os.Environ(), through(proxy, env)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", step.command, err, out)
		}
		mu.Lock()
		if len(seen) > step.most {
			t.Errorf("%s: got %d requests, want at most %d: %v", step.command, len(seen), step.most, seen)
		}
		mu.Unlock()
	}
}
