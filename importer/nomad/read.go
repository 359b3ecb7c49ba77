package nomad

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/importer"
)

// maxJob is the size of a job file that Nomad takes by default (job_max_source_size).
const maxJob = 1 << 20

var jobBlock = regexp.MustCompile(`(?m)^[ \t]*"?job"?[ \t]+("[^"\n]*"|[\w.-]+|\[\[.*\]\])\s*=?\s*\{`)

// MatchText reports whether a text is a job file in HCL.
func MatchText(text []byte) bool { return !isJSON(text) && jobBlock.Match(text) }

// Match reports whether a document is a job of Nomad's API.
func Match(root *importer.Node) bool {
	if items := root.Items(); len(items) > 0 {
		root = items[0]
	}
	if job := root.Get("Job"); job != nil {
		root = job
	}
	if root.Get("job") != nil {
		return true // a job file in the JSON of HCL1
	}
	return root.Get("TaskGroups") != nil && (root.Get("ID") != nil || root.Get("Name") != nil)
}

// isJSON reports whether a text is JSON and no HCL.
func isJSON(text []byte) bool {
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	return bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, []byte("["))
}

// Read is the importer.Reader of Nomad. Each input is a job file, which is upgraded, or
// a job of the API in JSON. Its job spec is a service of the stack, with its own job ID.
func Read(_ context.Context, src importer.Source, l *importer.Ledger) (*importer.Model, error) {
	m := &importer.Model{Files: map[string][]byte{}}
	var names []string
	for _, in := range src.Inputs {
		names = append(names, in.Name)
		first := token{line: 1, col: 1}
		u := &upgrader{file: in.Name, ledger: l, whole: true, model: m}
		if len(in.Text) > maxJob {
			u.refuse(first, fmt.Sprintf("the job file has %d KiB, and Nomad takes 1024", len(in.Text)>>10), "Move what is large into artifacts.")
			continue
		}
		if !isJSON(in.Text) {
			out, _ := u.upgrade(in.Text)
			id, at := u.jobID(in)
			u.add(out, id, at)
			continue
		}
		roots, err := l.JSON(in.Name, in.Text)
		if err != nil {
			return nil, err
		}
		if len(roots) == 1 && roots[0].Kind == importer.List {
			roots = roots[0].Items()
		}
		for _, root := range roots {
			u := &upgrader{file: in.Name, ledger: l, whole: true, model: m}
			u.add(u.json(root))
		}
	}
	m.Description = "Imported from " + strings.Join(names, ", ") + "."
	if len(m.Services) > 0 {
		m.Name = m.Services[0].Name
	}
	if len(m.Services) > 1 {
		m.Name = commonName(m.Services)
	}
	if m.Name == "" {
		m.Name = "nomad"
	}
	return m, nil
}

// add adds a job spec to the model.
func (u *upgrader) add(out []byte, id string, at token) {
	if u.ledger.Refused() {
		return
	}
	if id == "" {
		u.refuse(at, "the file has no job", `A job file has one block: job "NAME" { … }.`)
		return
	}
	if !bytes.Contains(out, []byte("driver")) {
		u.warn(at, "incomplete", "the job "+id+" has no task with a driver", "Add the tasks.")
	}
	u.model.Services = append(u.model.Services, &importer.Service{Name: importer.DNSName(id), Kind: u.kind, At: u.pos(at), Spec: out, SpecSecrets: u.secrets})
}

// commonName is what the names of all services begin with, up to a dash, or else the
// name of the first one.
func commonName(all []*importer.Service) string {
	parts := strings.Split(all[0].Name, "-")
	for n := len(parts); n > 0; n-- {
		prefix := strings.Join(parts[:n], "-")
		if !slices.ContainsFunc(all, func(s *importer.Service) bool { return s.Name != prefix && !strings.HasPrefix(s.Name, prefix+"-") }) {
			return prefix
		}
	}
	return all[0].Name
}

// jobID returns the label of the job of a file.
func (u *upgrader) jobID(in importer.Input) (string, token) {
	_, b, err := parse(in.Name, string(in.Text))
	if err != nil {
		return "", token{line: 1, col: 1}
	}
	job := b.block("job")
	if job == nil {
		return "", token{line: 1, col: 1}
	}
	return job.label(0), job.name
}

// json makes a job file of a job of the API, by the rules of Upgrade.
func (u *upgrader) json(root *importer.Node) ([]byte, string, token) {
	job := root
	if inner := root.Get("Job"); inner != nil {
		job = inner
		for _, f := range root.Fields() {
			if f.Key != "Job" {
				f.Drop("how the job is registered, and not the job")
			}
		}
	}
	at := token{line: job.Pos().Line, col: job.Pos().Column}
	if file := root.Get("job"); file != nil && job.Get("TaskGroups") == nil {
		return u.jobFile(root)
	}
	if job.Get("TaskGroups") == nil {
		root.Refuse(importer.RuleInvalid, "the JSON is no job of Nomad's API: it has no TaskGroups", "Give the job file in HCL, or the output of 'nomad job run -output FILE' or 'nomad job inspect JOB'.")
		return nil, "", at
	}
	return u.tree(fromJSON(job), at)
}

// jobFile makes a job file in HCL of one in the JSON of HCL1, which Nomad took before 1.0.
func (u *upgrader) jobFile(root *importer.Node) ([]byte, string, token) {
	b := hclBody(root)
	job := b.block("job")
	if job == nil || len(job.labels) == 0 {
		root.Refuse(importer.RuleInvalid, "the JSON is no job file: its job has no name", `Write {"job": {"NAME": {…}}}.`)
		return nil, "", token{line: 1, col: 1}
	}
	return u.tree(b, job.name)
}

// tree upgrades a job that was read from JSON.
func (u *upgrader) tree(b *body, at token) ([]byte, string, token) {
	u.old = true
	u.fields(b)
	out, source := print(b)
	u.check(out, source)
	return out, b.items[0].label(0), at
}
