// The back end of the guestbook: an API over HTTP that keeps entries in PostgreSQL.
//
//	GET  /entries   all entries, the oldest first
//	POST /entries   adds one
//	GET  /ready     whether the database answers
//	GET  /alive     whether the process answers
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

type entry struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// settings come from a file (-config), from DATABASE_URL, or from DB_HOST, DB_PORT,
// DB_NAME, DB_USER and DB_PASSWORD; the password also from the file DB_PASSWORD_FILE.
type settings struct {
	Listen   string `json:"listen"`
	Host     string `json:"host"`
	Port     string `json:"port"`
	Name     string `json:"name"`
	User     string `json:"user"`
	Password string `json:"password"`
}

func read() (settings, error) {
	config := flag.String("config", "", "settings in JSON")
	flag.Parse()
	s := settings{
		Listen: ":" + cmp.Or(os.Getenv("PORT"), "8080"), Host: os.Getenv("DB_HOST"), Port: cmp.Or(os.Getenv("DB_PORT"), "5432"),
		Name: cmp.Or(os.Getenv("DB_NAME"), "guestbook"), User: cmp.Or(os.Getenv("DB_USER"), "guestbook"), Password: os.Getenv("DB_PASSWORD"),
	}
	if *config != "" {
		text, err := os.ReadFile(*config)
		if err != nil {
			return s, err
		}
		if err := json.Unmarshal(text, &s); err != nil {
			return s, fmt.Errorf("%s: %w", *config, err)
		}
	}
	if text := os.Getenv("DATABASE_URL"); text != "" {
		u, err := url.Parse(text)
		if err != nil {
			return s, err
		}
		s.Host, s.Port, s.Name, s.User = u.Hostname(), cmp.Or(u.Port(), "5432"), strings.TrimPrefix(u.Path, "/"), u.User.Username()
		s.Password, _ = u.User.Password()
	}
	if name := os.Getenv("DB_PASSWORD_FILE"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			return s, err
		}
		s.Password = strings.TrimSpace(string(text))
	}
	return s, nil
}

func main() {
	log.SetFlags(0)
	s, err := read()
	if err != nil {
		log.Fatal(err)
	}
	query := func(statement string) ([][]string, error) {
		return run(net.JoinHostPort(s.Host, s.Port), s.User, s.Password, s.Name, statement)
	}
	schema := `CREATE TABLE IF NOT EXISTS entries (id serial PRIMARY KEY, name text NOT NULL, message text NOT NULL)`
	fail := func(w http.ResponseWriter, err error) {
		log.Print(err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
	http.HandleFunc("GET /alive", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := query("SELECT 1"); err != nil {
			fail(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	http.HandleFunc("GET /entries", func(w http.ResponseWriter, _ *http.Request) {
		rows, err := query(`SET client_min_messages = warning; ` + schema + `; SELECT name, message FROM entries ORDER BY id`)
		if err != nil {
			fail(w, err)
			return
		}
		all := []entry{}
		for _, row := range rows {
			all = append(all, entry{row[0], row[1]})
		}
		_ = json.NewEncoder(w).Encode(all)
	})
	http.HandleFunc("POST /entries", func(w http.ResponseWriter, r *http.Request) {
		var e entry
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&e); err != nil || e.Name == "" {
			http.Error(w, "an entry has a name and a message", http.StatusBadRequest)
			return
		}
		if _, err := query(schema + `; INSERT INTO entries (name, message) VALUES (` + quote(e.Name) + `, ` + quote(e.Message) + `)`); err != nil {
			fail(w, err)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	log.Printf("listening on %s, database at %s:%s", s.Listen, s.Host, s.Port)
	log.Fatal(http.ListenAndServe(s.Listen, nil))
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
