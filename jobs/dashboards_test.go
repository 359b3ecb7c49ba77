package jobs

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the dashboards for Grafana")

// dashboard is a definition, in the form in which VictoriaMetrics reads it.
type dashboard struct {
	Title    string `json:"title"`
	Filename string `json:"filename"`
	Rows     []struct {
		Title  string `json:"title"`
		Panels []struct {
			Title       string   `json:"title"`
			Description string   `json:"description"`
			Unit        string   `json:"unit"`
			Expr        []string `json:"expr"`
			Alias       []string `json:"alias"`
			Width       int      `json:"width"` // of 12
		} `json:"panels"`
	} `json:"rows"`
}

func dashboards(t *testing.T) []dashboard {
	t.Helper()
	names, err := fs.Glob(files, "monitoring/dashboards/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("got %d dashboards and %v", len(names), err)
	}
	var out []dashboard
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		decoder := json.NewDecoder(bytes.NewReader(bytes.ReplaceAll(text, []byte(`"showLegend": true,`), nil)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d.Filename != filepath.Base(name) {
			t.Errorf("%s: got filename %q", name, d.Filename)
		}
		out = append(out, d)
	}
	return out
}

// Panels of one width fill each row, each expression has a name, and each unit is known.
func TestDashboards_Definitions(t *testing.T) {
	t.Parallel()
	for _, d := range dashboards(t) {
		for _, row := range d.Rows {
			width := 0
			for _, p := range row.Panels {
				width += p.Width
				if len(p.Expr) == 0 || len(p.Expr) != len(p.Alias) {
					t.Errorf("%s, %s: got %d expressions and %d names", d.Filename, p.Title, len(p.Expr), len(p.Alias))
				}
				if _, known := grafanaUnits[p.Unit]; !known {
					t.Errorf("%s, %s: unit %q is not known", d.Filename, p.Title, p.Unit)
				}
			}
			if width == 0 || width%12 != 0 {
				t.Errorf("%s, %s: the panels have a width of %d, want a multiple of 12", d.Filename, row.Title, width)
			}
		}
	}
}

// grafanaUnits are Grafana's names of units.
var grafanaUnits = map[string]string{"": "short", "bytes": "bytes", "bytes/s": "Bps", "share": "percentunit", "s": "s", "days": "d", "/s": "reqps", "cores": "none"}

// grafana returns the dashboard as Grafana imports it.
func (d dashboard) grafana() ([]byte, error) {
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	y := 0
	for _, row := range d.Rows {
		panels = append(panels, object{"type": "row", "title": row.Title, "collapsed": false, "panels": []object{}, "gridPos": object{"h": 1, "w": 24, "x": 0, "y": y}})
		y++
		x := 0
		for _, p := range row.Panels {
			if x == 24 {
				x, y = 0, y+8
			}
			var targets []object
			for i, expr := range p.Expr {
				targets = append(targets, object{"expr": expr, "legendFormat": p.Alias[i], "refId": string(rune('A' + i)), "datasource": source})
			}
			panels = append(panels, object{
				"type": "timeseries", "title": p.Title, "description": p.Description, "datasource": source, "targets": targets,
				"gridPos":     object{"h": 8, "w": p.Width * 2, "x": x, "y": y},
				"fieldConfig": object{"defaults": object{"unit": grafanaUnits[p.Unit], "min": 0}, "overrides": []object{}},
			})
			x += p.Width * 2
		}
		y += 8
	}
	for i := range panels {
		panels[i]["id"] = i + 1
	}
	out, err := json.MarshalIndent(object{
		"title": "drover: " + d.Title, "uid": "drover-" + strings.TrimSuffix(d.Filename, ".json"), "tags": []string{"drover"}, "schemaVersion": 39,
		"time": object{"from": "now-6h", "to": "now"}, "refresh": "30s", "panels": panels,
		"templating": object{"list": []object{{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}}},
	}, "", "  ")
	return append(out, '\n'), err
}

// The dashboards for Grafana are those of VictoriaMetrics.
func TestDashboards_GrafanaIsCurrent(t *testing.T) {
	t.Parallel()
	want := map[string]bool{}
	for _, d := range dashboards(t) {
		path := filepath.Join("..", "docs", "dashboards", d.Filename)
		want[d.Filename] = true
		text, err := d.grafana()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s is not current (%v): go test ./jobs -update", path, err)
		}
	}
	entries, err := os.ReadDir("../docs/dashboards")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !want[e.Name()] {
			t.Errorf("docs/dashboards/%s has no definition", e.Name())
		}
	}
}
