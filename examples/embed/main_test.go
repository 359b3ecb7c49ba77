package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

const asProgram = "DROVER_EXAMPLE_EMBED"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Args = []string{"embed", os.Getenv(asProgram)}
		main()
		return
	}
	devtest.Main(m)
}

// TestEmbed deploys the example stack to a dev cluster, twice.
func TestEmbed(t *testing.T) {
	c := devtest.Cluster(t, devcluster.Options{})
	for _, want := range []struct{ outcome, state string }{{"deployed", "deployed"}, {"unchanged", ""}} {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), asProgram+"=../shop", "NOMAD_ADDR="+c.NomadAddr(), "CONSUL_HTTP_ADDR="+c.ConsulAddr())
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s%s", err, out, errs.Bytes())
		}
		type event struct {
			Event   string
			Outcome string
			State   string
			Phase   string
		}
		var last event
		phases, ends := 0, 0
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			last = event{}
			if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
				t.Fatalf("%v: %s", err, lines.Text())
			}
			switch last.Event {
			case "phase":
				phases++
			case "end":
				ends++
			}
		}
		if last.Event != "end" || ends != 1 || phases == 0 || last.Outcome != want.outcome || last.State != want.state {
			t.Errorf("got %d phases, %d ends and last %+v; want one end, last, with %+v\n%s", phases, ends, last, want, out)
		}
	}
}
