package ocis

import (
	"bufio"
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// natsClient talks to a NATS server, in its text protocol.
type natsClient struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialNATS(addr string) (*natsClient, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	c := &natsClient{conn, bufio.NewReader(conn)}
	if _, err := c.in.ReadString('\n'); err != nil { // INFO
		return nil, err
	}
	_, err = fmt.Fprint(conn, "CONNECT {\"verbose\":false}\r\nSUB inbox 1\r\n")
	return c, err
}

// request publishes a request and returns the answer.
func (c *natsClient) request(subject, body string) (string, error) {
	_ = c.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c.conn, "PUB %s inbox %d\r\n%s\r\n", subject, len(body), body); err != nil {
		return "", err
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(line, "MSG ") {
			answer, err := c.in.ReadString('\n')
			return strings.TrimSpace(answer), err
		}
	}
}

// freeAddress returns a loopback address on which nothing listens on the ports.
func freeAddress(t *testing.T, ports ...string) string {
	t.Helper()
	var err error
	for range 20 {
		address := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(190), rand.IntN(256), 1+rand.IntN(254))
		free := true
		for _, port := range ports {
			var l net.Listener
			if l, err = net.Listen("tcp", net.JoinHostPort(address, port)); err != nil {
				free = false
				break
			}
			_ = l.Close()
		}
		if free {
			return address
		}
	}
	t.Fatalf("no loopback address has the ports %s free: %v", ports, err)
	return ""
}

// The mesh of a newer line writes its addresses into the bucket of go-micro's registry,
// in the form in which go-micro reads them. NATS is that of oCIS, HAProxy the real one.
func TestMesh_RegistersInNATS(t *testing.T) {
	t.Parallel()
	devtest.NeedsServers(t)
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		haproxy = "/usr/sbin/haproxy" // not on everybody's PATH
	}
	server, err := devcluster.Tools{}.Path(t.Context(), devcluster.OCIS)
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t, "9233", "19999")
	_, jobs := rendered(t, "", map[string]any{"domain": "cloud.example.org", "line": "7.1", "mesh_address": address})
	dir := t.TempDir()
	script, config := filepath.Join(dir, "registry.lua"), filepath.Join(dir, "haproxy.cfg")
	for _, tmpl := range jobs["mesh"].Job.TaskGroups[0].Tasks[0].Templates {
		if strings.HasSuffix(*tmpl.DestPath, "registry.lua") {
			if err := os.WriteFile(script, []byte(*tmpl.EmbeddedTmpl), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	text := fmt.Sprintf("global\n  log stderr format raw local0 notice\n  lua-load %s\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 2s\n  timeout server 2s\nfrontend health\n  bind %s:19999\n  monitor-uri /\n", script, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(env []string, name string, args ...string) {
		ctx, stop := context.WithCancel(context.Background())
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), env...)
		if err := cmd.Start(); err != nil {
			stop()
			t.Fatal(err)
		}
		t.Cleanup(func() {
			stop()
			_ = cmd.Wait()
		})
	}
	run([]string{"NATS_NATS_HOST=" + address, "NATS_NATS_PORT=9233", "NATS_NATS_STORE_DIR=" + filepath.Join(dir, "nats"), "OCIS_CONFIG_DIR=" + dir}, server, "nats", "server")

	var nats *natsClient
	devtest.Until(t, time.Minute, "NATS answers", func() bool {
		nats, err = dialNATS(address + ":9233")
		if err != nil {
			return false
		}
		// The first service of oCIS makes the bucket.
		answer, err := nats.request("$JS.API.STREAM.CREATE.KV_service-registry", `{"name":"KV_service-registry","subjects":["$KV.service-registry.>"],"storage":"memory","max_msgs_per_subject":1,"allow_rollup_hdrs":true,"deny_delete":true,"discard":"new","num_replicas":1,"max_age":30000000000}`)
		return err == nil && strings.Contains(answer, `"config"`)
	})
	run([]string{"NOMAD_ALLOC_ID=0f3a"}, haproxy, "-db", "-f", config)

	want := map[string]int{"settings": 9191, "search": 9220, "thumbnails": 9185, "eventhistory": 9274}
	for name, port := range want {
		service := "com.owncloud.api." + name
		subject := "$KV.service-registry." + base32.StdEncoding.EncodeToString([]byte("service-registry_"+service+"@0f3a@mesh"))
		devtest.Until(t, time.Minute, service+" is in the registry", func() bool {
			answer, err := nats.request("$JS.API.STREAM.MSG.GET.KV_service-registry", fmt.Sprintf(`{"last_by_subj":%q}`, subject))
			if err != nil {
				t.Fatal(err)
			}
			var stored struct{ Message struct{ Data []byte } }
			if err := json.Unmarshal([]byte(answer), &stored); err != nil || len(stored.Message.Data) == 0 {
				return false
			}
			var record struct{ Key, Data string }
			if err := json.Unmarshal(stored.Message.Data, &record); err != nil {
				t.Fatalf("%s: %v", stored.Message.Data, err)
			}
			data, err := base64.StdEncoding.DecodeString(record.Data)
			if err != nil {
				t.Fatal(err)
			}
			var found struct {
				Name  string
				Nodes []struct{ Address string }
			}
			if err := json.Unmarshal(data, &found); err != nil {
				t.Fatalf("%s: %v", data, err)
			}
			if record.Key != service+"@0f3a@mesh" || found.Name != service || len(found.Nodes) != 1 || found.Nodes[0].Address != fmt.Sprintf("%s:%d", address, port) {
				t.Errorf("got %s %s, want %s at %s:%d", record.Key, data, service, address, port)
			}
			return true
		})
	}
}
