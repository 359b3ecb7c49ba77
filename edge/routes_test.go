package edge

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/edge/route"
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
	settings := &Settings{Users: []string{"admins"}, TCPPorts: []int{636}, Authorities: []string{"internal"}, Authenticators: []string{"authn"}, ClientCAs: []string{"partners"}}
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
		{name: "twice", tags: []string{route, "drover.protocol=http", "drover.protocol=https", "drover.ca=none"}, routes: []string{"a.test/"}, problem: `"https" counts`, costs: CostsNothing},
		{name: "https", tags: []string{route, "drover.protocol=https"}, problem: "No authority verifies", costs: CostsService},
		{name: "authority", tags: []string{route, "drover.protocol=https", "drover.ca=internal"}, routes: []string{"a.test/"}},
		{name: "authority and host", tags: []string{route, "drover.protocol=https", "drover.ca=internal web.test"}, routes: []string{"a.test/"}},
		{name: "unverified", tags: []string{route, "drover.protocol=https", "drover.ca=none"}, routes: []string{"a.test/"}},
		{name: "no authority", tags: []string{route, "drover.protocol=https", "drover.ca=other"}, problem: `no authority "other"`, costs: CostsService},
		{name: "two ranges", tags: []string{route, "drover.allow=10.0.0.0/8", "drover.allow=0.0.0.0/0"}, routes: []string{"a.test/"}, problem: "both hold", costs: CostsNothing},
		{name: "no route", tags: []string{"drover.strip=/a"}, problem: "no route", costs: CostsNothing},
		{name: "authenticator", tags: []string{route, "drover.forward-auth=authn/check X-User,X-Groups"}, routes: []string{"a.test/"}},
		{name: "no such authenticator", tags: []string{route, "drover.forward-auth=other/"}, problem: `no authenticator "other"`, costs: CostsService},
		{name: "authenticator without a path", tags: []string{route, "drover.forward-auth=authn"}, problem: "not drover.forward-auth=SERVICE/PATH", costs: CostsService},
		{name: "authenticator's host", tags: []string{route, "drover.forward-auth=authn/ X-User,host"}, problem: "header host is the edge's own", costs: CostsService},
		{name: "authenticator's message", tags: []string{route, "drover.forward-auth=authn/ X-User,Content-Length"}, problem: "header Content-Length is the edge's own", costs: CostsService},
		{name: "authenticator for TCP", tags: []string{"drover.tcp=636", "drover.forward-auth=authn/"}, problem: "cannot be asked for a password", costs: CostsTag},
		{name: "two authenticators", tags: []string{route, "drover.forward-auth=authn/a", "drover.forward-auth=authn/b"}, routes: []string{"a.test/"}, problem: "both hold", costs: CostsNothing},
		{name: "weights", tags: []string{route, "drover.weight=10 version v2", "drover.weight=90 service web-next"}, routes: []string{"a.test/"}},
		{name: "weights above 100", tags: []string{route, "drover.weight=10 version v2", "drover.weight=91 version v1"}, routes: []string{"a.test/"}, problem: "101 % together", costs: CostsNothing},
		{name: "weight above 100", tags: []string{route, "drover.weight=101 version v2"}, problem: "not drover.weight=PERCENT", costs: CostsService},
		{name: "canary", tags: []string{route, "drover.canary=header X-Canary always version v2", "drover.canary=cookie beta_1 yes service web-next"}, routes: []string{"a.test/"}},
		{name: "canary without a value", tags: []string{route, "drover.canary=header X-Canary version v2"}, problem: "not drover.canary=header", costs: CostsService},
		{name: "features", tags: []string{
			route, "drover.deny=10.0.0.0/8,::1", "drover.cors=https://a.test,http://b.test:81 credentials", "drover.compress=gzip", "drover.rewrite=/v1/*/** /{2}/{1}",
			"drover.timeout=connect 2s", "drover.timeout=response 1m", "drover.timeout=tunnel 1h", "drover.retries=2 500,503", "drover.breaker=10 30s",
		}, routes: []string{"a.test/"}},
		{name: "client certificates", tags: []string{route, "drover.client-cert=partners"}, routes: []string{"a.test/"}},
		{name: "no such CAs", tags: []string{route, "drover.client-cert=others"}, problem: `no CAs "others"`, costs: CostsService},
		{name: "client certificates for TCP", tags: []string{"drover.sni=a.test", "drover.client-cert=partners"}, problem: "cannot be asked for a password", costs: CostsTag},
		{name: "deny", tags: []string{route, "drover.deny=10.0.0.0/8,"}, problem: "not drover.deny=ADDRESS", costs: CostsService},
		{name: "credentials for all", tags: []string{route, "drover.cors=* credentials"}, problem: "not drover.cors=ORIGIN", costs: CostsService},
		{name: "origin with a path", tags: []string{route, "drover.cors=https://a.test/"}, problem: "not drover.cors=ORIGIN", costs: CostsService},
		{name: "compression", tags: []string{route, "drover.compress=br"}, problem: "not drover.compress=gzip", costs: CostsService},
		{name: "expression", tags: []string{route, "drover.rewrite=/(.*)+ /x"}, problem: "not drover.rewrite=PATTERN PATH", costs: CostsService},
		{name: "rest in the middle", tags: []string{route, "drover.rewrite=/**/x /x"}, problem: "not drover.rewrite=PATTERN PATH", costs: CostsService},
		{name: "part of a segment", tags: []string{route, "drover.rewrite=/x* /x"}, problem: "not drover.rewrite=PATTERN PATH", costs: CostsService},
		{name: "no such group", tags: []string{route, "drover.rewrite=/x/* /{1}/{2}"}, routes: []string{"a.test/"}, problem: "no {2}", costs: CostsNothing},
		{name: "no unit", tags: []string{route, "drover.timeout=response 10"}, problem: "not drover.timeout=connect", costs: CostsService},
		{name: "retries", tags: []string{route, "drover.retries=2 404"}, problem: "not drover.retries=NUMBER", costs: CostsService},
		{name: "breaker", tags: []string{route, "drover.breaker=0 1s"}, problem: "not drover.breaker=ERRORS TIME", costs: CostsService},
		{name: "nginx, tunnel", kind: Nginx, tags: []string{route, "drover.timeout=tunnel 1h"}, problem: "nginx cannot", costs: CostsService},
		{name: "nginx, h2c", kind: Nginx, tags: []string{route, "drover.protocol=h2c"}, routes: []string{"a.test/"}},
		{name: "nginx, PROXY", kind: Nginx, tags: []string{route, "drover.send-proxy=v1"}, problem: "nginx cannot", costs: CostsService},
		{name: "wildcards", tags: []string{"drover.route=*.a.test/", "drover.redirect=*.b.test/ 301 /x", "drover.sni=*.c.test"}, routes: []string{"*.b.test/", "*.a.test/", "*.c.test"}},
		{name: "wildcard in the middle", tags: []string{"drover.route=a.*.test/", route}, routes: []string{"a.test/"}, problem: "not drover.route=HOST/PATH", costs: CostsTag},
		{name: "wildcard in a label", tags: []string{"drover.route=a*.test/", route}, routes: []string{"a.test/"}, problem: "not drover.route=HOST/PATH", costs: CostsTag},
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
		{"shop-web", "drover.route=*.shop.example.org/", true},
		{"shop-web", "drover.route=*.a.shop.example.org/", true},
		{"shop-web", "drover.route=*.example.org/", false},
		{"evil-web", "drover.route=*.evil.example.org/", false},
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
		{"shop-web", "drover.weight=10 service shop", true},
		{"shop-web", "drover.canary=cookie a b service shop", true},
		{"shop-web", "drover.weight=10 version shop", true},
		{"shop-web", "drover.weight=10 service evil-web", false},
		{"shop-web", "drover.canary=header a b service unknown", false},
	} {
		tags := []string{c.tag}
		if _, leads := route.Parse(c.tag); !leads {
			tags = append(tags, "drover.route=example.org/")
		}
		table := Read(HAProxy, map[string][]string{c.service: tags}, settings)
		if (len(table.Routes) == 1) != c.allowed || (len(table.Problems) == 0) != c.allowed {
			t.Errorf("%s asks for %s: got %+v, want allowed %v", c.service, c.tag, table, c.allowed)
		}
	}
	if !glob("a*b*c", "axbyc") || !glob("*", "") || glob("a*a", "a") || glob("a*b*c", "acb") || !glob("*-web", "x-web") {
		t.Error("glob covers other names than the pattern")
	}
}

func TestSettings_Takes(t *testing.T) {
	t.Parallel()
	first, second := &Settings{Class: "external", DefaultClass: "external"}, &Settings{Class: "internal", DefaultClass: "external"}
	for _, c := range []struct {
		tags          []string
		first, second bool
	}{
		{[]string{"drover.route=a.test/"}, true, false},
		{[]string{"drover.class=internal"}, false, true},
		{[]string{"drover.class=external"}, true, false},
		{[]string{"drover.class=external", "drover.class=internal"}, true, true},
		{[]string{"drover.class=other"}, false, false},
		{[]string{"drover.class=Internal"}, false, false}, // is not open to all by mistake
	} {
		if first.Takes(c.tags) != c.first || second.Takes(c.tags) != c.second {
			t.Errorf("%q: got %v, %v, want %v, %v", c.tags, first.Takes(c.tags), second.Takes(c.tags), c.first, c.second)
		}
		if none := (*Settings)(nil); !none.Takes(c.tags) || !(&Settings{}).Takes(c.tags) {
			t.Errorf("%q: got false of an edge without classes, want true", c.tags)
		}
	}
	got := notTaken([]*group{{settings: first}, {settings: second}}, map[string][]string{
		"good": {"drover.route=a.test/"}, "bad": {"drover.route=b.test/", "drover.class=other"}, "none": {"drover.class=other"},
	})
	if len(got) != 1 || got[0].Service != "bad" || got[0].Message != `No edge has the class "other"` || !strings.Contains(got[0].Mend, "external, internal") {
		t.Errorf("got problems %+v, want one of bad", got)
	}
}
