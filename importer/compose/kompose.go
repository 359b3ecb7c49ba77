package compose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-shellwords"

	"github.com/drover-nomad/drover/importer"
)

// kompose maps the labels of kompose.
func (s *service) kompose(all map[string]label) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		key, ok := strings.CutPrefix(name, "kompose.")
		if !ok {
			continue
		}
		l := all[name]
		value := s.literal(l.text)
		switch {
		case key == "controller.type" && value == "daemonset":
			s.s.Kind, s.s.Count = importer.KindSystem, nil
			l.node.Take()
		case key == "controller.type":
			l.node.Take()
		case key == "service.expose" && importer.IsRouteHost(value) && strings.Contains(value, "."):
			l.node.Take()
			_, tls := all["kompose.service.expose.tls-secret"]
			r := &routes{tls: tls}
			s.addSite(r, l, site{host: l.flat})
			s.publish(r)
		case key == "service.expose.tls-secret":
			l.node.Take()
		case key == "service.expose":
			l.node.Warn("route", fmt.Sprintf("%s is to have a public route and names no host", s.cfg.Name), "Write a tag drover.route=HOST/ into the service block of the job.")
		case strings.HasPrefix(key, "cronjob.schedule"):
			l.node.Take()
			s.s.Kind = importer.KindBatch
			s.s.Periodic = &importer.Periodic{Crons: []string{value}, ProhibitOverlap: s.literal(all["kompose.cronjob.concurrency_policy"].text) == "Forbid"}
		case strings.HasPrefix(key, "service.healthcheck.liveness."), strings.HasPrefix(key, "service.healthcheck.readiness."):
			// below
		case key == "hpa.replicas.min":
			l.node.Warn("scaling", fmt.Sprintf("the number of instances of %s does not follow its load", s.cfg.Name), "Add a scaling block and the Nomad Autoscaler.")
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				s.s.Count = &n
			}
		case strings.HasPrefix(key, "hpa."):
			l.node.Warn("scaling", fmt.Sprintf("the number of instances of %s does not follow its load", s.cfg.Name), "Add a scaling block and the Nomad Autoscaler.")
		case key == "service.nodeport.port":
			l.node.Take()
			s.nodePort(l, value)
		case strings.HasPrefix(key, "cronjob."), key == "service.type", key == "service.group", key == "image-pull-secret", key == "image-pull-policy", key == "volume.size", key == "volume.storage-class-name", key == "volume.type":
			l.node.Take()
			s.ledger.LeaveOut(l.node.Pos(), fmt.Sprintf("the label %s of %s is for Kubernetes", name, s.cfg.Name))
		default:
			l.node.Warn("route", fmt.Sprintf("the label %s of %s is not mapped", name, s.cfg.Name), "See what kompose does with it.")
		}
	}
	s.komposeProbes(all)
}

// nodePort publishes the first port on every node.
func (s *service) nodePort(l label, value string) {
	number, err := strconv.Atoi(value)
	at := slices.IndexFunc(s.s.Ports, func(p importer.Port) bool { return !p.UDP })
	if err != nil || number < 1 || number > 65535 || at < 0 {
		l.node.Warn("random-port", fmt.Sprintf("port %q of every node leads to no port of %s", value, s.cfg.Name), "Publish a port.")
		return
	}
	s.m.Published = append(s.m.Published, importer.Published{Port: number, Service: s.s.Name, Target: s.s.Ports[at].Number, At: l.node.Pos(), Optional: len(s.cfg.Profiles) > 0})
}

// komposeProbes maps the probes that labels ask for: that of liveness restarts the
// service, and has the times of the health check.
func (s *service) komposeProbes(all map[string]label) {
	const prefix = "kompose.service.healthcheck."
	if live, ok := s.komposeProbe(all, prefix+"liveness."); ok {
		live.Interval, live.Timeout, live.Failures, live.Restart, live.Grace = 30*time.Second, 30*time.Second, 3, 3, time.Second
		if len(s.s.Checks) > 0 { // its test is replaced
			h := s.s.Checks[0]
			live.Interval, live.Timeout, live.Failures, live.Restart = h.Interval, h.Timeout, h.Failures, h.Failures
			if p := s.cfg.HealthCheck.StartPeriod; p != nil {
				live.Grace = max(time.Duration(*p), time.Second)
			}
		}
		s.s.Checks = []importer.Check{live}
	}
	ready, ok := s.komposeProbe(all, prefix+"readiness.")
	if !ok {
		return
	}
	for key, to := range map[string]*time.Duration{"interval": &ready.Interval, "timeout": &ready.Timeout} {
		if d, err := time.ParseDuration(s.literal(all[prefix+"readiness."+key].text)); err == nil && d > 0 {
			*to = d
		}
	}
	if n, err := strconv.Atoi(s.literal(all[prefix+"readiness.retries"].text)); err == nil && n > 0 && n < 1000 {
		ready.Failures = n
	}
	if same := func(c importer.Check) bool {
		return c.Type == ready.Type && c.Port == ready.Port && c.Path == ready.Path && c.Type != "script"
	}; !slices.ContainsFunc(s.s.Checks, same) {
		s.s.Checks = append(s.s.Checks, ready)
	}
}

// komposeProbe returns the check of a probe without its times, and whether there is one.
func (s *service) komposeProbe(all map[string]label, prefix string) (c importer.Check, ok bool) {
	value := func(key string) string {
		l, ok := all[prefix+key]
		if !ok {
			return ""
		}
		l.node.Take()
		return strings.TrimSpace(s.literal(l.text))
	}
	for _, key := range []string{"interval", "timeout", "retries", "start_period"} {
		value(key)
	}
	disabled := value("disable") == "true"
	test, path, http, tcp := value("test"), value("http_get_path"), value("http_get_port"), value("tcp_port")
	switch {
	case disabled:
		return c, false
	case http != "" || path != "":
		c = importer.Check{Type: "http", Path: cmp.Or(path, "/")}
	case tcp != "":
		c = importer.Check{Type: "tcp"}
	case test != "":
		words, err := shellwords.Parse(test)
		if err != nil || len(words) == 0 {
			return c, false
		}
		if words[0] == "CMD" || words[0] == "CMD-SHELL" {
			c = s.check(words)
		} else {
			c = s.check([]string{"CMD-SHELL", test})
		}
		return c, true
	default:
		return c, false
	}
	if port, err := strconv.Atoi(cmp.Or(http, tcp)); err == nil && port > 0 && port < 65536 {
		c.Port = port
		s.addPort(importer.Port{Number: port})
	}
	return c, true
}
