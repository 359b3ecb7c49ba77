// The front end of the guestbook: a page with the entries, which it gets from the back
// end, and a form.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

var page = template.Must(template.New("").Parse(`<!doctype html>
<title>{{ .Title }}</title>
<h1>{{ .Title }}</h1>
<ul>{{ range .Entries }}
<li>{{ .Name }}: {{ .Message }}</li>{{ end }}
</ul>
<form method="post" action="/sign"><input name="name"><input name="message"><button>Sign</button></form>
<footer>guestbook {{ .Version }}</footer>
`))

type entry struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

func main() {
	log.SetFlags(0)
	config := flag.String("config", "", "settings in JSON")
	flag.Parse()
	settings := struct {
		Listen  string `json:"listen"`
		Backend string `json:"backend"`
		Title   string `json:"title"`
	}{":" + cmp.Or(os.Getenv("PORT"), "8080"), os.Getenv("BACKEND_URL"), cmp.Or(os.Getenv("GUESTBOOK_TITLE"), "Guestbook")}
	if *config != "" {
		text, err := os.ReadFile(*config)
		if err == nil {
			err = json.Unmarshal(text, &settings)
		}
		if err != nil {
			log.Fatalf("%s: %v", *config, err)
		}
	}
	client := &http.Client{Timeout: 10 * time.Second}
	entries := strings.TrimSuffix(settings.Backend, "/") + "/entries"
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		var all []entry
		resp, err := client.Get(entries)
		if err == nil {
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s: %s", entries, resp.Status)
			} else {
				err = json.NewDecoder(resp.Body).Decode(&all)
			}
		}
		if err != nil {
			log.Print(err)
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, map[string]any{"Title": settings.Title, "Entries": all, "Version": os.Getenv("GUESTBOOK_VERSION")})
	})
	http.HandleFunc("POST /sign", func(w http.ResponseWriter, r *http.Request) {
		body, _ := json.Marshal(entry{r.FormValue("name"), r.FormValue("message")})
		resp, err := client.Post(entries, "application/json", bytes.NewReader(body))
		if err == nil {
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				err = fmt.Errorf("%s: %s", entries, resp.Status)
			}
		}
		if err != nil {
			log.Print(err)
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	log.Printf("listening on %s, back end at %s", settings.Listen, settings.Backend)
	log.Fatal(http.ListenAndServe(settings.Listen, nil))
}
