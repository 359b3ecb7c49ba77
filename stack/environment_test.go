package stack

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const threeServices = `
stack "shop" {}
service "web" { depends_on = ["api"] }
service "api" { depends_on = ["db"] }
service "db" {}
`

// loadEnvironment loads the shop with one environment.
func loadEnvironment(t *testing.T, environment string) (*Stack, error) {
	t.Helper()
	return Load(t.Context(), Options{Path: "shop", Environment: "prod", FS: fsOf(map[string]string{
		"variables.hcl": `variable "domain" { default = "example.org" }`,
		"stack.hcl":     threeServices,
		"web.nomad.hcl": `job "web" {}`, "api.nomad.hcl": `job "api" {}`, "db.nomad.hcl": `job "db" {}`,
		"environments/prod.hcl": environment,
	})})
}

// members writes waves as text: "canary: web@fra; …".
func members(s *Stack) string {
	var out []string
	for _, w := range s.Waves {
		var ms []string
		for _, m := range w.Members {
			ms = append(ms, m.Service+"@"+m.Target)
		}
		out = append(out, w.Name+": "+strings.Join(ms, " "))
	}
	return strings.Join(out, "; ")
}

func TestEnvironmentIsReadWhole(t *testing.T) {
	s, err := loadEnvironment(t, `
cluster "overseas" {
  address    = "https://nomad.us.example.org:4646"
  region     = "us"
  ca_cert    = "/etc/ca.pem"
  client_cert = "/etc/cert.pem"
  client_key  = "/etc/key.pem"
  tls_server_name = "server.us.nomad"
  token_env  = "NOMAD_TOKEN_US"
  consul {
    address    = "https://consul.us.example.org:8501"
    token_file = "/run/consul-token"
  }
}
target "fra" {
  region      = "eu"
  datacenters = ["fra1"]
  count       = { web = 3 }
}
target "ams" {
  region      = "eu"
  namespace   = "shop"
  datacenters = ["ams*"]
  services    = ["web", "api"]
}
target "nyc" {
  cluster           = "overseas"
  consul_datacenter = "us-east"
  job "web" {}
  locals { x = 1 }
}
wave "canary" {
  targets  = ["fra"]
  services = ["web"]
  bake     = "10m"
}
wave "europe" {
  targets = ["ams", "fra"]
  gate {
    http     = "https://${var.domain}/status.php"
    method   = "HEAD"
    status   = [200, 204]
    contains = "ok"
    command  = ["./smoke.sh", var.domain]
    timeout  = "90s"
  }
}
wave "rest" { approve = true }
schedule "nightly" {
  crons     = ["0 3 * * *"]
  time_zone = "Europe/Berlin"
  action    = "redeploy"
  services  = ["web"]
  window    = "23:00-04:00"
}
drover_driver "raw_exec" { path = "/usr/local/bin/drover" }
`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := members(s), "canary: web@fra; europe: api@ams web@ams db@fra api@fra; rest: db@nyc api@nyc web@nyc"; got != want {
		t.Errorf("waves are\n%s, want\n%s", got, want)
	}
	fra, ams, nyc := s.Targets[0], s.Targets[1], s.Targets[2]
	// ams has a namespace of its own: its job IDs cannot meet those of fra.
	if fra.JobSuffix != "" || ams.JobSuffix != "" || nyc.JobSuffix != "" {
		t.Errorf("suffixes %q %q %q", fra.JobSuffix, ams.JobSuffix, nyc.JobSuffix)
	}
	if nyc.Region != "us" || nyc.Cluster == nil || nyc.Cluster.TokenEnv != "NOMAD_TOKEN_US" || nyc.Cluster.Consul.TokenFile != "/run/consul-token" || nyc.Cluster.ClientKey != "/etc/key.pem" {
		t.Errorf("nyc is %+v", nyc)
	}
	if fra.Counts["web"] != 3 || !slices.Equal(ams.Services, []string{"api", "web"}) || nyc.Place() != "cluster overseas, region us" {
		t.Errorf("targets are %+v, %+v, %s", fra, ams, nyc.Place())
	}
	canary, europe, rest := s.Waves[0], s.Waves[1], s.Waves[2]
	g := europe.Gate
	if canary.Bake != 10*time.Minute || canary.Gate.Timeout != defaultGateTimeout || !rest.Approve || g.Timeout != 90*time.Second || g.HTTP.URL != "https://example.org/status.php" ||
		g.HTTP.Method != "HEAD" || !slices.Equal(g.Command, []string{"./smoke.sh", "example.org"}) {
		t.Errorf("waves are %+v %+v %+v", canary, europe, rest)
	}
	sc := s.Schedules[0]
	if sc.WindowFrom != 23*time.Hour || sc.WindowFor != 5*time.Hour || s.Driver.Path != "/usr/local/bin/drover" {
		t.Errorf("schedule %+v, driver %+v", sc, s.Driver)
	}
	for text, want := range map[string]bool{"2026-01-10T21:59:59Z": false, "2026-01-10T22:00:00Z": true, "2026-01-11T02:59:00Z": true, "2026-01-11T03:00:00Z": false,
		"2026-07-10T20:59:59Z": false, "2026-07-10T21:00:00Z": true} { // summer
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if sc.MayStart(at) != want {
			t.Errorf("may start at %s: %v", text, !want)
		}
	}
}

func TestWithoutTargetsAndWaves(t *testing.T) {
	s, err := loadEnvironment(t, `variables {}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := members(s), ": db@ api@ web@"; got != want || len(s.Targets) != 1 || s.Targets[0].JobSuffix != "" {
		t.Errorf("waves %q, targets %+v", got, s.Targets)
	}
	// Each target is a wave when nothing is said; a datacenter needs a suffix.
	s, err = loadEnvironment(t, `
target "a" { datacenters = ["dc1"] }
target "b" { datacenters = ["dc2"] }
target "c" {
  datacenters = ["dc3"]
  job_suffix  = ""
}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := members(s), "a: db@a api@a web@a; b: db@b api@b web@b; c: db@c api@c web@c"; got != want {
		t.Errorf("waves %q", got)
	}
	if a, b, c := s.Targets[0].JobSuffix, s.Targets[1].JobSuffix, s.Targets[2].JobSuffix; a != "-a" || b != "-b" || c != "" {
		t.Errorf("suffixes %q %q %q", a, b, c)
	}
	// Waves of services alone.
	s, err = loadEnvironment(t, `
wave "data" { services = ["db"] }
wave "rest" {}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := members(s), "data: db@; rest: api@ web@"; got != want {
		t.Errorf("waves %q", got)
	}
}

// Each mistake is one diagnostic that says where and what.
func TestEnvironmentMistakes(t *testing.T) {
	const fra, nyc = "target \"fra\" { region = \"eu\" }\n", "target \"nyc\" { region = \"us\" }\n"
	const nightly = "schedule \"n\" {\n  action = \"check\"\n"
	for _, test := range []struct{ name, text, want string }{
		{"unknown target", fra + `wave "w" { targets = ["fr"] }`, `prod.hcl:2,22-28: Wave "w" names the unknown target "fr"; Did you mean "fra"?`},
		{"unknown target, none", `wave "w" { targets = ["fr"] }`, `prod.hcl:1,22-28: Wave "w" names the unknown target "fr"; There is no target in this environment.`},
		{"unknown service in a wave", fra + `wave "w" { services = ["weeb"] }`, `prod.hcl:2,23-31: Wave "w" names the unknown service "weeb"; Did you mean "web"?`},
		{"service in no wave", fra + `wave "w" { services = ["web", "db"] }`, `prod.hcl:1,1-13: Service "api" in target "fra" is in no wave; Add a last wave without services`},
		{"services in no wave", `wave "w" { services = ["web"] }`, `prod.hcl:1,1-9: Services db, api are in no wave; Add a last wave`},
		{"target in no wave", fra + nyc + `wave "w" { targets = ["fra"] }`, `prod.hcl:2,1-13: Target "nyc" is in no wave; Name it`},
		{"two waves", fra + "wave \"a\" {}\nwave \"b\" { services = [\"web\"] }", `prod.hcl:3,23-30: Service "web" in target "fra" is in two waves; Wave "a" at shop/environments/prod.hcl:2:1 has it already.`},
		{"nothing left", fra + "wave \"a\" {}\nwave \"b\" {}", `prod.hcl:3,1-9: Nothing is left for wave "b"; Earlier waves`},
		{"twice in a list", fra + `wave "w" { targets = ["fra", "fra"] }`, `prod.hcl:2,22-36: Wave "w" names the target "fra" twice`},
		{"service not there", "target \"fra\" { services = [\"web\"] }\nwave \"a\" { services = [\"db\"] }\nwave \"b\" {}", `prod.hcl:2,23-29: Wave "a" names service "db", which runs in none of its targets`},
		{"overlap", "target \"a\" { datacenters = [\"dc1\", \"dc2\"] }\ntarget \"b\" { datacenters = [\"dc2\"] }", `prod.hcl:2,1-11: Targets "a" and "b" overlap; Both reach datacenter dc2 of the same region.`},
		{"overlap of patterns", "target \"a\" {\n  region = \"eu\"\n  datacenters = [\"fra*\"]\n}\ntarget \"b\" {\n  region = \"eu\"\n  datacenters = [\"*1\"]\n}", `prod.hcl:5,1-11: Targets "a" and "b" overlap; Both reach datacenter *1 of region eu.`},
		{"overlap of all", fra + "target \"b\" {\n  region = \"eu\"\n  datacenters = [\"x\"]\n}", `prod.hcl:2,1-11: Targets "fra" and "b" overlap; Both reach the same datacenters of region eu.`},
		{"no region", fra + `target "b" {}`, `prod.hcl:2,1-11: Target "b" has no region; Another target of the same cluster has one`},
		{"same suffix", "target \"a\" {\n  datacenters = [\"a\"]\n  job_suffix = \"\"\n}\ntarget \"b\" {\n  datacenters = [\"b\"]\n  job_suffix = \"\"\n}", `prod.hcl:5,1-11: Targets "a" and "b" give jobs the same suffix ""`},
		{"bad suffix", `target "a" { job_suffix = "/x" }`, `prod.hcl:1,27-31: Invalid job_suffix "/x"`},
		{"bad datacenter", `target "a" { datacenters = ["a["] }`, `prod.hcl:1,28-34: Invalid datacenter "a["`},
		{"duplicate target", fra + fra, `prod.hcl:2,1-13: Duplicate target; target fra is already defined at shop/environments/prod.hcl:1:1.`},
		{"name of a target", `target "f/a" {}`, `prod.hcl:1,8-13: Invalid name "f/a" of a target`},
		{"unknown attribute", `target "a" { regoin = "eu" }`, `prod.hcl:1,14-20: Unsupported argument; An argument named "regoin" is not expected here. Did you mean "region"?`},
		{"unknown variable", `target "a" { region = var.domian }`, `prod.hcl:1,26-33: Unsupported attribute`},
		{"count of what", `target "a" { count = { weeb = 2 } }`, `prod.hcl:1,22-34: Target "a" names the unknown service "weeb"; Did you mean "web"?`},
		{"count below 0", `target "a" { count = { web = -1 } }`, `prod.hcl:1,22-34: Invalid count of service "web"`},
		{"unknown cluster", "cluster \"us\" { address = \"https://a\" }\ntarget \"a\" { cluster = \"su\" }", `prod.hcl:2,24-28: Target "a" names the unknown cluster "su"; Did you mean "us"?`},
		{"token in clear", "cluster \"us\" {\n  address = \"https://a\"\n  token = \"123\"\n}", `prod.hcl:3,3-8: A token does not belong into a file; Name the environment variable`},
		{"token of consul in clear", "cluster \"us\" {\n  address = \"https://a\"\n  consul {\n    address = \"http://b\"\n    token = \"123\"\n  }\n}", `prod.hcl:5,5-10: A token does not belong into a file`},
		{"two tokens", "cluster \"us\" {\n  address = \"https://a\"\n  token_env = \"A\"\n  token_file = \"/a\"\n}", `prod.hcl:4,16-20: token_env and token_file exclude each other`},
		{"password in an address", `cluster "us" { address = "https://a:b@c" }`, `prod.hcl:1,26-41: A password does not belong into the address of a cluster`},
		{"no address", `cluster "us" {}`, `prod.hcl:1,14-14: Missing required argument; The argument "address" is required`},
		{"bad address", `cluster "us" { address = "nomad:4646" }`, `prod.hcl:1,26-38: Invalid address "nomad:4646" of a cluster`},
		{"half a certificate", "cluster \"us\" {\n  address = \"https://a\"\n  client_key = \"/k\"\n}", `prod.hcl:1,1-13: client_cert and client_key go together`},
		{"bake", `wave "w" { bake = "10" }`, `prod.hcl:1,19-23: Invalid bake "10"; Write a duration such as "10m".`},
		{"empty gate", "wave \"w\" {\n  gate {}\n}", `prod.hcl:2,3-7: The gate asks for nothing`},
		{"gate without URL", "wave \"w\" {\n  gate {\n    status = [200]\n  }\n}", `prod.hcl:2,3-7: The gate has no URL`},
		{"gate with half a URL", "wave \"w\" {\n  gate {\n    http = \"example.org\"\n  }\n}", `prod.hcl:3,12-25: Invalid URL "example.org" of a gate`},
		{"gate with a password in the URL", "wave \"w\" {\n  gate {\n    http = \"http://a:b@c\"\n  }\n}", `prod.hcl:3,12-26: The URL of a gate has a password; It would stand in the record`},
		{"gate with a secret header", "wave \"w\" {\n  gate {\n    http = \"http://a\"\n    headers = { authorization = \"Bearer b\" }\n  }\n}", `prod.hcl:4,15-45: The header authorization of a gate is a secret`},
		{"gate with an unknown secret", "wave \"w\" {\n  gate {\n    http = \"http://a\"\n    basic_auth {\n      username = \"u\"\n      secret = \"p\"\n    }\n  }\n}", `prod.hcl:6,16-19: The gate names the unknown secret item "p"`},
		{"status", "wave \"w\" {\n  gate {\n    http = \"http://a\"\n    status = [7]\n  }\n}", `prod.hcl:4,14-17: Invalid HTTP status 7`},
		{"command", "wave \"w\" {\n  gate {\n    command = [\"\"]\n  }\n}", `prod.hcl:3,15-19: The command of a gate has no name`},
		{"timeout", "wave \"w\" {\n  gate {\n    timeout = \"soon\"\n  }\n}", `prod.hcl:3,15-21: Invalid timeout "soon"`},
		{"cron", nightly + "  crons = [\"0 25 * * *\"]\n}", `prod.hcl:3,11-25: Invalid cron expression "0 25 * * *"; Nomad says: `},
		{"cron that never fires", nightly + "  crons = [\"0 0 31 2 *\"]\n}", `prod.hcl:3,11-25: The cron expression "0 0 31 2 *" never fires`},
		{"cron in the past", nightly + "  crons = [\"0 0 0 1 1 * 2020\"]\n}", `prod.hcl:3,11-31: The cron expression "0 0 0 1 1 * 2020" never fires`},
		{"cron outside its window", nightly + "  crons = [\"0 12 * * *\"]\n  window = \"22:00-04:00\"\n}", `prod.hcl:3,11-25: The cron expression "0 12 * * *" never fires inside the window; Its next time is `},
		{"no cron", nightly + "  crons = []\n}", `prod.hcl:3,11-13: A schedule without a time`},
		{"time zone", nightly + "  crons = [\"0 3 * * *\"]\n  time_zone = \"Europe/Berlim\"\n}", `prod.hcl:4,15-30: Unknown time zone "Europe/Berlim"`},
		{"local time", nightly + "  crons = [\"0 3 * * *\"]\n  time_zone = \"Local\"\n}", `prod.hcl:4,15-22: Unknown time zone "Local"`},
		{"window", nightly + "  crons = [\"0 3 * * *\"]\n  window = \"2-5\"\n}", `prod.hcl:4,12-17: Invalid window "2-5"`},
		{"action", "schedule \"n\" {\n  crons = [\"0 3 * * *\"]\n  action = \"redploy\"\n}", `prod.hcl:3,12-21: Unknown action "redploy" of a schedule; Did you mean "redeploy"?`},
		{"services of a check", nightly + "  crons = [\"0 3 * * *\"]\n  services = [\"web\"]\n}", `prod.hcl:4,14-21: A schedule with action "check" takes no services`},
		{"driver", `drover_driver "podman" {}`, `prod.hcl:1,15-23: Unknown driver "podman"; Write docker, exec or raw_exec.`},
		{"docker without image", `drover_driver "docker" {}`, `prod.hcl:1,1-23: drover_driver "docker" runs an image`},
		{"exec without program", `drover_driver "exec" {}`, `prod.hcl:1,1-21: drover_driver "exec" runs a program`},
		{"checksum", "drover_driver \"exec\" {\n  path = \"/d\"\n  checksum = \"sha256:0\"\n}", `prod.hcl:3,14-24: A checksum without an artifact`},
		{"volume of raw_exec", "drover_driver \"raw_exec\" {\n  path = \"/d\"\n  consul_volume = \"c\"\n}", `prod.hcl:3,19-22: raw_exec mounts no volumes`},
		{"volume without socket", "drover_driver \"docker\" {\n  image = \"d\"\n  consul_volume = \"c\"\n}", `prod.hcl:3,19-22: consul_volume is the directory of Consul's socket; Set CONSUL_HTTP_ADDR in env to unix://PATH`},
		{"socket without volume", "drover_driver \"docker\" {\n  image = \"d\"\n  env = { CONSUL_HTTP_ADDR = \"unix:///c\" }\n}", `prod.hcl:3,9-43: drover_driver "docker" does not see Consul's socket`},
		{"two drivers", "drover_driver \"exec\" { path = \"/d\" }\ndrover_driver \"raw_exec\" { path = \"/d\" }", `prod.hcl:2,1-25: Duplicate drover_driver`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := loadEnvironment(t, test.text)
			if err == nil {
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got\n%v, want\n%s", err, test.want)
			}
		})
	}
}
