package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// awaitReady waits until all of the agents do their work. It gives up when
// one of them ends or the time is over.
func (l *layout) awaitReady(ctx context.Context, timeout time.Duration, agents []*agentSpec) error {
	ctl := control{l.dir}
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	clients := map[string]*http.Client{}
	for _, a := range agents {
		if clients[a.program] != nil {
			continue
		}
		hc, err := l.httpClient(a.program)
		if err != nil {
			return err
		}
		defer hc.CloseIdleConnections()
		clients[a.program] = hc
	}
	todo := slices.Clone(agents)
	var missing error
	err := wait(limit, func() (bool, error) {
		st, err := ctl.status(limit)
		if limit.Err() != nil {
			return false, limit.Err()
		}
		if err != nil {
			return false, err
		}
		for _, a := range agents {
			if p := st.Agents[a.name]; p.State == StateExited {
				return false, fmt.Errorf("%s ended (%s); %s", a.name, p.Exit, tail(l.path("logs", a.name+".log")))
			}
		}
		for len(todo) > 0 {
			if missing = l.ready(limit, clients[todo[0].program], todo[0]); missing != nil {
				return false, nil
			}
			todo = todo[1:]
		}
		return true, nil
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("waiting for the agents: %w", ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		a := todo[0].name
		return fmt.Errorf("%s is not ready after %s (%w); %s", a, timeout, missing, tail(l.path("logs", a+".log")))
	}
	return err
}

// ready returns an error that names what the agent still lacks; nil if it is
// ready.
func (l *layout) ready(ctx context.Context, hc *http.Client, a *agentSpec) error {
	switch a.program {
	case Pebble:
		return l.pebbleReady(ctx)
	case PowerDNS:
		return l.powerdnsReady(ctx, hc)
	}
	url := a.httpAddr(l.Ports)
	var leader string
	if a.program == Consul || a.server {
		if err := get(ctx, hc, url+"/v1/status/leader", &leader); err != nil {
			return err
		}
		if leader == "" {
			return errors.New("no leader yet")
		}
	}
	if a.program == Consul && a.server && l.Secure && l.first(a.region) {
		// The leader takes no token until a moment after it is elected.
		var self struct{ AccessorID string }
		if err := get(ctx, hc, url+"/v1/acl/token/self", &self); err != nil {
			return err
		}
	}
	if regions := l.Shape.Regions; a.server && len(regions) > 1 {
		path := "/v1/regions"
		if a.program == Consul {
			path = "/v1/catalog/datacenters"
		}
		var known []string
		if err := get(ctx, hc, url+path, &known); err != nil {
			return err
		}
		for _, r := range regions {
			if !slices.Contains(known, r) {
				return fmt.Errorf("region %s has not joined yet", r)
			}
		}
	}
	if a.program == Nomad && a.server {
		// A client that registers before the leader has a key to sign its
		// identity with is refused and tries again after 15 seconds.
		var jwks struct{ Keys []json.RawMessage }
		if err := get(ctx, hc, url+"/.well-known/jwks.json", &jwks); err != nil {
			return err
		}
		if len(jwks.Keys) == 0 {
			return errors.New("no keyring yet")
		}
	}
	if a.program == Nomad && a.client {
		return clientReady(ctx, hc, url)
	}
	return nil
}

// clientReady looks at the node through its own agent. After a restart the
// servers still have what the node said before, so its registration is waited
// for: that gives it a time to live.
func clientReady(ctx context.Context, hc *http.Client, url string) error {
	var self struct {
		Stats struct {
			Client struct {
				NodeID       string `json:"node_id"`
				HeartbeatTTL string `json:"heartbeat_ttl"`
			} `json:"client"`
		} `json:"stats"`
	}
	if err := get(ctx, hc, url+"/v1/agent/self", &self); err != nil {
		return err
	}
	if ttl, err := time.ParseDuration(self.Stats.Client.HeartbeatTTL); err != nil || ttl == 0 {
		return errors.New("the node is not registered yet")
	}
	var node struct {
		Status     string
		Attributes map[string]string
		Drivers    map[string]struct {
			Healthy           bool
			HealthDescription string
		}
	}
	if err := get(ctx, hc, url+"/v1/node/"+self.Stats.Client.NodeID, &node); err != nil {
		return err
	}
	switch d := node.Drivers["raw_exec"]; {
	case node.Status != "ready":
		return fmt.Errorf("the node is %s", node.Status)
	case !d.Healthy:
		return fmt.Errorf("the driver raw_exec is not healthy: %s", d.HealthDescription)
	case node.Attributes["consul.version"] == "", node.Attributes["consul.dns.port"] == "":
		return errors.New("the node has not found Consul yet")
	}
	return nil
}

func get(ctx context.Context, hc *http.Client, url string, answer any) error {
	body, err := fetch(ctx, hc, url)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}

func fetch(ctx context.Context, hc *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, res.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}
