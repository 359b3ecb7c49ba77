package ocis

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// backupValues are values of a stack that is backed up.
func backupValues(more map[string]any) map[string]any {
	values := map[string]any{"domain": "cloud.example.org", "backup": map[string]any{"repository": "s3:https://s3.example.org/cloud"}}
	maps.Copy(values, more)
	return values
}

// Every service with a volume is in the backup, and in the restore; thumbnails are made
// again. In the newer lines too.
func TestCatalog_BackupHasEveryVolume(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"2.0", "7.1", "8.0"} {
		s, jobs := rendered(t, "", backupValues(map[string]any{"line": line, "restore": "latest"}))
		var want []string
		for _, v := range s.Volumes {
			if v.Name != "ocis-thumbnails" {
				want = append(want, v.Name)
			}
		}
		slices.Sort(want)
		if len(want) < 7 {
			t.Fatalf("%s: the stack has the volumes %s", line, want)
		}
		for _, service := range []string{"backup", "restore"} {
			var got []string
			for _, g := range jobs[service].Job.TaskGroups {
				for _, v := range g.Volumes {
					got = append(got, v.Source)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s has the volumes %s, want %s", line, service, got, want)
			}
		}
	}
}

func TestCatalog_BackupInADirectory(t *testing.T) {
	t.Parallel()
	values := backupValues(nil)
	values["backup"] = map[string]any{"repository": "/srv/backup", "schedule": "30 2 * * *", "keep_daily": "3"}
	s, jobs := rendered(t, "", values)
	found := false
	for _, v := range s.Volumes {
		found = found || v.Name == "ocis-backup"
	}
	if !found {
		t.Error("the stack has no volume ocis-backup")
	}
	for _, name := range []string{"repository", "backup", "prune"} {
		for _, g := range jobs[name].Job.TaskGroups {
			if g.Volumes["repository"] == nil || g.Volumes["repository"].Source != "ocis-backup" {
				t.Errorf("%s: the group %s does not mount ocis-backup", name, *g.Name)
			}
		}
	}
	if got := jobs["backup"].Job.Periodic.Specs; !slices.Equal(got, []string{"30 2 * * *"}) {
		t.Errorf("the backup runs at %s", got)
	}
	if got := jobs["prune"].Job.TaskGroups[0].Tasks[0].Env["KEEP"]; got != "--keep-daily 3 --keep-weekly 4 --keep-monthly 6" {
		t.Errorf("prune keeps %q", got)
	}
}

// A restore fills the volumes before a service with data starts.
func TestCatalog_RestoreComesFirst(t *testing.T) {
	t.Parallel()
	s, jobs := rendered(t, "", backupValues(map[string]any{"restore": "1764485000"}))
	for _, svc := range s.Services {
		stateful := false
		for _, v := range s.Volumes {
			stateful = stateful || v.Name == "ocis-"+svc.Name && svc.Name != "thumbnails"
		}
		if got := slices.Contains(svc.DependsOn, "restore"); got != stateful {
			t.Errorf("%s: it waits for the restore: %t, want %t", svc.Name, got, stateful)
		}
	}
	if got := jobs["restore"].Job.TaskGroups[0].Tasks[0].Env["RUN"]; got != "1764485000" {
		t.Errorf("the restore takes the run %q", got)
	}
	if _, jobs = rendered(t, "", backupValues(nil)); jobs["restore"].Job != nil {
		t.Error("there is a restore that nothing asked for")
	}
}

func TestCatalog_BackupRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values map[string]any
		want   string
	}{
		"no repository":          {map[string]any{"backup": map[string]any{"schedule": "@daily"}}, "backup needs a repository"},
		"unknown key":            {map[string]any{"backup": map[string]any{"repository": "/srv", "repo": "/srv"}}, "backup has no repo; it has keep_daily"},
		"nothing to save":        {map[string]any{"backup": map[string]any{"repository": "/srv"}, "ephemeral": true}, "backup has nothing to save"},
		"restore from nothing":   {map[string]any{"restore": "latest"}, "restore needs backup"},
		"restore of odd numbers": {map[string]any{"restore": "yesterday"}, "restore is latest, or the number of a run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.values["domain"] = "cloud.example.org"
			_, err := load(t, "", c.values)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A run of a periodic job has an ID of its own. Its template would wait for ever for a
// variable of that ID: it reads that of the parent.
func TestCatalog_PeriodicJobsReadTheVariableOfTheirParent(t *testing.T) {
	t.Parallel()
	values := all("7.1", "ocis")
	values["backup"] = map[string]any{"repository": "s3:https://s3.example.org/cloud"}
	_, jobs := rendered(t, "", values)
	periodic := 0
	for name, j := range jobs {
		if j.Job.Periodic == nil {
			continue
		}
		periodic++
		for _, tmpl := range j.Job.TaskGroups[0].Tasks[0].Templates {
			if text := *tmpl.EmbeddedTmpl; strings.Contains(text, "nomadVar") && !strings.Contains(text, `(or (env "NOMAD_JOB_PARENT_ID") (env "NOMAD_JOB_ID"))`) {
				t.Errorf("%s: the template of %s reads %.120q", name, *tmpl.DestPath, text)
			}
		}
	}
	if periodic < 6 {
		t.Errorf("there are %d periodic jobs", periodic)
	}
}

// Offline, no service has an instance; the jobs of backups and the mesh run.
func TestCatalog_Offline(t *testing.T) {
	t.Parallel()
	_, jobs := rendered(t, "", backupValues(map[string]any{"offline": true, "counts": map[string]any{"graph": 2}}))
	for name, j := range jobs {
		if name == "mesh" || strings.HasPrefix(*j.Job.ID, "ocis-") && *j.Job.Type == "batch" {
			continue
		}
		for _, g := range j.Job.TaskGroups {
			if *g.Count != 0 {
				t.Errorf("%s: got %d instances, want none", name, *g.Count)
			}
		}
	}
}
