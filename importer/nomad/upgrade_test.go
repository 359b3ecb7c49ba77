package nomad_test

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/nomad"
)

func upgrade(t *testing.T, text string) (string, *importer.Ledger) {
	t.Helper()
	l := importer.NewLedger(nil)
	out, changes := nomad.Upgrade("x.nomad", []byte(text), l)
	l.Finish()
	for _, c := range changes {
		if c.Line == 0 {
			t.Errorf("got a change without a line: %s", c)
		}
	}
	for _, f := range l.Findings() {
		if !importer.IsRule(f.Rule) {
			t.Errorf("got the rule %q, which is not in Rules", f.Rule)
		}
	}
	if l.Refused() {
		return "", l
	}
	again := importer.NewLedger(nil)
	if second, changes := nomad.Upgrade("x.nomad", out, again); len(changes) > 0 || string(second) != string(out) || again.Refused() {
		t.Errorf("got a second upgrade with changes %v and findings %v of\n%s", changes, again.Findings(), out)
	}
	return string(out), l
}

func texts(l *importer.Ledger) string {
	var all []string
	for _, f := range l.Findings() {
		all = append(all, f.String())
	}
	return strings.Join(all, "\n")
}

// task is a job around the content of a task.
func task(content string) string {
	return "job \"a\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"docker\"\n" + content + "    }\n  }\n}\n"
}

// TestUpgrade compares what becomes of the parts of a job.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	const image = "config {\nimage = \"i\"\n}\n"
	for name, c := range map[string]struct{ in, want, lacks, finding string }{
		"blocks on one line are several lines": {in: task(image + `service { port = "http" check { type = "tcp" interval = "10s" timeout = "2s" } }` + "\n"),
			want: "      service {\n        port = \"http\"\n        check {\n          type     = \"tcp\"\n"},
		"commas between arguments are new lines": {in: "job \"a\" {\n  type = \"batch\", # why\n  priority = 40\n}\n", want: "  type     = \"batch\" # why\n  priority = 40\n"},
		"keys that are no names are quoted":      {in: task(image + "env {\n  \"DC\" = \"x\"\n  a.b = \"y\"\n}\n"), want: "env = {\n        DC    = \"x\"\n        \"a.b\" = \"y\"\n"},
		"quoted names of arguments are bare":     {in: task(image + "env {\n  \"DC\" = \"x\"\n}\n"), want: "env {\n        DC = \"x\"\n"},
		"two env blocks are one":                 {in: task(image + "env {\n  A = \"x\"\n}\nenv {\n  A = \"z\"\n  B = \"y\"\n}\n"), want: "env {\n        A = \"z\"\n        B = \"y\"\n      }", finding: "A is given twice"},
		"the last of two arguments is used":      {in: "job \"a\" {\n  priority = 10\n  priority = 20\n}\n", want: "  priority = 20", lacks: "10", finding: "x.nomad:2: warning: priority is given twice"},
		"what Nomad ignores since 1.10 is in disconnect": {in: "job \"a\" {\n  group \"g\" {\n    stop_after_client_disconnect = \"1h\"\n    prevent_reschedule_on_lost = true\n    task \"t\" {\n      driver = \"docker\"\n      config {\n        image = \"i\"\n      }\n    }\n  }\n}\n",
			want: "    disconnect {\n      stop_on_client_after = \"1h\"\n      replace              = false\n    }\n", lacks: "stop_after_client_disconnect"},
		"a brace in a line of its own": {in: "job \"a\"\n{\n  type\n  = \"batch\"\n  group \"g\"\n  {\n    task \"t\"\n    {\n      driver = \"exec\"\n      config {\n        command = \"c\"\n      }\n    }\n  }\n}\n",
			want: "job \"a\" {\n  type = \"batch\"\n  group \"g\" {\n    task \"t\" {\n"},
		"objects without commas": {in: task("config {\nimage = \"i\"\nmounts = [{ type = \"bind\" source = \"a\" target = \"/b\" }, { type = \"volume\", target = \"/c\" }]\n}\n"),
			want: `mounts = [{ type = "bind", source = "a", target = "/b" }, { type = "volume", target = "/c" }]`},
		"octal numbers are decimal":  {in: task(image + "resources {\n cpu = 0764, memory = 64\n}\n"), want: "cpu    = 500"},
		"one text is a list":         {in: task("config {\nimage = \"i\"\nargs = \"-v\"\n}\nservice {\n name = \"s\"\n tags = \"x\"\n}\n"), want: "args  = [\"-v\"]"},
		"templates of HCL2 are text": {in: task(image + "env { A = \"%{x} ${y[0]} ${env[\"HOME\"]} ${attr.\"kernel.name\"} \\a\" }\n"), want: `A = "%%{x} $${y[0]} ${HOME} ${attr.kernel.name} \u0007"`},
		"heredocs have the text of HCL1": {in: task(image + "template {\n data = <<-EOF\n    a %{b}\n  EOF\n destination = \"local/x\", change_mode = \"noop\"\n}\n"),
			want: "<<EOF\n  a %%{b}\nEOF\n"},
		"attributes have braces":           {in: "job \"a\" {\n constraint {\n attribute = \"$attr.kernel.name\"\n value = \"linux\"\n }\n constraint {\n attribute = \"kernel.arch\"\n value = \"amd64\"\n }\n}\n", want: "\"${attr.cpu.arch}\""},
		"a task below the job has a group": {in: "job \"a\" {\n  # one\n  task \"t\" {\n    driver = \"exec\"\n  }\n}\n", want: "  # one\n  group \"t\" {\n    task \"t\" {\n"},
		"ports of a task are the group's": {
			in:   task("config {\nimage = \"i\"\nport_map {\n http = 80 # nginx\n}\n}\nresources {\n cpu = 20\n # the net\n network {\n mbits = 10\n port \"http\" {}\n port \"db\" {\n static = \"5432\"\n }\n }\n}\n"),
			want: "    # the net\n    network {\n      port \"http\" {\n        to = 80 # nginx\n      }\n      port \"db\" {\n        static = 5432\n      }\n    }\n", lacks: "port_map"},
		"port_map may be a list of objects": {in: task("config {\nimage = \"i\"\nport_map = [{ http = \"80\" }]\n}\nresources {\n network {\n port \"http\" {}\n }\n}\n"), want: "ports = [\"http\"]"},
		"ports of the node have no mapping": {in: task("config {\nimage = \"i\"\nnetwork_mode = \"host\"\nport_map {\n http = 80\n}\n}\nresources {\n network {\n port \"http\" {}\n }\n}\n"), lacks: "ports", finding: "port_map has no effect"},
		"the first ports are blocks":        {in: task(image + "resources {\n network {\n reserved_ports = [22]\n dynamic_ports = [\"http\"]\n }\n}\n"), want: "      port \"p22\" {\n        static = 22\n      }\n      port \"http\" {}\n"},
		"equal ports of two tasks are renamed": {
			in:   "job \"a\" {\n group \"g\" {\n task \"one\" {\n driver = \"exec\"\n env { P = \"${NOMAD_PORT_http} ${NOMAD_ADDR_two_http}\" }\n service {\n port = \"http\"\n }\n resources {\n network {\n port \"http\" {}\n }\n }\n }\n task \"two\" {\n driver = \"exec\"\n resources {\n network {\n port \"http\" {}\n }\n }\n }\n }\n}\n",
			want: "P = \"${NOMAD_PORT_one_http} ${NOMAD_ADDR_two_http}\"", finding: "(renamed)"},
		"variables of another task's ports follow": {
			in:   "job \"a\" {\n group \"g\" {\n task \"one\" {\n driver = \"exec\"\n env { P = \"${NOMAD_ADDR_two_http}\" }\n }\n task \"two\" {\n driver = \"exec\"\n resources {\n network {\n port \"http\" {}\n }\n }\n }\n }\n}\n",
			want: "P = \"${NOMAD_ADDR_http}\""},
		"stagger is the time to be healthy": {in: "job \"a\" {\n  update {\n    stagger      = \"30s\" # slowly\n    max_parallel = 1\n  }\n}\n",
			want: "    min_healthy_time = \"30s\" # slowly\n    health_check     = \"task_states\"\n    auto_revert      = true\n    max_parallel     = 1\n", finding: "(update)"},
		"a long stagger has deadlines":      {in: "job \"a\" {\n  update {\n    stagger      = \"10m\"\n max_parallel = 1\n  }\n}\n", want: "healthy_deadline  = \"15m0s\""},
		"without rolling there is none":     {in: "job \"a\" {\n  update {\n    stagger      = \"10m\"\n max_parallel = 0\n  }\n}\n", want: "update {\n    max_parallel = 0\n  }", lacks: "health"},
		"batch jobs have no updates":        {in: "job \"a\" {\n  type = \"batch\"\n  update {\n max_parallel = 1\n  }\n}\n", lacks: "update"},
		"system jobs are not rescheduled":   {in: "job \"a\" {\n  type = \"system\"\n  reschedule {\n attempts = 1\n  }\n}\n", lacks: "reschedule"},
		"cron is a list":                    {in: "job \"a\" {\n  type = \"batch\"\n  periodic {\n    cron = \"*/5 * * * *\"\n  }\n}\n", want: `crons = ["*/5 * * * *"]`},
		"tokens are removed":                {in: "job \"a\" {\n  vault_token = \"s.secret\"\n}\n", lacks: "secret", finding: "x.nomad:2: warning: vault_token was in the job file"},
		"policies are in the role of Vault": {in: task(image + "vault {\n policies = [\"p\"]\n}\n"), want: "vault {}", finding: `the policies ["p"] come from`},
		"disk is the group's":               {in: task(image + "resources {\n disk = 2000\n}\n"), want: "    ephemeral_disk {\n      size = 2000\n    }\n", lacks: "resources"},
		"logs fit on the disk":              {in: task(image + "logs {\n max_files = 10\n max_file_size = 50\n}\n"), want: "size = 600", finding: "(minimum)"},
		"minimums of resources":             {in: task(image + "resources {\n memory = 5\n}\n"), want: "memory = 10", finding: "memory = 5 is less"},
		"what Nomad ignores is removed":     {in: task("config {\nimage = \"i\"\nssl = true\n}\nresources {\n iops = 3\n cpu = 20\n}\ntemplate {\n data = \"x\"\n destination = \"y\"\n vault_grace = \"5s\"\n}\n"), lacks: "ssl"},
		"assigned blocks are blocks":        {in: task(image + "artifact = {\n source = \"http://x/y\"\n options = {\n checksum = \"md5:aa\"\n }\n}\n"), want: "artifact {\n        source = \"http://x/y\"\n        options {\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, l := upgrade(t, c.in)
			if !strings.Contains(got, c.want) || c.lacks != "" && strings.Contains(got, c.lacks) || !strings.Contains(texts(l), c.finding) {
				t.Errorf("got\n%s\n%s\nwant\n%s\nand no %q, and %q", got, texts(l), c.want, c.lacks, c.finding)
			}
			if l.Refused() {
				t.Error("got a refusal")
			}
		})
	}
}

// TestUpgrade_Keeps: a file of today's Nomad stays as it is, in each byte.
func TestUpgrade_Keeps(t *testing.T) {
	t.Parallel()
	const today = `# a comment
variable "tag" { default = "1" }
locals {
  ports = { for p in ["a", "b"] : p => p }
}
job "a" {
   datacenters = var.dcs   # not formatted
  group "g" {
    count = local.n > 1 ? 2 : 1
    network {
      mode = "bridge"
      port "http" { to = 80 }
    }
    task "t" {
      driver = "docker"
      config {
        image = "i:${var.tag}"
        ports = ["http"]
      }
      template {
        data        = <<-EOF
          {{ range service "x" }}%{ if true }a%{ endif }{{ end }}
        EOF
        destination = "local/x"
      }
      env = merge({ A = "1" }, local.env)
    }
    update { max_parallel = 1 }
  }
}
`
	got, l := upgrade(t, today)
	if got != today || len(l.Findings()) > 0 {
		t.Errorf("got\n%s\n%s\nwant no change and no finding", got, texts(l))
	}
}

// TestUpgrade_Comments: no comment is lost, wherever it is.
func TestUpgrade_Comments(t *testing.T) {
	t.Parallel()
	got, _ := upgrade(t, `# c1
/* c2 */ job "a" { # c3
  // c4
  datacenters = ["dc1", # c5
    "dc2"] # c6
  task "t" { // c7
    driver = /* c8 */ "docker" # c9
    config { image = "i" port_map { http = 80 /* c10 */ } } # c11
    # c12
    resources { # c13
      # c14
      network { # c15
        # c16
        mbits = 10
        # c17
        port "http" { # c18
          # c19
        } # c20
        # c21
      } # c22
    } # c23
  } # c24
  # c25
} # c26
# c27
`)
	for n := 1; n <= 27; n++ {
		// Those behind what is removed go with it.
		if c := "c" + itoa(n); n != 22 && n != 23 && n != 13 && !strings.Contains(got, c+"\n") && !strings.Contains(got, c+" */") {
			t.Errorf("got no comment %s in\n%s", c, got)
		}
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return string(rune('0'+n/10)) + string(rune('0'+n%10))
}

// TestUpgrade_Refusals: a refusal names its line and what to do.
func TestUpgrade_Refusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"a template":                       {"job \"a\" {\n  group \"g\" {\n    count = ${n}\n  }\n}\n", "x.nomad:3: refusal: the file is a template: a value begins with $ (invalid); Render the template first"},
		"a template of Levant":             {"job \"a\" {\n  priority = [[ .p ]]\n}\n", "x.nomad:2: refusal: the file is a template"},
		"a block without an end":           {"job \"a\" {\n  group \"g\" {\n}\n", "x.nomad:1: refusal: the block job has no end"},
		"a brace too many":                 {"job \"a\" {\n}\n}\n", "x.nomad:3: refusal: a } too many"},
		"a string without an end":          {"job \"a\" {\n  type = \"batch\n}\n", "x.nomad:2: refusal: the string has no end"},
		"a heredoc without an end":         {"job \"a\" {\n  type = <<EOF\n}\n", "x.nomad:2: refusal: the heredoc has no end"},
		"a comment without an end":         {"job \"a\" {\n/*}\n", "x.nomad:2: refusal: the comment has no end"},
		"an argument without a value":      {"job \"a\" {\n  type =\n}\n", "x.nomad:"},
		"an unknown argument, moved":       {task("resources {\n network {\n  mbits = 1\n  colour = \"red\"\n }\n}\n"), "x.nomad:8: refusal: Unsupported argument"},
		"the driver rkt":                   {"job \"a\" {\n group \"g\" {\n task \"t\" {\n driver = \"rkt\"\n }\n }\n}\n", `x.nomad:4: refusal: Nomad has no driver rkt since 0.11 (invalid); Write driver = "docker"`},
		"two resources":                    {task("resources {\n}\nresources {\n}\n"), "x.nomad:7: refusal: there are two blocks resources"},
		"an unknown setting of docker":     {task("config {\n image = \"i\"\n imgae = \"i\"\n}\n"), "x.nomad:7: refusal: the docker driver knows no imgae"},
		"a label of a port":                {task("resources {\n network {\n  port \"a b\" {}\n }\n}\n"), `x.nomad:7: refusal: "a b" is no label`},
		"ports that differ by case":        {task("resources {\n network {\n  port \"a\" {}\n  port \"A\" {}\n }\n}\n"), "x.nomad:8: refusal: the ports A and a"},
		"two services without a name":      {task("service {\n}\nservice {\n}\n"), "x.nomad:7: refusal: two services"},
		"blocks nested without an end":     {strings.Repeat("a {\n", 100000), "refusal: blocks are nested more than 200 deep"},
		"brackets nested without an end":   {"a = " + strings.Repeat("[", 100000), "refusal: brackets are nested more than 200 deep"},
		"operators without an end":         {"a = " + strings.Repeat("!", 100000), "refusal: the expression has more than"},
		"operators without an end, inside": {"a = [" + strings.Repeat("!", 100000), "refusal: the expression has more than"},
		"brackets in a text":               {"a = \"${" + strings.Repeat("[", 100000), "refusal: ${ has no }"},
		"brackets in a heredoc":            {"a = <<E\n${" + strings.Repeat("[", 100000) + "\nE\n", "refusal: ${ has no }"},
		"text that is not UTF-8":           {"job \"\xff\" {}", "refusal: the file is not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, l := upgrade(t, c.in)
			got := texts(l)
			if !l.Refused() || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			for _, f := range l.Findings() {
				if f.Severity == importer.Refusal && (f.Line == 0 || f.Remedy == "") {
					t.Errorf("got %s, want a line and a remedy", f)
				}
			}
		})
	}
}

// TestDiff compares diffs with those of diff -u.
func TestDiff(t *testing.T) {
	t.Parallel()
	got := nomad.Diff("x", []byte("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n"), []byte("1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n11\n"))
	want := "--- x\n+++ x\n@@ -2,11 +2,10 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n 10\n 11\n-12\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := nomad.Diff("x", []byte("1\n"), []byte("1\n")); got != "" {
		t.Errorf("got %q of equal texts, want none", got)
	}
}

// FuzzUpgrade: no input makes a panic, and what is upgraded has nothing more to change.
func FuzzUpgrade(f *testing.F) {
	f.Add([]byte(task("config { image = \"i\" port_map { http = 80 } }\nresources { disk = 5 network { mbits = 10 port \"http\" {} } }\n")))
	f.Add([]byte("job \"a\" {\n update { stagger = \"10s\" }\n env { a.b = <<-EOF\n x\n EOF\n }\n}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := importer.NewLedger(nil)
		out, _ := nomad.Upgrade("x.nomad", text, l)
		for _, f := range l.Findings() {
			if f.Severity == importer.Refusal && f.Remedy == "" {
				t.Errorf("got %s, want a remedy", f)
			}
		}
		if l.Refused() {
			return
		}
		again := importer.NewLedger(nil)
		if nomad.Upgrade("x.nomad", out, again); again.Refused() {
			t.Errorf("got %v of\n%s", again.Findings(), out)
		}
	})
}
