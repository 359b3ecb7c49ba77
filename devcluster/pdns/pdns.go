// Package pdns knows how to run a PowerDNS for trying things: authoritative,
// with its HTTP API, on one address of the loopback, its zones in a file.
package pdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Install is how to get what it needs on Debian and Ubuntu.
const Install = "apt-get install --no-install-recommends pdns-server pdns-backend-sqlite3 sqlite3"

// Config of a server.
type Config struct {
	Dir     string // has pdns.conf, the zones and a socket
	Address string
	DNSPort int // TCP and UDP
	APIPort int
	Key     string // of the API
}

const schema = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"

// Path returns the path of the program. It returns an error if the program, or
// another one that it needs, is not installed.
func Path() (string, error) {
	path, err := exec.LookPath("pdns_server")
	if err != nil {
		path = "/usr/sbin/pdns_server" // not on everybody's PATH
	}
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("PowerDNS is not installed: " + Install)
	}
	if _, err := os.Stat(schema); err != nil {
		return "", errors.New("PowerDNS's sqlite backend is not installed: " + Install)
	}
	if _, err := exec.LookPath("sqlite3"); err != nil {
		return "", errors.New("sqlite3 is not installed: " + Install)
	}
	return path, nil
}

// Args of the program.
func (c Config) Args() []string {
	return []string{"--config-dir=" + c.Dir, "--daemon=no", "--guardian=no", "--disable-syslog", "--write-pid=no"}
}

// File is where the configuration belongs.
func (c Config) File() string { return filepath.Join(c.Dir, "pdns.conf") }

// Text of the configuration; it has the key. A change is seen at once: nothing
// is cached.
func (c Config) Text() string {
	return fmt.Sprintf(`launch=gsqlite3
gsqlite3-database=%s
gsqlite3-pragma-synchronous=0
local-address=%s
local-port=%d
socket-dir=%s
webserver=yes
webserver-address=%[2]s
webserver-port=%[5]d
webserver-allow-from=127.0.0.0/8
api=yes
api-key=%[6]s
security-poll-suffix=
dnsupdate=yes
allow-dnsupdate-from=127.0.0.0/8
allow-axfr-ips=
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
zone-metadata-cache-ttl=0
default-soa-content=ns1.@ hostmaster.@ 0 10800 3600 604800 60
distributor-threads=1
receiver-threads=1
retrieval-threads=1
`, c.database(), c.Address, c.DNSPort, c.Dir, c.APIPort, c.Key)
}

func (c Config) database() string { return filepath.Join(c.Dir, "pdns.sqlite3") }

// Create makes the file for the zones, unless it is there.
func (c Config) Create(ctx context.Context) error {
	if _, err := os.Stat(c.database()); err == nil {
		return nil
	}
	tables, err := os.ReadFile(schema)
	if err != nil {
		return errors.New("PowerDNS's sqlite backend is not installed: " + Install)
	}
	tmp := c.database() + ".new" // one that is half made is not taken for one
	_ = os.Remove(tmp)
	create := exec.CommandContext(ctx, "sqlite3", tmp)
	create.Stdin = bytes.NewReader(append([]byte("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;\n"), tables...))
	if out, err := create.CombinedOutput(); err != nil {
		return fmt.Errorf("making PowerDNS's database: %w\n%s", err, out)
	}
	return os.Rename(tmp, c.database())
}
