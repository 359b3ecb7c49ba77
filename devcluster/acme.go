package devcluster

import (
	"encoding/json"
	"fmt"
)

// Where the stack edge listens in the environment dev, on the loopback
// address of the cluster: Pebble checks names there.
const (
	edgeHTTP  = 9080
	edgeHTTPS = 9443
)

// The files in acme/ that others read.
const (
	acmeAPICA = "api-ca.pem"
	acmeCA    = "ca.pem"
)

// pebble is the agent that Options.ACME asks for.
func (l *layout) pebble() *agentSpec {
	a := &agentSpec{name: "pebble", program: Pebble, addr: "127.0.0.1"}
	type profile struct {
		Description    string `json:"description"`
		ValidityPeriod uint64 `json:"validityPeriod"`
	}
	config, _ := json.MarshalIndent(map[string]any{"pebble": map[string]any{ // strings and numbers: no error
		"listenAddress":           fmt.Sprintf("%s:%d", a.addr, l.Ports.ACME),
		"managementListenAddress": fmt.Sprintf("%s:%d", a.addr, l.Ports.ACMEManage),
		"certificate":             l.path("acme", "api.pem"), "privateKey": l.path("acme", "api-key.pem"),
		"httpPort": edgeHTTP, "tlsPort": edgeHTTPS, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 0, "order": 0},
		"profiles": map[string]profile{
			"default": {"90 days", 7776000}, "shortlived": {"6 days", 518400},
		},
	}}, "", "  ")
	a.config = string(config) + "\n"
	return a
}

// pebbleEnv makes Pebble neither wait before it checks a name nor refuse good
// nonces nor, now and then, do without a proof that it has seen, all of which
// it does to test clients.
func pebbleEnv() []string {
	return []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"}
}
