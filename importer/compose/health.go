package compose

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-shellwords"

	"github.com/drover-nomad/drover/importer"
)

func (s *service) health() {
	at := s.at.get("healthcheck")
	h := s.cfg.HealthCheck
	at.takeEach("test", "interval", "timeout", "retries", "start_period", "disable")
	at.get("start_interval").drop("a check has one interval on Nomad")
	s.extensions(at)
	for _, n := range at {
		n.Fields()
	}
	if h == nil {
		return
	}
	if h.Disable || len(h.Test) > 0 && h.Test[0] == "NONE" {
		s.s.NoCheck = true
		s.setBlock("healthchecks", "disable = true")
		return
	}
	if len(h.Test) == 0 {
		at.warn("health", fmt.Sprintf("the health check of %s is that of its image, which import does not know", s.cfg.Name), "Write test: into the input, or a check block into the job.")
		return
	}
	c := s.check(h.Test)
	c.Interval, c.Timeout = 30*time.Second, 30*time.Second
	retries, start := 3, time.Duration(0)
	if h.Interval != nil && *h.Interval > 0 {
		c.Interval = time.Duration(*h.Interval)
	}
	if h.Timeout != nil && *h.Timeout > 0 {
		c.Timeout = time.Duration(*h.Timeout)
	}
	if h.Retries != nil && *h.Retries > 0 && *h.Retries < 1000 {
		retries = int(*h.Retries)
	}
	if h.StartPeriod != nil {
		start = time.Duration(*h.StartPeriod)
	}
	c.Failures = retries
	if s.cfg.Deploy != nil && len(s.at.get("deploy")) > 0 { // Swarm replaces unhealthy tasks, Compose does not
		c.Restart, c.Grace = retries, max(start, time.Second)
	}
	if c.Restart == 0 {
		if c.Type == "script" {
			at.get("retries").drop("Consul has no number of failures for a script: its last result counts")
		}
		at.get("start_period").drop("a new instance is healthy as soon as its check passes")
	}
	s.s.Checks = append(s.s.Checks, c)
	if deadline := start + time.Duration(retries+1)*c.Interval + time.Minute; deadline > 5*time.Minute {
		progress := 2 * deadline
		s.update().HealthyDeadline, s.update().ProgressDeadline = &deadline, &progress
	}
}

func (s *service) update() *importer.Update {
	if s.s.Update == nil {
		s.s.Update = &importer.Update{}
	}
	return s.s.Update
}

// check maps a test: to a request of Consul if it is one, else to a script.
func (s *service) check(test []string) importer.Check {
	var words []string
	switch test[0] {
	case "CMD":
		words = test[1:]
	case "CMD-SHELL":
		shell := strings.Join(test[1:], " ")
		if c, ok := s.shellCheck(shell); ok {
			return c
		}
		return importer.Check{Type: "script", Command: "/bin/sh", Args: []string{"-c", shell}}
	default:
		words = test
	}
	if c, ok := s.requestCheck(words); ok {
		return c
	}
	if len(words) == 3 && strings.HasSuffix(words[0], "sh") && words[1] == "-c" {
		if c, ok := s.shellCheck(words[2]); ok {
			return c
		}
	}
	if len(words) == 0 {
		return importer.Check{Type: "script", Command: "/bin/true"}
	}
	return importer.Check{Type: "script", Command: words[0], Args: words[1:]}
}

// cosmetic are the flags of curl and wget that do not change what is asked for.
var cosmetic = regexp.MustCompile(`^-(?:[fsSqkLgvV]+|nv|qO-?|O-|[Ttm]\d+)$`)

var exitOne = regexp.MustCompile(`\s*(?:\|\|\s*(?:exit\s+1|false|kill\s+1)|>\s*/dev/null(?:\s+2>&1)?|2>&1)\s*;?\s*$`)

// shellCheck is a request that a shell command makes, and nothing else.
func (s *service) shellCheck(shell string) (importer.Check, bool) {
	for {
		cut := exitOne.ReplaceAllString(shell, "")
		if cut == shell {
			break
		}
		shell = cut
	}
	if strings.ContainsAny(shell, "|&;<>`$(){}") {
		return importer.Check{}, false
	}
	words, err := shellwords.Parse(shell)
	if err != nil {
		return importer.Check{}, false
	}
	return s.requestCheck(words)
}

// requestCheck is the check of Consul for curl, wget and nc on the container itself.
func (s *service) requestCheck(words []string) (importer.Check, bool) {
	if len(words) < 2 {
		return importer.Check{}, false
	}
	tool := words[0][strings.LastIndexByte(words[0], '/')+1:]
	if tool == "nc" || tool == "netcat" {
		var rest []string
		for _, w := range words[1:] {
			if !strings.HasPrefix(w, "-") {
				rest = append(rest, w)
			}
		}
		if len(rest) != 2 || !s.self(rest[0]) {
			return importer.Check{}, false
		}
		port, err := strconv.Atoi(rest[1])
		return importer.Check{Type: "tcp", Port: port}, err == nil
	}
	if tool != "curl" && tool != "wget" {
		return importer.Check{}, false
	}
	c := importer.Check{Type: "http"}
	target, fails := "", tool == "wget"
	for i := 1; i < len(words); i++ {
		w := words[i]
		switch {
		case strings.HasPrefix(w, "http://") || strings.HasPrefix(w, "https://"), !strings.HasPrefix(w, "-") && target == "":
			target = w
		case w == "--fail" || w == "--fail-with-body":
			fails = true
		case w == "-o" || w == "-O" || w == "--output" || w == "-T" || w == "-t" || w == "-m" || w == "--max-time" || w == "--connect-timeout" || w == "--retry" || w == "--timeout" || w == "--retry-delay" || w == "--retry-max-time":
			if tool == "wget" && w == "-O-" {
				continue
			}
			i++
		case w == "-H" || w == "--header":
			i++
			if i >= len(words) {
				return c, false
			}
			key, value, ok := strings.Cut(words[i], ":")
			if !ok || !headerName.MatchString(key) {
				return c, false
			}
			if c.Header == nil {
				c.Header = map[string]string{}
			}
			c.Header[strings.TrimSpace(key)] = strings.TrimSpace(value)
		case w == "-I" || w == "--head":
			c.Method = "HEAD"
		case strings.HasPrefix(w, "--"):
			switch strings.SplitN(w, "=", 2)[0] {
			case "--silent", "--quiet", "--spider", "--no-verbose", "--tries", "--timeout", "--show-error", "--insecure", "--no-check-certificate", "--location", "--output-document", "--no-progress-meter":
			default:
				return c, false
			}
		case cosmetic.MatchString(w):
			if tool == "curl" && strings.Contains(w, "f") {
				fails = true
			}
			if w == "-qO" {
				i++
			}
		case w == "-sfo" || w == "-fso" || w == "-so":
			fails = fails || strings.Contains(w, "f")
			i++
		default:
			return c, false
		}
	}
	if target == "" || !fails {
		return c, false
	}
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	u, err := url.Parse(target)
	if err != nil || u.User != nil || !s.self(u.Hostname()) {
		return c, false
	}
	c.Path = u.RequestURI()
	c.Port = 80
	if u.Scheme == "https" {
		c.Protocol, c.Port = "https", 443
	}
	if u.Port() != "" {
		if c.Port, err = strconv.Atoi(u.Port()); err != nil {
			return c, false
		}
	}
	return c, true
}

// self reports whether a host is the container itself.
func (s *service) self(host string) bool {
	switch strings.ToLower(host) {
	case "localhost", "127.0.0.1", "0.0.0.0", "::1", s.cfg.Name, s.cfg.ContainerName, s.cfg.Hostname:
		return true
	}
	return false
}

func (s *service) lifecycle() {
	cfg := s.cfg
	if cfg.StopSignal != "" {
		s.at.take("stop_signal")
		sig := strings.ToUpper(cfg.StopSignal)
		if n, err := strconv.Atoi(sig); err == nil {
			sig = map[int]string{1: "HUP", 2: "INT", 3: "QUIT", 9: "KILL", 10: "USR1", 12: "USR2", 15: "TERM"}[n]
		}
		sig = "SIG" + strings.TrimPrefix(sig, "SIG")
		if known(sig) {
			s.t.KillSignal = sig
		} else {
			s.at.get("stop_signal").warn("unsupported", fmt.Sprintf("Nomad does not know the signal %s", cfg.StopSignal), "Use another one.")
		}
	}
	if cfg.StopGracePeriod != nil {
		s.at.take("stop_grace_period")
		s.t.KillTimeout = time.Duration(*cfg.StopGracePeriod)
		if s.t.KillTimeout > 30*time.Second {
			s.at.get("stop_grace_period").warn("kill-timeout", fmt.Sprintf("%s is longer than the clients' max_kill_timeout by default", s.t.KillTimeout), "Raise max_kill_timeout of the clients.")
		}
	} else {
		s.t.KillTimeout = 10 * time.Second
	}
	for _, key := range []string{"pre_start", "post_start", "pre_stop"} {
		s.at.get(key).warn("hook", fmt.Sprintf("%s of %s runs commands in the container, which Nomad cannot", key, s.cfg.Name), "Do it in the entry point of the image, or in a task with a lifecycle block.")
	}
}

func known(sig string) bool {
	return slices.Contains(strings.Fields(signals), strings.TrimPrefix(sig, "SIG"))
}

// signals are those that Nomad's clients know, without SIG.
const signals = "ABRT ALRM BUS CHLD CONT FPE HUP ILL INT IO IOT KILL PIPE PROF QUIT SEGV STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 WINCH XCPU XFSZ"
