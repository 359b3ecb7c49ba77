package formats_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

// application is what a stack says of an application: lines of facts by service, such as
// "image redis", "port 6379", "env REDIS_HOST".
type application map[string][]string

var (
	listenerLine = regexp.MustCompile(`(?m)bind = "([0-9.]+):(\d+)", service = "([^"]+)"`)
	secretEnv    = regexp.MustCompile(`(?m)^([A-Za-z_][A-Za-z0-9_.-]*)=\{\{`)
)

// describe imports an application and returns its facts. names are the kinds of facts.
func describe(t *testing.T, format string, src importer.Source, kinds ...string) application {
	t.Helper()
	res, err := formats.Run(t.Context(), format, src)
	if err != nil {
		t.Fatal(err)
	}
	if res.Refused() {
		t.Fatalf("got a refusal of %s: %v", src.Inputs[0].Name, res.Findings)
	}
	services := map[string]string{} // by name in Consul
	hosts := map[string]map[string]bool{}
	app := application{}
	add := func(service, kind, text string) {
		line := kind + " " + text
		if slices.Contains(kinds, kind) && !slices.Contains(app[service], line) {
			app[service] = append(app[service], line)
		}
	}
	for _, j := range res.Jobs {
		if !res.Imported(j.Service) {
			continue
		}
		app[j.Service] = nil
		for _, g := range j.Job.TaskGroups {
			for _, s := range g.Services {
				services[s.Name] = j.Service
			}
			for _, n := range g.Networks {
				for _, p := range slices.Concat(n.DynamicPorts, n.ReservedPorts) {
					add(j.Service, "port", fmt.Sprint(p.To))
				}
			}
			for _, task := range g.Tasks {
				describeTask(task, func(kind, text string) { add(j.Service, kind, text) })
				for _, h := range texts(task.Config["extra_hosts"]) {
					name, address, _ := strings.Cut(h, ":")
					if hosts[address] == nil {
						hosts[address] = map[string]bool{}
					}
					hosts[address][name] = true
				}
			}
		}
	}
	for _, f := range res.Files {
		for _, m := range listenerLine.FindAllStringSubmatch(string(f.Text), -1) {
			for name := range hosts[m[1]] {
				if service := services[m[3]]; service != "" && !strings.Contains(name, ".") {
					add(service, "name", name)
				}
			}
		}
	}
	for _, lines := range app {
		slices.Sort(lines)
	}
	return app
}

func describeTask(task *api.Task, add func(kind, text string)) {
	image := fmt.Sprint(task.Config["image"])
	image, _, _ = strings.Cut(image, "@")
	if at := strings.LastIndexByte(image, ':'); at > strings.LastIndexByte(image, '/') {
		image = image[:at]
	}
	add("image", image)
	for key := range task.Env {
		add("env", key)
	}
	for _, tmpl := range task.Templates {
		if tmpl.Envvars != nil && *tmpl.Envvars {
			for _, m := range secretEnv.FindAllStringSubmatch(*tmpl.EmbeddedTmpl, -1) {
				add("env", m[1])
			}
		}
	}
	for _, m := range task.VolumeMounts {
		add("mount", *m.Destination)
	}
	for _, v := range texts(task.Config["volumes"]) {
		add("mount", strings.Split(v, ":")[1])
	}
	for _, key := range []string{"entrypoint", "args"} {
		if all := texts(task.Config[key]); all != nil {
			add(key, strings.Join(all, " "))
		}
	}
}

// texts are the elements of a list of a driver's configuration.
func texts(v any) []string {
	var all []string
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			all = append(all, fmt.Sprint(x))
		}
	case []string:
		all = v
	}
	return all
}

// difference is a fact that two formats do not agree on, and why. Service and fact are
// patterns with "*" for any text.
type difference struct {
	service string
	fact    string // begins with - if only the first format has it, with + if only the second; alone for the service itself
	why     string
}

// matches reports whether a pattern with "*" for any text is a whole text.
func matches(pattern, text string) bool {
	quoted := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")
	return regexp.MustCompile("^" + quoted + "$").MatchString(text)
}

// compare reports each fact of a service of both applications on which they do not agree
// and which is not in known, and each row of known that is not needed.
func compare(t *testing.T, want, got application, known []difference) {
	t.Helper()
	used := make([]bool, len(known))
	excused := func(service, fact string) bool {
		found := false
		for i, d := range known {
			if matches(d.service, service) && matches(d.fact, fact) {
				used[i], found = true, true
			}
		}
		return found
	}
	for _, service := range slices.Sorted(maps.Keys(want)) {
		lines, ok := got[service]
		if !ok {
			if !excused(service, "-") {
				t.Errorf("got no service %s, want %v", service, want[service])
			}
			continue
		}
		for _, line := range want[service] {
			if !slices.Contains(lines, line) && !excused(service, "-"+line) {
				t.Errorf("%s: got no %q; got %q", service, line, lines)
			}
		}
		for _, line := range lines {
			if !slices.Contains(want[service], line) && !excused(service, "+"+line) {
				t.Errorf("%s: got %q, want only %q", service, line, want[service])
			}
		}
	}
	for _, service := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[service]; !ok && !excused(service, "+") {
			t.Errorf("got the service %s with %v, want none", service, got[service])
		}
	}
	for i, d := range known {
		if !used[i] {
			t.Errorf("the difference %s %q is in the table and not there", d.service, d.fact)
		}
	}
}

// folder are the YAML files of a directory as inputs.
func folder(t *testing.T, dir string) []importer.Input {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".yaml" || ext == ".yml" {
			names = append(names, e.Name())
		}
	}
	return inputs(t, dir, names)
}

// TestRosetta_SockShop: one application, written for Compose, for Compose with Weave, for
// Swarm and for Kubernetes, gives stacks that agree on services, images, ports, names and
// keys of the environment.
func TestRosetta_SockShop(t *testing.T) {
	root := filepath.Join(importertest.Data(t), "rosetta", "sock-shop")
	kinds := []string{"image", "port", "name", "env"}
	// The Compose files do not say on which ports these images listen: only the programs
	// in the images know that they call http://catalogue/. The operator says it.
	ports := map[string][]int{"catalogue": {80}, "carts": {80}, "orders": {80}, "payment": {80}, "shipping": {80}, "user": {80}, "queue-master": {80}, "catalogue-db": {3306}, "front-end": {8079}}
	want := describe(t, "compose", importer.Source{Inputs: inputs(t, filepath.Join(root, "compose"), []string{"docker-compose.yml"}), Root: root, Ports: ports}, kinds...)
	scheduling := difference{"*", "+env reschedule", "a setting of the old Swarm, in the environment"}
	router := difference{"edge-router", "-", "the file has no router: its front end is published"}
	for _, c := range []struct {
		name, format string
		in           []importer.Input
		known        []difference
	}{
		{"weave", "compose", folder(t, filepath.Join(root, "compose-weave")), []difference{scheduling}},
		{"swarm", "compose", folder(t, filepath.Join(root, "swarm")), []difference{
			scheduling, router,
			{"queue-master", "-", "the file does not have it"},
		}},
		{"kubernetes", "kubernetes", folder(t, filepath.Join(root, "kubernetes")), []difference{
			router,
			{"*", "+env ZIPKIN", "the manifests trace"},
			{"queue-master", "+env JAVA_OPTS", "the manifests limit the memory of Java here too"},
			{"catalogue-db", "-env MYSQL_ALLOW_EMPTY_PASSWORD", "the manifests give a password"},
			{"front-end", "+env SESSION_REDIS", "the manifests keep sessions in Redis"},
			{"session-db", "+", "the manifests keep sessions in Redis"},
			{"rabbitmq", "+image kbudde/rabbitmq-exporter", "a second container of the Pod exports metrics"},
			{"rabbitmq", "+port 9090", "a second container of the Pod exports metrics"},
			{"rabbitmq", "+port 15672", "the manifests have the port of its web interface"},
			{"user", "-env MONGO_HOST", "the key is another one in the manifests"},
			{"user", "+env mongo", "the key is another one in the manifests"},
			{"user-sim", "-", "it has another name in the manifests: load-test"},
			{"load-test", "+", "it has another name in Compose: user-sim"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			compare(t, want, describe(t, c.format, importer.Source{Inputs: c.in, Root: root, Ports: ports}, kinds...), c.known)
		})
	}
}

// TestRosetta_AWS: one application, written for Compose, for the CLI of ECS, for
// Kubernetes and as a Helm chart, gives stacks that agree. TestRosetta_ECS has its task
// definitions and templates.
func TestRosetta_AWS(t *testing.T) {
	data := importertest.Data(t)
	root := filepath.Join(data, "rosetta", "aws-microservices")
	kinds := []string{"image", "port", "env"}
	// Compose has webapp-service where Kubernetes has a Deployment webapp, and Helm one with
	// the name of the release.
	short := func(app application) application {
		out := application{}
		for name, lines := range app {
			out[strings.TrimPrefix(strings.TrimSuffix(name, "-service"), "myapp-")] = lines
		}
		return out
	}
	want := short(describe(t, "compose", importer.Source{Inputs: inputs(t, filepath.Join(root, "compose"), []string{"docker-compose.yaml"}), Root: root}, kinds...))
	traces := difference{"*", "+env AWS_XRAY_DAEMON_ADDRESS", "the manifests trace"}
	variables := difference{"*", "+env *_SERVICE_*", "Kubernetes has the addresses of Services in the environment"}
	for _, c := range []struct {
		name, format string
		in           []importer.Input
		known        []difference
	}{
		{"ecs-cli", "compose", folder(t, filepath.Join(root, "compose-ecs-cli")), nil},
		{"kubernetes", "kubernetes", []importer.Input{inputs(t, filepath.Join(root, "kubernetes"), []string{"manifest.yml"})[0]}, []difference{traces, variables}},
		{"helm", "kubernetes", folder(t, filepath.Join(data, "helm-templated", "aws-microservices")), []difference{traces}},
	} {
		t.Run(c.name, func(t *testing.T) {
			compare(t, want, short(describe(t, c.format, importer.Source{Inputs: c.in, Root: data}, kinds...)), c.known)
		})
	}
}

// pair is a row of pairs.json: a Compose file, and what kompose makes of it.
type pair struct {
	Folder  string   `json:"folder"`
	Compose []string `json:"compose"`
	Golden  string   `json:"golden"`
}

// TestKompose_Commutes: a Compose file, and the manifests that kompose makes of it, give
// stacks that agree on images, ports, keys of the environment, commands and mount paths.
func TestKompose_Commutes(t *testing.T) {
	data := importertest.Data(t)
	root := filepath.Join(data, "compose", "kompose")
	text, err := os.ReadFile(filepath.Join(root, "pairs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var pairs []pair
	if err := json.Unmarshal(text, &pairs); err != nil {
		t.Fatal(err)
	}
	const refused = "refused"
	headless := []difference{{"redis", "-port 6379", "kompose gives a headless Service a port of its own"}, {"redis", "+port 55555", "kompose gives a headless Service a port of its own"}}
	variables := difference{"*", "+env *_SERVICE_*", "Kubernetes has the addresses of Services in the environment"}
	old := []difference{
		variables,
		{"frontend", "-image registry.k8s.io/guestbook", "the golden has another image"},
		{"frontend", "+image gcr.io/google-samples/gb-frontend", "the golden has another image"},
	}
	built := []difference{{"*", "-image nginx-node-redis-*", "Compose names the image that it builds after the project"}, {"*", "+image *", "kompose names the image that it builds after the service"}}
	known := map[string][]difference{
		"change-in-volume/output-k8s-empty-vols-template.yaml": headless,
		"change-in-volume/output-k8s.yaml":                     headless,
		"compose-env-no-interpolation/output-k8s.yaml":         {{"golden", refused, "--no-interpolate leaves ${IMAGE_TAG} in the manifests"}},
		"controller/output-k8s-daemonset-template.yaml":        old,
		"controller/output-k8s-deployment-template.yaml":       old,
		"controller/output-k8s-rc-template.yaml":               old,
		"keyonly-envs/output-k8s-template.yaml":                {variables},
		"nginx-node-redis/output-k8s-template-v3.yaml":         built,
		"nginx-node-redis/output-k8s-template.yaml":            built,
		"security-contexts/output-k8s.yaml": {
			{"cup", "+*", "--service-group-mode puts both services into one Pod"},
			{"dind", "-", "--service-group-mode puts both services into one Pod"},
		},
		"single-file-output/output-k8s.yaml":                  {variables},
		"volume-mounts/named-volume/output-k8s-template.yaml": {{"compose", refused, "Compose refuses a volume that is not defined"}},
		"volume-mounts/named-volume/output-k8s-v3.yaml":       {{"compose", refused, "Compose refuses a volume that is not defined"}},
		"volume-mounts/windows/output-k8s.yaml":               {{"golden", refused, "a path of Windows is no path of a container of Linux"}},
	}
	kinds := []string{"image", "port", "env", "entrypoint", "args", "mount"}
	if len(pairs) < 40 {
		t.Fatalf("got %d pairs, want all of them", len(pairs))
	}
	for _, p := range pairs {
		name := p.Folder + "/" + p.Golden
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(root, p.Folder)
			// Two services publish one port in two of the files, which kompose does not mind.
			first := importer.Source{Inputs: inputs(t, dir, p.Compose), Root: root, Allow: []string{"port-conflict"}, Environ: []string{"SESSION_SECRET=session"}}
			second := importer.Source{Inputs: inputs(t, dir, []string{p.Golden}), Root: root}
			if k := known[name]; len(k) == 1 && k[0].fact == refused {
				src, format := second, "kubernetes"
				if k[0].service == "compose" {
					src, format = first, "compose"
				}
				if res, err := formats.Run(t.Context(), format, src); err != nil || !res.Refused() {
					t.Errorf("got %v and no refusal, want one: %s", err, k[0].why)
				}
				return
			}
			compare(t, describe(t, "compose", first, kinds...), describe(t, "kubernetes", second, kinds...), known[name])
		})
		delete(known, name)
	}
	if len(known) > 0 {
		t.Errorf("the table has differences of pairs that are not there: %v", slices.Sorted(maps.Keys(known)))
	}
}
