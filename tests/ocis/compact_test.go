package ocis

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// In the layout compact one job has what the jobs of all services have: each variable,
// secret and file, apart from addresses.
func TestCatalog_CompactHasWhatAllServicesHave(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{
		"2.0":           {"domain": "cloud.example.org"},
		"7.1 all":       without(all("7.1", "ocis"), "office", "maintenance"),
		"opencloud all": without(all("7.1", "opencloud"), "office", "maintenance"),
		"2.0 external":  external("2.0"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, alone := rendered(t, "", values)
			s, together := rendered(t, "", with(values, object{"layout": "compact"}))
			if len(together) != 1 {
				t.Fatalf("got %d jobs, want one", len(together))
			}
			server := together["server"]
			group := server.Job.TaskGroups[0]
			task := group.Tasks[len(group.Tasks)-1]
			own := regexp.MustCompile(`_ADDR$|^NATS_NATS_(HOST|PORT)$|^(OCIS|OC)_BASE_DATA_PATH$|^MICRO_REGISTRY$|^HOME$|^GOMEMLIMIT$`)
			for service, j := range alone {
				if service == "mesh" || strings.HasPrefix(name, "2.0") && (service == "audit" || service == "auth-bearer") {
					continue // `ocis server` of 2.0 does not start them
				}
				each := j.Job.TaskGroups[0].Tasks[len(j.Job.TaskGroups[0].Tasks)-1]
				for key, value := range each.Env {
					got, ok := task.Env[key]
					want := strings.ReplaceAll(value, "/var/lib/ocis/", "/var/lib/ocis/"+service+"/")
					if !ok || !own.MatchString(key) && got != want {
						t.Errorf("%s: %s is %q, want %q", service, key, got, want)
					}
				}
				for _, item := range j.Secrets {
					if !slices.Contains(server.Secrets, item) {
						t.Errorf("%s: there is no secret %s", service, item)
					}
				}
				for _, tmpl := range each.Templates {
					if !slices.ContainsFunc(task.Templates, func(other *api.Template) bool { return *other.DestPath == *tmpl.DestPath }) {
						t.Errorf("%s: there is no file %s", service, *tmpl.DestPath)
					}
				}
			}
			for key, value := range task.Env {
				if strings.Contains(value, "NOMAD_ADDR_") && key != "PROXY_HTTP_ADDR" && key != "PROXY_DEBUG_ADDR" {
					t.Errorf("%s is %s, which is no port of the job", key, value)
				}
			}
			var volumes []string
			for _, v := range s.Volumes {
				volumes = append(volumes, v.Name)
			}
			for _, v := range group.Volumes {
				if !slices.Contains(volumes, v.Source) {
					t.Errorf("the volume %s is not made", v.Source)
				}
			}
			if len(group.Volumes) != len(volumes) {
				t.Errorf("the job mounts %d volumes of %d", len(group.Volumes), len(volumes))
			}
		})
	}
}

// Two services of one process never listen on the same address.
func TestCatalog_CompactAddresses(t *testing.T) {
	t.Parallel()
	_, jobs := rendered(t, "", with(without(all("7.1", "ocis"), "office", "maintenance"), object{"layout": "compact"}))
	group := jobs["server"].Job.TaskGroups[0]
	bound := map[string]string{}
	for key, value := range group.Tasks[len(group.Tasks)-1].Env {
		if !regexp.MustCompile(`_(GRPC|HTTP|LDAPS)_ADDR$`).MatchString(key) || strings.Contains(key, "GATEWAY_GRPC") && key != "GATEWAY_GRPC_ADDR" {
			continue
		}
		if strings.HasPrefix(key, "STORAGE_G") { // of another service
			continue
		}
		port := value[strings.LastIndex(value, ":")+1:]
		if port == "0" {
			t.Errorf("%s has no fixed port: %s", key, value)
		}
		if other := bound[port]; other != "" {
			t.Errorf("%s and %s are both %s", other, key, value)
		}
		bound[port] = key
	}
	if len(bound) < 30 {
		t.Errorf("there are %d addresses", len(bound))
	}
}

func TestCatalog_CompactRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values map[string]any
		want   string
	}{
		"several instances": {map[string]any{"counts": map[string]any{"graph": 2}}, "layout = \"compact\" has one process"},
		"replicas":          {map[string]any{"replicas": 2}, "layout = \"compact\" has one process"},
		"office suites":     {map[string]any{"line": "7.1", "office": map[string]any{"collabora": map[string]any{}}}, "layout = \"compact\" has no office suites"},
		"unknown":           {map[string]any{"layout": "small"}, "The layout is distributed or compact."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, "", with(object{"domain": "cloud.example.org", "layout": "compact"}, c.values))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// The two layouts must not run at the same time; offline, neither runs.
func TestCatalog_LayoutsExcludeEachOther(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		layout  string
		offline bool
		want    string
	}{{"distributed", false, "distributed"}, {"compact", false, "compact"}, {"distributed", true, ""}, {"compact", true, ""}} {
		s, err := load(t, "", object{"domain": "cloud.example.org", "layout": c.layout, "offline": c.offline})
		if err != nil {
			t.Fatal(err)
		}
		if s.Exclusive != c.want {
			t.Errorf("%s, offline %t: exclusive is %q, want %q", c.layout, c.offline, s.Exclusive, c.want)
		}
	}
}

// without returns values without some of their names.
func without(values map[string]any, names ...string) map[string]any {
	out := map[string]any{}
	for name, v := range values {
		if !slices.Contains(names, name) {
			out[name] = v
		}
	}
	return out
}
