package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/devcluster"
)

func newDev(streams *IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a Nomad and Consul on this machine for experiments",
		Long: `Run a real Nomad and Consul on this machine: a single node by default, or
several servers, clients, datacenters and regions.

The programs on PATH are used if their version fits. Otherwise drover builds the
versions that it pins, once. The state of Nomad and Consul is kept from 'down' to
'up'. Processes are not.`,
		Example: `  drover dev up
  eval "$(drover dev env)"
  drover dev down --wipe`,
	}
	var opts devcluster.Options
	cmd.PersistentFlags().StringVar(&opts.Name, "name", devcluster.DefaultName, "name of the cluster")
	cmd.PersistentFlags().StringVar(&opts.Dir, "dir", "", "directory of the cluster (default /var/lib/drover/dev/NAME for root,\n~/.local/state/drover/dev/NAME for others)")
	cmd.AddCommand(newDevUp(streams, &opts), newDevDown(streams, &opts), newDevStatus(streams, &opts), newDevEnv(streams, &opts), newDevTools(streams), newDevSupervise(&opts))
	return cmd
}

// devError turns an invalid option into a usage error.
func devError(err error) error {
	var invalid *devcluster.InvalidError
	if errors.As(err, &invalid) {
		return usagef("%s", err)
	}
	return err
}

// devSupported returns an error on systems without dev clusters.
func devSupported() error {
	if runtime.GOOS != "linux" {
		return devcluster.ErrUnsupported
	}
	return nil
}

func newDevUp(streams *IO, opts *devcluster.Options) *cobra.Command {
	var ports string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the dev cluster, and create it the first time",
		Long: `Start the dev cluster, and create it if it does not exist. The cluster is ready
when the command ends. A running cluster is not changed.

With --servers, --clients, --datacenters or --regions each agent is a process with
an address of its own. This needs root or CAP_NET_ADMIN. The numbers are per
region. A cluster keeps its shape until 'drover dev down --wipe'.

--acme adds Pebble, an ACME CA for tests. --dns adds PowerDNS with the zone
` + devcluster.DNSZone + `; PowerDNS must be installed. Both can be added to a running
cluster, and stay until it is wiped.

--secure makes a cluster like one that others can reach: ACLs that deny by
default, HTTPS with client certificates, and Consul tokens for jobs by workload
identity. 'drover dev env' prints the tokens and certificates.`,
		Example: `  drover dev up
  drover dev up --servers 3 --clients 2`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := devSupported(); err != nil {
				return err
			}
			switch ports {
			case "auto":
			case "default":
				opts.DefaultPorts = true
			default:
				return usagef("%s: --ports is auto or default, not %q", cmd.CommandPath(), ports)
			}
			p := newDevProgress(streams)
			opts.Events = p.event
			c, err := devcluster.Up(cmd.Context(), *opts)
			p.close()
			if err != nil {
				return devError(err)
			}
			if c.AlreadyRunning {
				fmt.Fprintf(streams.Err, "The dev cluster %q is already running.\n", c.Name())
			}
			printDevAddresses(streams.Out, c.Status(cmd.Context()))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&ports, "ports", "auto", "auto: free ports, the same at every start; default: the default ports of Nomad and Consul")
	f.IntVar(&opts.Shape.Servers, "servers", 0, "Nomad servers")
	f.IntVar(&opts.Shape.Clients, "clients", 0, "Nomad clients")
	f.StringSliceVar(&opts.Shape.Datacenters, "datacenters", nil, "names of datacenters; the clients are distributed over them")
	f.StringSliceVar(&opts.Shape.Regions, "regions", nil, "names of regions")
	f.BoolVar(&opts.Secure, "secure", false, "ACLs and mutual TLS in Nomad and Consul")
	f.BoolVar(&opts.ACME, "acme", false, "also run Pebble, an ACME CA for tests")
	f.BoolVar(&opts.DNS, "dns", false, "also run PowerDNS, for tests of DNS records and DNS-01")
	f.StringArrayVar(&opts.Tools, "tool", nil, "program for tasks to run: ocis, pebble, pebble-challtestsrv, victoria-metrics or vmalert (repeatable)")
	f.DurationVar(&opts.Timeout, "timeout", 2*time.Minute, "how long to wait for the agents")
	return cmd
}

func printDevAddresses(w io.Writer, st devcluster.Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	regions := st.Regions
	if len(regions) == 0 {
		regions = []devcluster.Reach{{NomadAddr: st.NomadAddr, ConsulAddr: st.ConsulAddr}}
	}
	for _, r := range regions {
		suffix := ""
		if r.Region != "" {
			suffix = " " + r.Region
		}
		fmt.Fprintf(t, "Nomad%s\t%s\n", suffix, r.NomadAddr)
		fmt.Fprintf(t, "Consul%s\t%s\n", suffix, r.ConsulAddr)
	}
	if st.ACMEDirectory != "" {
		fmt.Fprintf(t, "ACME\t%s\n", st.ACMEDirectory)
	}
	if st.DNSServer != "" {
		fmt.Fprintf(t, "DNS\t%s for %s, API %s\n", st.DNSServer, devcluster.DNSZone, st.DNSAPI)
	}
	fmt.Fprintf(t, "Directory\t%s\n", st.Dir)
	_ = t.Flush()
}

func newDevDown(streams *IO, opts *devcluster.Options) *cobra.Command {
	var wipe bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the dev cluster and everything that it runs",
		Long: `Stop the dev cluster and everything that it runs. Jobs, volumes and the state of
Consul are kept for the next 'drover dev up'; --wipe removes them.`,
		Example: `  drover dev down
  drover dev down --wipe`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := devSupported(); err != nil {
				return err
			}
			p := newDevProgress(streams)
			opts.Events = p.event
			err := devcluster.Down(cmd.Context(), *opts, wipe)
			p.close()
			switch {
			case errors.Is(err, devcluster.ErrNoCluster):
				fmt.Fprintf(streams.Err, "There is no dev cluster %q.\n", opts.Name)
				return nil
			case err != nil:
				return devError(err)
			case wipe:
				fmt.Fprintf(streams.Err, "The dev cluster %q is removed.\n", opts.Name)
			default:
				fmt.Fprintf(streams.Err, "The dev cluster %q is down; its data is kept.\n", opts.Name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&wipe, "wipe", false, "remove all data too")
	return cmd
}

func newDevStatus(streams *IO, opts *devcluster.Options) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the agents of the dev cluster and their state",
		Example: "  drover dev status",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := devSupported(); err != nil {
				return err
			}
			if output != "text" && output != "json" {
				return usagef("%s: -o is text or json, not %q", cmd.CommandPath(), output)
			}
			st := devcluster.Status{Name: opts.Name, State: devcluster.StateAbsent, Dir: opts.Dir}
			c, err := devcluster.Open(*opts)
			switch {
			case err == nil:
				st = c.Status(cmd.Context())
			case !errors.Is(err, devcluster.ErrNoCluster):
				return devError(err)
			}
			if output == "json" {
				enc := json.NewEncoder(streams.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			}
			printDevStatus(streams.Out, st)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printDevStatus(w io.Writer, st devcluster.Status) {
	fmt.Fprintf(w, "Cluster %s is %s\n", st.Name, st.State)
	if st.State == devcluster.StateAbsent {
		return
	}
	printDevAddresses(w, st)
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "AGENT\tSTATE\tPID\tREGION\tDATACENTER\tADDRESS")
	for _, a := range st.Agents {
		pid := "-"
		if a.PID != 0 {
			pid = fmt.Sprint(a.PID)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", a.Name, a.State, pid, cmp.Or(a.Region, "-"), cmp.Or(a.Datacenter, "-"), a.Addr)
	}
	_ = t.Flush()
}

func newDevEnv(streams *IO, opts *devcluster.Options) *cobra.Command {
	var region string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the environment variables that select the dev cluster",
		Long: `Print the environment variables with which nomad, consul and drover use the dev
cluster:

    eval "$(drover dev env)"`,
		Example: `  eval "$(drover dev env)"`,
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := devSupported(); err != nil {
				return err
			}
			c, err := devcluster.Open(*opts)
			if err != nil && !errors.Is(err, devcluster.ErrNoCluster) {
				return devError(err)
			}
			if err != nil || c.Status(cmd.Context()).State != devcluster.StateRunning {
				return fmt.Errorf("the dev cluster %q does not run: start it with drover dev up", opts.Name)
			}
			env, err := c.Env(region)
			if err != nil {
				return devError(err)
			}
			// The controller of the stack drover is this program.
			if exe, err := os.Executable(); err == nil {
				env = append(env, "NOMAD_VAR_drover_binary="+exe)
			}
			return printExports(streams.Out, env)
		},
	}
	cmd.Flags().StringVar(&region, "region", "", "region of a cluster with several (default the first)")
	return cmd
}

// printExports writes variables, each NAME=VALUE, so that any shell reads them
// as they are.
func printExports(w io.Writer, env []string) error {
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		if _, err := fmt.Fprintf(w, "export %s=%s\n", name, shellQuote(value)); err != nil {
			return err
		}
	}
	return nil
}

// shellQuote quotes what a shell would make something else of: a list keeps its
// double quotes, a path its spaces.
func shellQuote(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("_./:@%+,-", r)
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func newDevTools(streams *IO) *cobra.Command {
	return &cobra.Command{
		Use:   "tools [NAME...]",
		Short: "Find or build the programs of the dev cluster",
		Example: `  drover dev tools
  drover dev tools nomad consul`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := devSupported(); err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{devcluster.Consul, devcluster.Nomad, devcluster.OCIS, devcluster.Pebble, devcluster.PebbleChallTestSrv}
			}
			p := newDevProgress(streams)
			for _, name := range args {
				path, err := devcluster.Tools{Events: p.event}.Path(cmd.Context(), name)
				p.close()
				if err != nil {
					return devError(err)
				}
				fmt.Fprintf(streams.Out, "%s\t%s\n", name, path)
			}
			return nil
		},
	}
}

func newDevSupervise(opts *devcluster.Options) *cobra.Command {
	return &cobra.Command{
		Use:    "supervise",
		Short:  "Be the parent of a dev cluster's agents; dev up starts this",
		Hidden: true,
		Args:   exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return devError(devcluster.Supervise(opts.Dir))
		},
	}
}

// devProgress shows the events of a dev cluster on the error stream: lines,
// of which a terminal redraws the transient ones.
type devProgress struct {
	streams *IO
	open    bool      // a transient line stands without its end
	shown   time.Time // of the last transient line, in a pipe
}

func newDevProgress(streams *IO) *devProgress { return &devProgress{streams: streams} }

func (p *devProgress) event(e devcluster.Event) {
	text := e.Text
	if e.Subject != "" {
		text = e.Subject + ": " + text
	}
	if e.Warning {
		text = "Warning: " + text
	}
	if e.Transient {
		if p.streams.TTY {
			if r := []rune(text); len(r) >= p.streams.Width {
				text = string(r[:p.streams.Width-1])
			}
			fmt.Fprintf(p.streams.Err, "\r\x1b[K%s", text)
			p.open = true
			return
		}
		// A pipe gets a sign of life now and then.
		if time.Since(p.shown) < 15*time.Second {
			return
		}
		p.shown = time.Now()
	}
	p.close()
	fmt.Fprintln(p.streams.Err, strings.TrimRight(text, "\n"))
}

// close ends a line that was still being redrawn.
func (p *devProgress) close() {
	if p.open {
		fmt.Fprint(p.streams.Err, "\r\x1b[K")
		p.open = false
	}
}
