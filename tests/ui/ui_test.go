// Package ui_test operates the web page of drover in a real Chromium, on a real cluster.
package ui_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// The pictures of docs/ui: go test ./tests/ui -args -write-pictures $PWD/docs/ui
var writePictures = flag.String("write-pictures", "", "directory for pictures of the pages")

func TestMain(m *testing.M) { devtest.Main(m) }

// shop is a stack of three services in two waves, of which the second needs an approval.
// web is a process, with a log and resource use; the others are tasks of the mock driver.
var shop = map[string]string{
	"stack.hcl": `
stack "shop" {}
service "db" {}
service "api" { depends_on = ["db"] }
service "web" {
  depends_on = ["api"]
  secrets    = ["token"]
}
secret "token" {}
`,
	"environments/prod.hcl": `
wave "data" { services = ["db", "api"] }
wave "front" {
  services = ["web"]
  approve  = true
}
`,
	"variables.hcl": `
variable "color" { default = "blue" }
variable "command" { default = "echo serving $COLOR with $TOKEN; exec sleep 3600" }
`,
	"_base.nomad.hcl": `
job "shop-*" {
  update {
    health_check      = "task_states"
    min_healthy_time  = "300ms"
    healthy_deadline  = "1m"
    progress_deadline = "2m"
  }
  group "*" {
    reschedule {
      attempts  = 0
      unlimited = false
    }
    restart {
      attempts = 0
      mode     = "fail"
    }
    task "*" {
      kill_timeout = "1s"
      resources {
        cpu    = 20
        memory = 32
      }
    }
  }
}
`,
	"db.nomad.hcl":  mock("db"),
	"api.nomad.hcl": mock("api"),
	"web.nomad.hcl": `
job "shop-web" {
  group "g" {
    task "t" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", var.command]
      }
      env {
        COLOR = var.color
      }
      template {
        destination = "secrets/env"
        env         = true
        data        = <<EOT
TOKEN={{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .token.Value }}{{ end }}
EOT
      }
    }
  }
}
`,
}

func mock(name string) string {
	return `
job "shop-` + name + `" {
  group "g" {
    task "t" {
      driver = "mock_driver"
      config {
        run_for = "1h"
      }
      logs {
        disabled = true
      }
      env {
        COLOR = var.color
      }
    }
  }
}
`
}

// site is a cluster with the stack shop, drover ui, and a browser that is signed in.
type site struct {
	*testing.T
	drover  devtest.Program
	url     string // of drover ui
	browser context.Context
	axe     string
	secret  string
}

func newSite(t *testing.T) *site {
	t.Helper()
	axe := make(chan string, 1)
	wait := devtest.Start(t, "fetch axe-core", func(t *testing.T) { axe <- fetchAxe(t) })
	defer wait()
	cluster := devtest.Cluster(t, devcluster.Options{})
	dir := t.TempDir()
	for name, text := range shop {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env, err := cluster.Env("")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, drover: devtest.Program{Path: devtest.Build(t, cluster.BinDir()), Env: env, Dir: dir}}
	s.serve()
	s.browser = newBrowser(t)
	wait()
	s.axe = <-axe
	return s
}

// serve starts drover ui and takes the URL that it prints.
func (s *site) serve() {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), s.drover.Path, "ui", "--refresh", "500ms")
	cmd.Env, cmd.Dir, cmd.Stderr = append(os.Environ(), s.drover.Env...), s.drover.Dir, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "context canceled") {
			s.Errorf("drover ui ended with %v, want no error after an interrupt", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.Fatalf("drover ui printed no URL: %v", err)
	}
	s.url = strings.TrimSpace(line)
}

func newBrowser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is not installed; on Debian: apt-get install --no-install-recommends chromium")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU)
	if os.Getuid() == 0 {
		opts = append(opts, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1100, 800)); err != nil {
		t.Fatalf("cannot start Chromium: %v", err)
	}
	return ctx
}

// run carries out steps in the browser.
func (s *site) run(steps ...chromedp.Action[chromedp.Void]) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.browser, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		s.Fatalf("in the browser: %v\nthe page is\n%s", err, s.text())
	}
}

// value runs a step that returns a value.
func value[T any](s *site, step chromedp.Action[T]) T {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.browser, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, step)
	if err != nil {
		s.Fatalf("in the browser: %v\nthe page is\n%s", err, s.text())
	}
	return v
}

// text returns what the page shows.
func (s *site) text() string {
	ctx, cancel := context.WithTimeout(s.browser, 20*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.title + "\n" + document.getElementById("main").innerText`))
	return text
}

// shows waits until the page shows all parts. It does not load the page again.
func (s *site) shows(parts ...string) {
	s.Helper()
	text := ""
	defer func() {
		if s.Failed() {
			s.Logf("the page is\n%s", text)
		}
	}()
	devtest.Until(s, time.Minute, fmt.Sprintf("the page to show %q", parts), func() bool {
		text = s.text()
		for _, p := range parts {
			if !strings.Contains(text, p) {
				return false
			}
		}
		return true
	})
}

func (s *site) visit(path string) {
	s.Helper()
	base, _, _ := strings.Cut(s.url, "/?")
	s.run(chromedp.Navigate(base+path), chromedp.WaitReady(chromedp.CSS("footer")))
}

// click waits for a link and clicks it; class is that of its element, "" for none.
func (s *site) click(class, words string) {
	s.Helper()
	s.run(chromedp.Click(fmt.Sprintf(`//main//a[normalize-space(@class)=%q][normalize-space(.)=%q]`, class, words)))
}

// confirm clicks an action and confirms it.
func (s *site) confirm(action string, planned ...string) {
	s.Helper()
	s.click("button", action)
	s.shows(append(planned, action+"?")...)
	s.run(chromedp.Click(chromedp.CSS("button.act")))
	s.shows("Events")
}

func (s *site) picture(name string) {
	s.Helper()
	if *writePictures == "" {
		return
	}
	png := value(s, chromedp.CaptureScreenshot())
	if len(png) > 120<<10 {
		s.Errorf("the picture %s has %d bytes, want less than 120 KB", name, len(png))
	}
	if err := os.WriteFile(filepath.Join(*writePictures, name+".png"), png, 0o600); err != nil {
		s.Fatal(err)
	}
}

// scheme makes the browser prefer a colour scheme.
func (s *site) scheme(name string) {
	s.Helper()
	p := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}}
	if _, err := chromedp.Call(s.browser, emulation.SetEmulatedMedia, p); err != nil {
		s.Fatal(err)
	}
}

// TestPage deploys, watches and approves a wave, sees a failure, and rolls back.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run(chromedp.Navigate(s.url), chromedp.WaitVisible(chromedp.CSS("header nav")))
	s.shows("No stack has a release here")

	s.refusesOthers()
	s.drover.Run(t, "deploy", ".", "-e", "prod")
	s.secret = strings.TrimSpace(s.drover.Want(t, 0, "secrets", "show", "shop", "token", "-e", "prod"))
	s.shows("shop", "awaiting-approval") // without a reload
	s.click("", "shop")
	s.shows("db", "Release 1")
	s.confirm("Approve", "Wave front", "web: create")
	s.shows("succeeded")

	s.visit("/s/shop/prod/service/web")
	s.shows("serving blue", "with (", "CPU", "MiB")
	s.picture("service")
	s.visit("/s/shop/prod")
	s.shows("3 services", "Dependencies")
	s.picture("stack")

	s.visit("/s/shop/prod/releases/2")
	s.shows("Not available")
	deploy := devtest.Start(t, "deploy version 2", func(t *testing.T) { s.drover.Run(t, "deploy", ".", "-e", "prod", "-var", "color=green") })
	devtest.Until(t, time.Minute, "release 2", func() bool {
		s.visit("/s/shop/prod/releases/2")
		return !strings.Contains(s.text(), "Not available")
	})
	s.run(chromedp.Evaluate[chromedp.Void](`window.stayed = true`))
	s.shows("Wave data", "2 of 2 services are done", "Release 2", "awaiting-approval", "Approve")
	deploy()
	s.picture("release")
	if !value(s, chromedp.Evaluate[bool](`window.stayed === true`)) {
		t.Error("the page was loaded again, want live updates")
	}
	s.confirm("Approve", "web: update")
	s.shows("succeeded")
	s.visit("/s/shop/prod/service/web")
	s.shows("serving green")

	s.drover.Run(t, "deploy", ".", "-e", "prod", "-var", "color=red", "-var", "command=echo cannot open the shop >&2; exit 7", "--on-failure", "stop")
	s.visit("/s/shop/prod")
	s.confirm("Approve")
	s.shows("did not succeed", "Exit Code: 7")
	s.visit("/failing")
	s.shows("release 3 ✗ failed", "web of shop in prod")
	s.picture("failing")
	s.pages(3)
	s.visit("/s/shop/prod/service/web")
	s.shows("Exit Code: 7", "cannot open the shop")
	s.visit("/s/shop/prod")
	s.confirm("Roll back", "COLOR", "green")
	s.shows("succeeded")
	s.picture("rollback")
	s.visit("/s/shop/prod")
	s.shows("3 services", "Release 4: ✓ deployed")
	if out := s.drover.Want(t, 0, "history", "shop", "-e", "prod"); !strings.Contains(out, "rollback to 2") {
		t.Errorf("the history is\n%s", out)
	}
	s.visit("/")
	s.shows("shop", "3 of 3")
	s.picture("stacks")
	if n := len(s.page("/s/shop/prod/releases/4")); n == 0 {
		t.Error("the page of release 4 is empty")
	}
}

// pages looks at every page: with axe-core in light and dark, at the width of a phone,
// and for the secret of the stack.
func (s *site) pages(release int) {
	s.Helper()
	shop := "/s/shop/prod"
	for _, path := range []string{
		"/", "/failing", "/edge", "/schedules", "/doctor", shop, shop + "/service/web", shop + "/releases", fmt.Sprintf("%s/releases/%d", shop, release),
		shop + "/drift", shop + "/diff?from=1&to=2", shop + "/do/rollback?to=2", shop + "/do/redeploy", "/nothing",
	} {
		s.visit(path)
		s.run(chromedp.Evaluate[chromedp.Void](s.axe + ";0"))
		for _, mode := range []string{"light", "dark"} {
			s.scheme(mode)
			s.accessible(path, mode)
		}
		s.scheme("light")
		s.run(chromedp.EmulateViewport(390, 844))
		if width := value(s, chromedp.Evaluate[int](`document.documentElement.scrollWidth`)); width > 390 {
			s.Errorf("%s is %d pixels wide on a phone of 390", path, width)
		}
		if path == shop {
			s.picture("phone")
		}
		s.run(chromedp.EmulateViewport(1100, 800))
		if text := s.page(path); strings.Contains(text, s.secret) {
			s.Errorf("%s has the secret of the stack", path)
		}
	}
}

// page returns the HTML of the page that is open.
func (s *site) page(path string) string {
	s.Helper()
	text := value(s, chromedp.OuterHTML(chromedp.CSS("html")))
	if !strings.Contains(text, "</main>") {
		s.Errorf("%s is no page\n%s", path, text)
	}
	return text
}

// accessible reports what axe-core, which is loaded, finds on the page that is open.
func (s *site) accessible(path, mode string) {
	s.Helper()
	found := value(s, chromedp.Evaluate[string](`axe.run(document, {resultTypes: ["violations"]}).then((r) => JSON.stringify(r.violations.map((v) => ({id: v.id, help: v.help, html: v.nodes.slice(0, 3).map((n) => n.html)}))))`, chromedp.EvalAwaitPromise))
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(found), &list); err != nil {
		s.Fatalf("axe-core returned %q", found)
	}
	for _, v := range list {
		s.Errorf("%s in %s: axe-core: %s", path, mode, v)
	}
}

// refusesOthers checks that a program without a session gets nothing.
func (s *site) refusesOthers() {
	s.Helper()
	base, _, _ := strings.Cut(s.url, "/?")
	for _, path := range []string{"/", "/s/shop/prod", "/live/"} {
		req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			s.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			s.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			s.Errorf("%s without a session: got %s, want 401", path, res.Status)
		}
	}
}
