package ocis

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/drover-nomad/drover/jobs"
)

// helmPage is for operators who come from the Helm chart.
const helmPage = "../../docs/how-to/ocis-from-helm.md"

// The top-level groups of values.yaml of the chart ocis 0.7.0.
var chartGroups = strings.Fields(`autoscaling backup cache configRefs customCAChain debug deploymentStrategy externalDomain
	extraAnnotations extraLabels extraResources features global hostAliases http image ingress initContainerImage insecure
	jobNodeSelector jobPriorityClassName jobResources logging messagingSystem monitoring namespaceOverride nodeSelector
	podDisruptionBudget priorityClassName registry replicas resources secretRefs securityContext service services store
	topologySpreadConstraints tracing`)

// helmRows returns the rows of the table: group and what has it here.
func helmRows(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(helmPage)
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| group | here |\n|---|---|\n")
	if !ok {
		t.Fatal("the page has no table of values")
	}
	rows := map[string]string{}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) != 2 {
			t.Fatalf("a row has %d cells: %s", len(cells), line)
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[0], -1) {
			rows[m[1]] = cells[1]
		}
	}
	return rows
}

// Every group of the chart's values has a row: the top-level ones, each feature, and
// what the profiles set of single services.
func TestHelm_TableHasEveryGroup(t *testing.T) {
	t.Parallel()
	rows := helmRows(t)
	if len(chartGroups) != 39 {
		t.Fatalf("%d groups, want 39", len(chartGroups))
	}
	has := func(group string) bool {
		if _, ok := rows[group]; ok {
			return true
		}
		for row := range rows { // features.quotas is a row of features
			if strings.HasPrefix(row, group+".") {
				return true
			}
		}
		return false
	}
	for _, group := range chartGroups {
		if !has(group) {
			t.Errorf("the table has no row of %s", group)
		}
	}
	files, err := filepath.Glob(filepath.Join(charts(t), "*", "values", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("there are no values of charts")
	}
	overlays := []string{"affinity", "autoscaling", "jobNodeSelector", "jobResources", "podDisruptionBudget", "resources"}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]any
		if err := yaml.Unmarshal(text, &values); err != nil {
			t.Fatal(err)
		}
		for group, inner := range values {
			if !slices.Contains(chartGroups, group) || !has(group) {
				t.Errorf("%s: the table has no row of %s", filepath.Base(file), group)
			}
			deeper, _ := inner.(map[string]any)
			for name, value := range deeper {
				switch group {
				case "features":
					if !has("features." + name) {
						t.Errorf("%s: the table has no row of features.%s", filepath.Base(file), name)
					}
				case "services":
					of, _ := value.(map[string]any)
					for key := range of {
						if !has("services."+name+"."+key) && !has("services.*."+key) && !slices.Contains(overlays, key) {
							t.Errorf("%s: the table has no row of services.%s.%s", filepath.Base(file), name, key)
						}
					}
				}
			}
		}
	}
}

// Each name of the table that looks like a variable is one, or a word of Nomad's.
func TestHelm_TableNamesVariables(t *testing.T) {
	t.Parallel()
	s, err := load(t, "", map[string]any{"domain": "cloud.example.org", "line": "7.1"})
	if err != nil {
		t.Fatal(err)
	}
	files, err := jobs.Stack("ocis")
	if err != nil {
		t.Fatal(err)
	}
	variables, err := fs.ReadFile(files, "variables.hcl")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^variable "(\w+)"`).FindAllStringSubmatch(string(variables), -1) {
		known[m[1]] = true
	}
	for _, secret := range s.Secrets {
		known[secret.Name] = true
	}
	// Nomad's blocks, a stack, keys of variables, and the name of a port.
	for _, word := range strings.Fields("constraint debug edge extra_hosts import meta migrate namespace priority registry_nodes scaling spread store_nodes update") {
		known[word] = true
	}
	names := 0
	for group, here := range helmRows(t) {
		for _, m := range regexp.MustCompile("`([a-z][a-z0-9_]*)`").FindAllStringSubmatch(here, -1) {
			if names++; !known[m[1]] {
				t.Errorf("%s: there is no variable %s", group, m[1])
			}
		}
	}
	if names < 50 {
		t.Errorf("the table has %d names", names)
	}
}

// The example of the page is an environment that renders.
func TestHelm_Example(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(helmPage)
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```hcl\n")
	example, _, _ = strings.Cut(example, "```")
	file := filepath.Join(t.TempDir(), "prod.hcl")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	_, jobs := rendered(t, file, map[string]any{})
	for _, name := range []string{"antivirus", "notifications", "cron-purge-trash", "backup", "storage-users"} {
		if jobs[name].Job == nil {
			t.Errorf("there is no %s", name)
		}
	}
	for _, name := range []string{"idm", "idp"} {
		if jobs[name].Job != nil {
			t.Errorf("%s runs although users are elsewhere", name)
		}
	}
}

// The script of the migration reads secrets that the chart has, and writes each secret
// that drover would otherwise generate anew.
func TestHelm_MigrationOfSecrets(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(helmPage)
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(text), "<<EOF\n")
	script, _, _ = strings.Cut(script, "EOF\n")
	read := regexp.MustCompile(`\$\((secret|config) (\S+) (\S+)\)`)
	full, err := os.ReadFile(filepath.Join(charts(t), ocisChart, "full.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err == nil {
		var chart struct{ Secrets, Configmaps map[string]map[string]any }
		if err := json.Unmarshal(full, &chart); err != nil {
			t.Fatal(err)
		}
		for _, m := range read.FindAllStringSubmatch(script, -1) {
			from := chart.Secrets
			if m[1] == "config" {
				from = chart.Configmaps
			}
			if from[m[2]][m[3]] == nil {
				t.Errorf("the chart has no %s %s with the key %s", m[1], m[2], m[3])
			}
		}
	}
	var written any
	if err := yaml.Unmarshal([]byte(read.ReplaceAllString(script, "$2/$3")), &written); err != nil {
		t.Fatal(err)
	}
	at := func(path string) any {
		v := written
		for key := range strings.SplitSeq(path, ".") {
			m, _ := v.(map[string]any)
			v = m[key]
		}
		return v
	}
	s, err := load(t, "", map[string]any{"domain": "cloud.example.org", "line": "7.1"})
	if err != nil {
		t.Fatal(err)
	}
	imported := 0
	for _, secret := range s.Secrets {
		if secret.Type == "certificate" {
			continue
		}
		if !slices.ContainsFunc(secret.ImportPaths, func(path string) bool { return at(path) != nil }) {
			t.Errorf("the script leaves %s out (%s), and drover would generate another one", secret.Name, secret.ImportPaths)
		}
		imported++
	}
	if got := len(read.FindAllString(script, -1)); got != imported {
		t.Errorf("the script has %d values, and the stack %d secrets", got, imported)
	}
}
