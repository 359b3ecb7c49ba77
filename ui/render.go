package ui

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/drover-nomad/drover/record"
)

//go:embed templates
var templateFiles embed.FS

// page is what a template shows.
type page struct {
	Title  string
	Name   string // of the template of its content
	Data   any
	Status string // one line that is announced when it changes

	code    int    // of the answer; 200 when 0
	refresh string // where the page leads to at once; "" for nowhere
}

// layout is a page with what surrounds it.
type layout struct {
	page
	Content  template.HTML
	Live     string // path of its stream; "" for none
	Refresh  string
	ReadOnly bool
	Who      string
	SignedIn bool
	Path     string
}

// templates are parsed once and never changed.
var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"stack":   stackHref,
	"service": func(name, env, service, target string) string { return serviceHref(name, env, service, target) },
	"name":    serviceName,
	"number":  func(n int) string { return fmt.Sprint(n) },
	"time":    timeTag,
	"state":   stateTag,
	"took":    took,
	"info":    func(v Verb) verbInfo { i, _ := infoOf(v); return i },
	"mib":     func(n uint64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) },
	"percent": percent,
	"short":   func(s string) string { return s[:min(len(s), 8)] },
	"join":    strings.Join,
	"gate":    gateWords,
	"plural":  plural,
	"isOpen":  func(h *record.Release) bool { return h != nil && h.State.Open() },
}).ParseFS(templateFiles, "templates/*.html"))

func serviceHref(name, env, service, target string) string {
	path := stackHref(name, env, "service", service)
	if target != "" {
		path += "?target=" + template.URLQueryEscaper(target)
	}
	return path
}

// timeTag returns a time for people and programs; the script shows it in local time.
func timeTag(t time.Time) template.HTML {
	if t.IsZero() {
		return "–"
	}
	u := t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time>`, u.Format(time.RFC3339), u.Format("2006-01-02 15:04:05 UTC"))) //nolint:gosec // digits
}

func took(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return "–"
	}
	return to.Sub(from).Round(100 * time.Millisecond).String()
}

func percent(part float64, whole int) string {
	if whole <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", 100*part/float64(whole))
}

// tones are the kinds of states: each has a symbol beside its colour.
var tones = map[string]string{"good": "✓", "bad": "✗", "busy": "…", "wait": "‖", "quiet": "–"}

// toneOf sorts a state of a release, wave, step, task or check.
func toneOf(state string) string {
	switch state {
	case "deployed", "done", "healthy", "passing", "running", "reached", "ok", "served", "complete", "completed", "issued", "valid":
		return "good"
	case "failed", "revert-failed", "unreadable", "critical", "lost", "error", "missing", "not healthy", "stopped", "dead", "changed", "expired":
		return "bad"
	case "interrupted", "paused", "awaiting-promotion", "awaiting-approval", "reverted", "aborted", "warning", "abandoned":
		return "wait"
	case "in progress", "submitting", "submitted", "reverting", "pruning", "pending", "issuing":
		return "busy"
	}
	return "quiet"
}

// stateTag shows a state as a symbol and a word.
func stateTag(state any) template.HTML {
	text := fmt.Sprint(state)
	if p, ok := state.(*bool); ok && p != nil {
		state = *p
	}
	switch s := state.(type) {
	case bool:
		if text = "not healthy"; s {
			text = "healthy"
		}
	case record.State:
		if s == record.Running {
			text = "in progress"
		}
	}
	tone := toneOf(text)
	return template.HTML(fmt.Sprintf(`<span class="state %s"><span aria-hidden="true">%s</span> %s</span>`, tone, tones[tone], template.HTMLEscapeString(text))) //nolint:gosec // escaped
}

// content renders the content of a page.
func content(p page) (template.HTML, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, p.Name, p.Data); err != nil {
		return "", err
	}
	return template.HTML(b.String()), nil //nolint:gosec // html/template has escaped it
}

// fragment returns what the stream of a page sends.
func (s *Server) fragment(p page) []byte {
	var b bytes.Buffer
	html, err := content(p)
	if err != nil {
		p = errorPage(err)
		html, _ = content(p)
	}
	_ = templates.ExecuteTemplate(&b, "fragment", layout{page: p, Content: html})
	return b.Bytes()
}

// serve answers with a page, which is kept up to date if live is set.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, build builder, live bool) {
	ctx, cancel := context.WithTimeout(r.Context(), readTime)
	defer cancel()
	p := s.build(ctx, r, build)
	if live && p.code == http.StatusOK {
		p.refresh = "live"
	}
	s.render(w, r, p.code, p)
}

// render writes a whole page. A page whose refresh is a path leads there.
func (s *Server) render(w http.ResponseWriter, r *http.Request, code int, p page) {
	html, err := content(p)
	if err != nil {
		code, p = http.StatusInternalServerError, errorPage(err)
		html, _ = content(p)
	}
	l := layout{page: p, Content: html, ReadOnly: s.opts.ReadOnly, Who: s.opts.Operator, SignedIn: code != http.StatusUnauthorized && code != http.StatusMisdirectedRequest, Path: r.URL.Path}
	switch p.refresh {
	case "":
	case "live":
		l.Live = "/live" + r.URL.RequestURI()
	default:
		l.Refresh = p.refresh
	}
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, "layout", l); err != nil {
		http.Error(w, "cannot render the page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, code int, text string) {
	s.failWith(w, r, &httpError{code, text})
}

func (s *Server) failWith(w http.ResponseWriter, r *http.Request, err error) {
	p := errorPage(err)
	s.render(w, r, p.code, p)
}
