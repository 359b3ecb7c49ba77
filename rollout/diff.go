package rollout

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/secrets"
)

// Kinds of FieldChange, Nomad's own words in lower case.
const (
	FieldAdded   = "added"
	FieldDeleted = "deleted"
	FieldEdited  = "edited"
)

// FieldChange is one attribute that differs between the registered job and
// the new one.
type FieldChange struct {
	// Path is made of the names in a job spec: group.web.task.t.config.image.
	Path string `json:"path"`
	Kind string `json:"kind"` // added, deleted or edited
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
	// Secret is set if the values are hidden, because the name is a usual one of secrets
	// or a line of the text is secret.
	Secret bool `json:"secret,omitempty"`
}

// fieldChanges flattens Nomad's tree of differences. Secret values are
// hidden: those that redact knows, and whatever stands under a name such as
// DB_PASSWORD.
func fieldChanges(d *api.JobDiff, redact func(string) string) []FieldChange {
	if d == nil || d.Type == "None" {
		return nil
	}
	w := &differ{redact: redact}
	w.fields("", d.Fields)
	w.objects("", d.Objects)
	for _, g := range d.TaskGroups {
		at := "group." + g.Name
		if w.whole(at, g.Type) {
			continue
		}
		w.fields(at, g.Fields)
		w.objects(at, g.Objects)
		for _, t := range g.Tasks {
			at := at + ".task." + t.Name
			if w.whole(at, t.Type) {
				continue
			}
			w.fields(at, t.Fields)
			w.objects(at, t.Objects)
		}
	}
	return w.out
}

type differ struct {
	redact func(string) string
	out    []FieldChange
}

// whole tells a group or task that comes or goes as one change.
func (w *differ) whole(at, kind string) bool {
	if kind != "Added" && kind != "Deleted" {
		return false
	}
	w.out = append(w.out, FieldChange{Path: at, Kind: strings.ToLower(kind)})
	return true
}

func (w *differ) fields(at string, fields []*api.FieldDiff) {
	for _, f := range fields {
		if f.Type == "None" {
			continue
		}
		c := FieldChange{Path: join(at, f.Name), Kind: strings.ToLower(f.Type), Old: spelled(f.Name, f.Old), New: spelled(f.Name, f.New)}
		c.hide(w.redact)
		w.out = append(w.out, c)
	}
}

// hide removes secret values from both sides of a change.
func (c *FieldChange) hide(redact func(string) string) {
	// The last part alone may not tell: env.TOKEN, but also secret.value.
	if secretName(c.Path[strings.LastIndexByte(c.Path, '.')+1:]) {
		c.Secret = true
		c.Old, c.New = hidden(c.Old), hidden(c.New)
		return
	}
	c.Old, c.New = hideLines(redact(c.Old)), hideLines(redact(c.New))
	c.Secret = c.Old == c.New // then what differs is what is hidden
}

func (w *differ) objects(at string, objects []*api.ObjectDiff) {
	for _, o := range objects {
		if o.Type == "None" {
			continue
		}
		path := join(at, o.Name)
		if n := label(o); n != "" {
			path += "[" + n + "]"
		}
		// A list of words has fields of the name of the list.
		if len(o.Objects) == 0 && !slices.ContainsFunc(o.Fields, func(f *api.FieldDiff) bool { return f.Name != o.Name }) {
			w.fields(at, o.Fields)
			continue
		}
		w.fields(path, o.Fields)
		w.objects(path, o.Objects)
	}
}

// label tells blocks of the same type apart, by the attribute that names one.
func label(o *api.ObjectDiff) string {
	for _, key := range []string{"Name", "DestPath", "Label", "Destination"} {
		for _, f := range o.Fields {
			if f.Name != key {
				continue
			}
			if f.New != "" {
				return f.New
			}
			return f.Old
		}
	}
	return ""
}

// specNames are attributes whose name in a job spec is not Nomad's own in
// snake case.
var specNames = map[string]string{
	"EmbeddedTmpl": "data", "SourcePath": "source", "DestPath": "destination", "GetterSource": "source",
	"RelativeDest": "destination", "LTarget": "attribute", "RTarget": "value", "Operand": "operator",
	"PortLabel": "port", "ParameterizedJob": "parameterized", "RestartPolicy": "restart", "ReschedulePolicy": "reschedule",
	"CPU": "cpu", "MemoryMB": "memory", "MemoryMaxMB": "memory_max", "DiskMB": "disk", "SizeMB": "size", "SecretsMB": "secrets",
	"KillTimeout": "kill_timeout", "MaxFileSizeMB": "max_file_size", "MigrateStrategy": "migrate", "LogConfig": "logs",
}

// join adds a name of Nomad's structures to a path, as a job spec spells it:
// Env[FOO] is env.FOO, MinHealthyTime min_healthy_time.
func join(at, name string) string {
	key, index, indexed := strings.Cut(name, "[")
	word := specNames[key]
	if word == "" {
		word = snake(key)
	}
	switch {
	case indexed && (key == "Env" || key == "Meta"):
		word += "." + strings.TrimSuffix(index, "]")
	case indexed:
		word += "[" + index
	}
	if at == "" {
		return word
	}
	return at + "." + word
}

func snake(s string) string {
	var b strings.Builder
	runes := []rune(s)
	for i, r := range runes {
		if unicode.IsUpper(r) {
			startsWord := i > 0 && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
			if startsWord && runes[i-1] != '_' && runes[i-1] != ' ' {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

var isDuration = regexp.MustCompile(`(Time|Deadline|Delay|Interval|Timeout|Stagger|Splay|TTL|Grace|LostAfter|After|Min|Max|Duration)$`)

// spelled writes a number of nanoseconds as a duration.
func spelled(name, value string) string {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= int64(time.Millisecond) && isDuration.MatchString(name) {
		return time.Duration(n).String()
	}
	return value
}

var (
	secretWord = regexp.MustCompile(`(?i)(passwd|password|passphrase|secret|token|credential|private_?key|api_?key|access_?key|auth_?key)`)
	// A line of a configuration file that sets a secret to a plain value. One
	// that a template or an interpolation fills in holds none.
	secretLine = regexp.MustCompile(`(?im)^(\s*(?:export\s+)?["']?[\w.-]*(?:passwd|password|passphrase|secret|token|credential|private_?key|api_?key|access_?key)[\w.-]*["']?\s*[:=]\s*)([^\s{$][^\n]*)$`)
	pemKey     = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)`)
	userInfo   = regexp.MustCompile(`(://[^/\s:@]+:)[^/\s@{$]+@`)
)

func secretName(name string) bool { return secretWord.MatchString(name) }

func hidden(s string) string {
	if s == "" || strings.HasPrefix(s, "${") {
		return s
	}
	return secrets.Redacted
}

// hideLines hides what is a secret by the look of it: private keys, passwords
// in URLs, lines of configuration files.
func hideLines(s string) string {
	s = pemKey.ReplaceAllString(s, secrets.Redacted)
	s = userInfo.ReplaceAllString(s, "${1}"+secrets.Redacted+"@")
	return secretLine.ReplaceAllString(s, "${1}"+secrets.Redacted)
}
