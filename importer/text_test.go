package importer

import (
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// TestText_HCL evaluates each expression: the text must survive HCL.
func TestText_HCL(t *testing.T) {
	t.Parallel()
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{"x": cty.StringVal("X")})}}
	for _, c := range []struct {
		text Text
		want string
	}{
		{nil, ""},
		{Lit(`a "b" \c` + "\n\té"), `a "b" \c` + "\n\té"},
		{Lit("${HOME} %{if} $${x} %%{y} $ %"), "${HOME} %{if} $${x} %%{y} $ %"},
		{Var("x"), "X"},
		{Text{{Literal: "cost: $"}, {Variable: "x"}}, "cost: $X"},
		{Text{{Literal: "100%"}, {Variable: "x"}, {Literal: "$"}}, "100%X$"},
		{Text{{Variable: "x"}, {Runtime: "NOMAD_PORT_http"}}, "X${NOMAD_PORT_http}"},
		{Text{{Literal: "$"}, {Runtime: "NOMAD_IP"}}, "$${NOMAD_IP}"},
	} {
		expr, diags := hclsyntax.ParseExpression([]byte(c.text.HCL()), "text", hcl.InitialPos)
		if diags.HasErrors() {
			t.Errorf("%s: %s", c.text.HCL(), diags)
			continue
		}
		v, diags := expr.Value(ctx)
		if diags.HasErrors() || v.AsString() != c.want {
			t.Errorf("%s: got %v %v, want %q", c.text.HCL(), v, diags, c.want)
		}
	}
}

func TestDNSName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"web": "web", "Web_App.1": "web-app-1", "__": "", "-a--b-": "a-b",
		"a123456789a123456789a123456789a123456789a123456789a123456789a123456789": "a123456789a123456789a123456789a123456789a123456789a12345-5c3a3b",
	} {
		if got := DNSName(in); len(got) > 63 || got != want && len(in) < 64 {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestIdentifier(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"DB_PASSWORD": "db_password", "1.x": "x_1_x", "é": "x", "db-password": "db_password"} {
		if got := Identifier(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestFilePath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"/etc/a.conf": "web/etc/a.conf", "../../etc/x": "web/etc/x", "/": "web/-e3b0c4", `/a\b`: "web/a-b-c62016"} {
		if got := FilePath("web", in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
	if a, b := FilePath("web", "/a b"), FilePath("web", "/a:b"); a == b {
		t.Errorf("got %q for two files", a)
	}
}
