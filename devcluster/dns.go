package devcluster

import (
	"fmt"

	"github.com/drover-nomad/drover/devcluster/pdns"
)

// DNSZone is the zone that Options.DNS gives a cluster: below .test, which is
// reserved for tests (RFC 6761).
const DNSZone = "drover.test"

// dnsKeyFile has the key of PowerDNS's API.
const dnsKeyFile = "api-key"

func (l *layout) pdns() pdns.Config {
	return pdns.Config{Dir: l.path("dns"), Address: "127.0.0.1", DNSPort: l.Ports.DNS, APIPort: l.Ports.DNSAPI}
}

func (l *layout) dnsServer() string {
	c := l.pdns()
	return fmt.Sprintf("%s:%d", c.Address, c.DNSPort)
}

// powerdns is the agent that Options.DNS asks for. Its configuration has a
// key, see dnsFiles.
func (l *layout) powerdns() *agentSpec {
	return &agentSpec{name: "powerdns", program: PowerDNS, addr: l.pdns().Address}
}
