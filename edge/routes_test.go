package edge

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// The edge jobs and this package have the same regular expressions.
func TestJobsHaveTheGrammar(t *testing.T) {
	t.Parallel()
	for kind, dir := range map[Kind]string{HAProxy: "edge", Nginx: "edge-nginx"} {
		fs, err := jobs.Stack(dir)
		if err != nil {
			t.Fatal(err)
		}
		s, err := stack.Load(t.Context(), stack.Options{Path: dir, FS: fs, Environment: "dev"})
		if err != nil {
			t.Fatal(err)
		}
		rendered, err := render.Stack(t.Context(), s, render.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, tmpl := range rendered[0].Job.TaskGroups[0].Tasks[0].Templates {
			text.WriteString(*tmpl.EmbeddedTmpl)
		}
		for what, re := range map[string]string{
			"names": nameExpr, "reserved headers": reservedExpr,
			"routes": grammars()[kind].route.String(), "options": grammars()[kind].option.String(),
		} {
			if !strings.Contains(text.String(), "`"+re+"`") {
				t.Errorf("%s has another expression for %s than\n%s", dir, what, re)
			}
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	settings := &Settings{Users: []string{"admins"}, TCPPorts: []int{636}}
	const route = "drover.route=a.test/"
	tests := []struct {
		name    string
		kind    Kind
		service string // "web" when empty
		tags    []string
		routes  []string // From of each
		problem string   // part of the only one
		costs   Cost
	}{
		{name: "foreign tags", tags: []string{"v1", "traefik.enable=true"}},
		{name: "route", tags: []string{"v1", route}, routes: []string{"a.test/"}},
		{name: "routes", tags: []string{"drover.route=b.test/x", route}, routes: []string{"a.test/", "b.test/x"}},
		{name: "all options", tags: []string{
			route, "drover.protocol=h2c", "drover.strip=/a.b/", "drover.sticky=cookie", "drover.auth=admins", "drover.max-body=10m",
			"drover.allow=10.0.0.0/8,192.168.1.1,2001:db8::/32,::1", "drover.header=request set X-A b c", "drover.header=response remove Server",
			`drover.header=response set Content-Security-Policy default-src 'self'; report-to "x" 100%`, "drover.http=serve", "drover.send-proxy=v2",
		}, routes: []string{"a.test/"}},
		{name: "redirect", tags: []string{"drover.redirect=old.test/ 301 https://new.test/?a=b&c=%20"}, routes: []string{"old.test/"}},
		{name: "tcp", tags: []string{"drover.tcp=636", "drover.sni=ldap.test"}, routes: []string{"ldap.test", "636"}},

		{name: "upper case", tags: []string{"drover.route=A.test/", route}, routes: []string{"a.test/"}, problem: "not drover.route=HOST/PATH", costs: CostsTag},
		{name: "no path", tags: []string{"drover.route=a.test"}, problem: "not drover.route=HOST/PATH", costs: CostsTag},
		{name: "port", tags: []string{"drover.route=a.test:443/"}, problem: "not drover.route", costs: CostsTag},
		{name: "injection", tags: []string{"drover.route=a.test/ }\n bind :1"}, problem: "not drover.route", costs: CostsTag},
		{name: "typo", tags: []string{route, "drover.alow=10.0.0.0/8"}, problem: "There is no tag drover.alow", costs: CostsService},
		{name: "range", tags: []string{route, "drover.allow=10.0.0.0/33"}, problem: "not drover.allow=ADDRESS", costs: CostsService},
		{name: "octet", tags: []string{route, "drover.allow=10.0.0.256"}, problem: "not drover.allow", costs: CostsService},
		{name: "ipv6", tags: []string{route, "drover.allow=1::2::3"}, problem: "not drover.allow", costs: CostsService},
		{name: "empty", tags: []string{route, "drover.allow="}, problem: "not drover.allow", costs: CostsService},
		{name: "list", tags: []string{route, "drover.auth=others"}, problem: `no list of users "others"`, costs: CostsService},
		{name: "reserved", tags: []string{route, "drover.header=request set Content-length 1"}, problem: "header Content-length is the edge's own", costs: CostsService},
		{name: "reserved, remove", tags: []string{route, "drover.header=request remove upgrade"}, problem: "header upgrade is the edge's own", costs: CostsService},
		{name: "header value", tags: []string{route, `drover.header=response set X \`}, problem: "not drover.header", costs: CostsService},
		{name: "header injection", tags: []string{route, "drover.header=response set X a\nset-log-level silent"}, problem: "not drover.header", costs: CostsService},
		{name: "code", tags: []string{"drover.redirect=a.test/ 304 https://b.test/"}, problem: "not drover.redirect", costs: CostsTag},
		{name: "port not listened on", tags: []string{"drover.tcp=22"}, problem: "does not listen on port 22", costs: CostsTag},
		{name: "no such port", tags: []string{"drover.tcp=65536"}, problem: "no port 65536", costs: CostsTag},
		{name: "password for TCP", tags: []string{"drover.tcp=636", "drover.auth=admins"}, problem: "cannot be asked for a password", costs: CostsTag},
		{name: "name", service: "Web_1", tags: []string{route}, problem: `called "Web_1"`, costs: CostsService},
		{name: "long", tags: []string{route, "drover.header=response set X " + strings.Repeat("x", MaxTag)}, problem: "too long", costs: CostsService},
		{name: "twice", tags: []string{route, "drover.protocol=http", "drover.protocol=https"}, routes: []string{"a.test/"}, problem: `"https" counts`, costs: CostsNothing},
		{name: "two ranges", tags: []string{route, "drover.allow=10.0.0.0/8", "drover.allow=0.0.0.0/0"}, routes: []string{"a.test/"}, problem: "both hold", costs: CostsNothing},
		{name: "no route", tags: []string{"drover.strip=/a"}, problem: "no route", costs: CostsNothing},
		{name: "nginx, h2c", kind: Nginx, tags: []string{route, "drover.protocol=h2c"}, problem: "nginx cannot", costs: CostsService},
		{name: "nginx, tcp", kind: Nginx, tags: []string{route, "drover.tcp=636"}, routes: []string{"a.test/"}, problem: "nginx cannot", costs: CostsTag},
	}
	for _, tt := range tests {
		if tt.kind == "" {
			tt.kind = HAProxy
		}
		if tt.service == "" {
			tt.service = "web"
		}
		routes, problems := Parse(tt.kind, tt.service, tt.tags, settings)
		var from []string
		for _, r := range routes {
			from = append(from, r.From)
		}
		if !slices.Equal(from, tt.routes) {
			t.Errorf("%s: routes %q, want %q", tt.name, from, tt.routes)
		}
		switch {
		case tt.problem == "" && len(problems) > 0:
			t.Errorf("%s: %+v", tt.name, problems)
		case tt.problem != "" && (len(problems) != 1 || !strings.Contains(problems[0].Message, tt.problem) || problems[0].Costs != tt.costs || problems[0].Mend == ""):
			t.Errorf("%s: %+v, want %q", tt.name, problems, tt.problem)
		}
	}
}

func TestReadGivesARouteToTheFirst(t *testing.T) {
	t.Parallel()
	table := Read(HAProxy, map[string][]string{
		"b": {"drover.route=a.test/"},
		"a": {"drover.redirect=a.test/ 301 /x"},
		"c": {"drover.sni=a.test"},
	}, nil)
	if len(table.Routes) != 2 || table.Routes[0].Service != "a" || table.Routes[1].Service != "c" {
		t.Errorf("routes %+v", table.Routes)
	}
	if len(table.Problems) != 1 || table.Problems[0].Service != "b" || !strings.Contains(table.Problems[0].Message, "belongs to a already") {
		t.Errorf("problems %+v", table.Problems)
	}
}

// The tables of docs/reference/routes.md have all tags, in the order of Forms.
func TestFormsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/reference/routes.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(drover\\.[a-z-]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		got = append(got, m[1])
	}
	for _, f := range Forms() {
		want = append(want, Prefix+f.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/reference/routes.md has %q, the code %q", got, want)
	}
}

func TestFormsAreGood(t *testing.T) {
	t.Parallel()
	for _, f := range Forms() {
		if !strings.HasPrefix(f.Example, Prefix+f.Key+"=") {
			t.Errorf("the example of %s is one of something else", f.Key)
		}
		if _, problems := Parse(HAProxy, "web", []string{"drover.route=a.test/", f.Example}, nil); len(problems) > 0 {
			t.Errorf("%s: %+v", f.Example, problems)
		}
	}
}

// No tag makes Parse fall over, every bad one is named, and what is good has
// nothing in it that could end a line or a string of a configuration.
func FuzzParse(f *testing.F) {
	for _, form := range Forms() {
		f.Add(form.Example)
	}
	f.Add("drover.")
	f.Add("drover.header=response set X \"\\")
	f.Add("drover.allow=::ffff:1.2.3.4")
	f.Fuzz(func(t *testing.T, tag string) {
		for _, kind := range []Kind{HAProxy, Nginx} {
			routes, problems := Parse(kind, "web", []string{"drover.route=a.test/", tag}, nil)
			if len(routes) == 0 && len(problems) == 0 {
				t.Fatal("a route is gone and nothing is said")
			}
			for _, r := range routes {
				for _, s := range append([]string{r.From, r.To}, r.Options...) {
					if strings.ContainsAny(s, "\n\r\\$`") && !strings.Contains(s, "header=") || strings.ContainsAny(s, "\n\r\\$") {
						t.Fatalf("%q passed", s)
					}
				}
			}
		}
	})
}

func TestRead_Tenants(t *testing.T) {
	t.Parallel()
	settings := &Settings{TCPPorts: []int{636, 993}, Tenants: map[string]Tenant{
		"default": {Services: []string{"shop", "shop-*"}, Hosts: []string{"example.org", "*.shop.example.org"}, TCPPorts: []int{636}},
		"evil":    {Services: []string{"evil-*"}, Hosts: []string{"evil.example.org"}},
	}}
	for _, c := range []struct {
		service, tag string
		allowed      bool
	}{
		{"shop", "drover.route=example.org/", true},
		{"shop-web", "drover.route=example.org/login/", true},
		{"shop-web", "drover.route=a.b.shop.example.org/", true},
		{"shop-web", "drover.sni=a.shop.example.org", true},
		{"shop-web", "drover.redirect=example.org/old 301 /new", true},
		{"shop-web", "drover.tcp=636", true},
		{"shop-web", "drover.tcp=993", false},
		{"shop-web", "drover.route=shop.example.org/", false},
		{"shop-web", "drover.route=badshop.example.org/", false},
		{"shop-web", "drover.route=other.org/", false},
		{"evil-web", "drover.route=example.org/login/", false},
		{"evil-web", "drover.redirect=example.org/ 301 https://evil.example.org/", false},
		{"evil-web", "drover.sni=example.org", false},
		{"evil-web", "drover.tcp=636", false},
		{"evil-web", "drover.route=evil.example.org/", true},
		{"notevil-web", "drover.route=evil.example.org/", false},
		{"workshop", "drover.route=example.org/", false},
	} {
		table := Read(HAProxy, map[string][]string{c.service: {c.tag}}, settings)
		if (len(table.Routes) == 1) != c.allowed || (len(table.Problems) == 0) != c.allowed {
			t.Errorf("%s asks for %s: got %+v, want allowed %v", c.service, c.tag, table, c.allowed)
		}
	}
	if !glob("a*b*c", "axbyc") || !glob("*", "") || glob("a*a", "a") || glob("a*b*c", "acb") || !glob("*-web", "x-web") {
		t.Error("glob covers other names than the pattern")
	}
}
