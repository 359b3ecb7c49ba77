package render

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/drover-nomad/drover/stack"
)

func load(t *testing.T, vars []string, files map[string]string) *stack.Stack {
	t.Helper()
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	s, err := stack.Load(t.Context(), stack.Options{Path: "s", FS: m, Vars: vars})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const base = `# base
locals {
  greeting = "hello ${var.who}" # said
  unused   = 1
}
job "*" {
  # all groups
  group "*" {
    count = 1
    task "*" {
      driver = "raw_exec"
      env { A = local.greeting }
    }
  }
}
`

func TestMergedTextIsWhatTheLayersSay(t *testing.T) {
	s := load(t, []string{"who=${you} \"and\" %{if}\n"}, map[string]string{
		"variables.hcl":   "variable \"who\" { default = \"me\" }\nvariable \"other\" { default = 1 }\n",
		"_base.nomad.hcl": base,
		"a.nomad.hcl": `# The A service.
job "a" {
  group "main" {
    count = 2 # two of them
    task "t" {
      config {
        command = "x" # stays
      }
      env {
        B = "${NOMAD_TASK_NAME}"
      }
      template {
        destination = "local/x"
        data        = <<EOT
 {{ with "${attr.kernel.name}" }}
EOT
      }
    }
  }
}
`,
	})
	jobs, err := Stack(t.Context(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `variable "who" {
  default = "$${you} \"and\" %%{if}\n"
}

locals {
  greeting = "hello ${var.who}" # said
}

# The A service.
job "a" {
  # all groups
  group "main" {
    count = 2 # two of them

    task "t" {
      driver = "raw_exec"
      env {
        A = local.greeting
        B = "${NOMAD_TASK_NAME}"
      }
      config {
        command = "x" # stays
      }
      template {
        destination = "local/x"
        data        = <<EOT
 {{ with "${attr.kernel.name}" }}
EOT
      }
    }
  }
}
`
	got := string(jobs[0].HCL)
	if got != want {
		t.Errorf("merged:\n%s\nwant:\n%s", got, want)
	}
	task := jobs[0].Job.TaskGroups[0].Tasks[0]
	if task.Env["A"] != "hello ${you} \"and\" %{if}\n" || task.Env["B"] != "${NOMAD_TASK_NAME}" {
		t.Errorf("env: %q", task.Env)
	}
}

func TestFilesOfAnEmbeddedStack(t *testing.T) {
	files := map[string]string{
		"a.nomad.hcl": "job \"a\" {\n  name = trimspace(file(\"x/name.txt\"))\n}\n",
		"x/name.txt":  "from a file\n",
	}
	jobs, err := Stack(t.Context(), load(t, nil, files), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if *jobs[0].Job.Name != "from a file" {
		t.Errorf("name %q", *jobs[0].Job.Name)
	}
	delete(files, "x/name.txt")
	_, err = Stack(t.Context(), load(t, nil, files), Options{})
	if err == nil || !strings.Contains(err.Error(), "s/a.nomad.hcl:2,") || strings.Contains(err.Error(), "drover-render-") {
		t.Errorf("error %v", err)
	}
}

func TestRenderStopsWithItsContext(t *testing.T) {
	files := map[string]string{}
	for i := range 40 {
		files[fmt.Sprintf("s%d.nomad.hcl", i)] = fmt.Sprintf("job \"j%d\" {}", i)
	}
	s := load(t, nil, files)
	ctx, cancel := context.WithCancel(t.Context())
	err := Each(ctx, s, Options{}, func(Job) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	stop := errors.New("stop")
	if err := Each(t.Context(), s, Options{}, func(Job) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestValuesSurviveBeingWritten(t *testing.T) {
	text := cty.StringVal("a \"b\" ${c} %{d} $${e}\n\té 😀 \\")
	for _, v := range []cty.Value{
		text, cty.NumberIntVal(-7), cty.NumberFloatVal(0.1), cty.True, cty.StringVal(""),
		cty.MustParseNumberVal("123456789012345678901234567890.5"),
		cty.NullVal(cty.String), cty.EmptyTupleVal, cty.EmptyObjectVal,
		cty.TupleVal([]cty.Value{text, cty.TupleVal([]cty.Value{cty.Zero})}),
		cty.ObjectVal(map[string]cty.Value{"a b": text, "c": cty.ObjectVal(map[string]cty.Value{"d-e": cty.False}), "${f}": cty.Zero}),
		cty.MapVal(map[string]cty.Value{"x.y": text}),
		cty.SetVal([]cty.Value{cty.Zero, cty.NumberIntVal(1)}),
	} {
		e, diags := hclsyntax.ParseExpression([]byte(literal(v)), "x", hcl.InitialPos)
		if diags.HasErrors() {
			t.Errorf("%s: %v", literal(v), diags)
			continue
		}
		if !sameValue(e, v) {
			t.Errorf("%s does not mean %#v", literal(v), v)
		}
	}
}

func TestNomadsTextIsReadBack(t *testing.T) {
	layer := &stack.Layer{File: "s/web.nomad.hcl", Src: []byte("job \"x\" {\n  group \"g\" {\n    count = 1\n  }\n}\n")}
	m := &sourceMap{text: layer.Src, segs: []segment{{layer: layer}}}
	diags := m.translate(errors.New("s/web.nomad.hcl:3,5-10: Bad; first\nsecond line, see s/web.nomad.hcl:2,3-12.\n<nil>: Worse; no place"), "s/web.nomad.hcl")
	if len(diags) != 2 || diags[0].Subject.Start.Line != 3 || diags[0].Subject.Start.Column != 5 ||
		diags[0].Detail != "first\nsecond line, see s/web.nomad.hcl:2:3." || diags[1].Subject != nil || diags[1].Summary != "Worse" {
		t.Errorf("%v", diags.Errs())
	}
}

func TestMistakesInLayers(t *testing.T) {
	for text, want := range map[string]string{
		"locals {\n  x {}\n}\njob \"a\" {}": "s/a.nomad.hcl:2,3-4: A locals block holds only values",
		"locals \"x\" {}\njob \"a\" {}":     "s/a.nomad.hcl:1,1-11: A locals block has no label",
		"job {}":                            "s/a.nomad.hcl:1,1-4: A job block has one label",
		"job \"a\" \"b\" {}":                "A job block has one label",
		"job \"*\" {}":                      "s/a.nomad.hcl:1,1-8: A service's job needs a name",
		"job \"a\" {}\njob \"b\" {}":        "s/a.nomad.hcl:2,1-8: A job file holds one job",
		"locals {}":                         "s/a.nomad.hcl:1,1-1: No job block",
		"":                                  "s/a.nomad.hcl:1,1-1: No job block",
		"x = 1\njob \"a\" {}":               "\"x\" does not belong here",
		"group \"a\" {}":                    "\"group\" does not belong here",
		"job \"a\" {\n  group \"[\" {}\n}":  "s/a.nomad.hcl:2,3-12: Invalid pattern",
		"job \"a\" {\n  group \"g\" {}\n  group \"g\" {}\n}":                          "s/a.nomad.hcl:3,3-12: Duplicate group \"g\"; It is already at s/a.nomad.hcl:2:3.",
		"job \"a\" {\n  name = var.nome\n}":                                           "s/a.nomad.hcl:2,10-18: Unknown variable \"nome\"; Nothing declares var.nome. Did you mean var.name?",
		"job \"a\" {\n  name = local.x\n}":                                            "s/a.nomad.hcl:2,10-17: Unknown local \"x\"",
		"locals {\n  a = local.b\n  b = local.a\n}\njob \"a\" {\n  name = local.a\n}": "s/a.nomad.hcl:",
		"job \"a\" {\n  nme = 1\n}":                                                   "s/a.nomad.hcl:2,3-6: Unsupported argument; An argument named \"nme\" is not expected here. Did you mean \"name\"?",
		"job \"a\" {\n  group \"g\" {\n    count = nope()\n  }\n}":                    "s/a.nomad.hcl:3,13-17: Call to unknown function",
	} {
		_, err := Stack(t.Context(), load(t, nil, map[string]string{"a.nomad.hcl": text, "variables.hcl": "variable \"name\" { default = 1 }"}), Options{})
		var diags hcl.Diagnostics
		if !errors.As(err, &diags) {
			t.Errorf("%q: %v, want diagnostics", text, err)
			continue
		}
		if !strings.Contains(diags[0].Error(), want) {
			t.Errorf("%q: %v, want %s", text, diags[0], want)
		}
	}
}
