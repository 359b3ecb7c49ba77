package jobs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// Each alert has a severity, a summary and a runbook, and each runbook an alert.
func TestRules_HaveRunbooks(t *testing.T) {
	t.Parallel()
	text, err := fs.ReadFile(files, "monitoring/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{} // PAGE.md#ALERT
	pages, err := filepath.Glob("../docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(text), -1) {
			sections[filepath.Base(page)+"#"+strings.ToLower(m[1])] = true
		}
	}
	const base = "https://github.com/drover-nomad/drover/blob/main/docs/runbooks/"
	alerts := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			alerts++
			if r.Expr == "" || r.Annotations["summary"] == "" || r.Labels["severity"] != "critical" && r.Labels["severity"] != "warning" {
				t.Errorf("alert %s lacks an expression, a summary or a severity: %+v", r.Alert, r)
			}
			page, found := strings.CutPrefix(r.Annotations["runbook_url"], base)
			if want := strings.TrimPrefix(g.Name, "drover-") + ".md#" + strings.ToLower(r.Alert); !found || page != want {
				t.Errorf("alert %s: got runbook %s, want %s%s", r.Alert, r.Annotations["runbook_url"], base, want)
			}
			if !sections[page] {
				t.Errorf("alert %s: docs/runbooks has no section %s", r.Alert, page)
			}
			delete(sections, page)
		}
	}
	for s := range sections {
		t.Errorf("the section %s of docs/runbooks has no alert", s)
	}
	if alerts < 30 {
		t.Errorf("got %d alerts, want all of them", alerts)
	}
}
