package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strconv"

	capi "github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/controller"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/tenancy"
)

// controllerFlags are those of drover controller.
type controllerFlags struct {
	certStore
	listen    string
	noCheck   bool
	resolvers []string
	challenge int
	edgeAddrs []string
	noConsul  bool
	sweep     bool
	tenancy   string
	autoscale string
	metrics   string // address of Prometheus
}

func newController(streams *IO, clients *factory) *cobra.Command {
	var f controllerFlags
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Renew certificates and keep DNS records, until stopped",
		Long: `Renew certificates and keep DNS records, until stopped.

The controller issues and renews every certificate in the store, and checks that
the edge instances serve it. It keeps the DNS records of every deployed stack that
has a dns block. It answers DNS-01 in the zones of these stacks, with the
credential that credential_secret names. Servers and credentials that are not the
stack's own come from --tenancy (docs/reference/tenancy.md).

Several controllers may run: one is the leader, and another takes over when the
leader ends. All of them serve /health and /metrics. The log is JSON on stderr.

The log also names stale registrations in Consul, whose allocation has ended on a
client that was lost. With --sweep-orphans the controller removes them.

With --autoscale on, the controller evaluates the scaling blocks of the services of
stacks and changes their counts (docs/how-to/autoscaling.md). With dry-run it only
reports what it would do. Use it only where no nomad-autoscaler scales jobs.`,
		Example: "  drover controller --listen 0.0.0.0:9190",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), streams)
		},
	}
	f.certStore.register(cmd, clients)
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:9190", "HOST:PORT of /health and /metrics")
	fl.BoolVar(&f.noCheck, "no-check", false, "do not check first whether the challenges of the names can succeed")
	fl.IntVar(&f.challenge, "challenge-port", 80, "port to which CAs send HTTP-01 requests")
	fl.StringArrayVar(&f.resolvers, "resolver", nil, "DNS server that must return a DNS-01 record before the CA is asked, instead of those of the dns blocks (repeatable)")
	fl.StringArrayVar(&f.edgeAddrs, "edge-address", nil, "HOST:PORT that serves the certificates, instead of the edge instances in Consul (repeatable)")
	fl.BoolVar(&f.noConsul, "no-consul", false, "do not use Consul: find neither edge instances nor stale registrations")
	fl.StringVar(&f.tenancy, "tenancy", "", "`FILE` with the DNS providers of the operator, and what each namespace may claim")
	fl.BoolVar(&f.sweep, "sweep-orphans", false, "remove stale registrations of lost clients from Consul, instead of only logging them")
	fl.StringVar(&f.autoscale, "autoscale", "off", "scale services by their scaling blocks: off, dry-run or on")
	fl.StringVar(&f.metrics, "prometheus", "", "`URL` of Prometheus or VictoriaMetrics for scaling, instead of the service victoria-metrics or prometheus in Consul")
	return cmd
}

func (f *controllerFlags) run(ctx context.Context, streams *IO) error {
	if f.challenge < 1 || f.challenge > 65535 {
		return usagef("--challenge-port %d is no port", f.challenge)
	}
	if f.sweep && f.noConsul {
		return usagef("--sweep-orphans needs Consul, and --no-consul does without")
	}
	for _, a := range f.edgeAddrs {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return usagef("--edge-address: %s", err)
		}
	}
	if err := oneOf("--autoscale", f.autoscale, "off", "dry-run", "on"); err != nil {
		return err
	}
	var table *tenancy.Table
	if f.tenancy != "" {
		text, err := os.ReadFile(f.tenancy)
		if err != nil {
			return err
		}
		if table, err = tenancy.Parse(text, f.tenancy); err != nil {
			return err
		}
	}
	terms, err := deploy.AcceptedTerms(nil, os.Getenv)
	if err != nil {
		return err
	}
	backend, err := f.open(ctx)
	if err != nil {
		return err
	}
	clients, err := f.clients.connect(ctx, !f.noConsul)
	if err != nil {
		return err
	}
	c := controller.Config{
		Backend: backend, SweepOrphans: f.sweep,
		ACME:   acme.Config{Solvers: map[string]acme.Solver{acme.HTTP01: acme.Stateless{SkipCheck: f.noCheck, Port: f.challenge}}, AcceptTerms: terms, Vault: deploy.VaultLogin(os.Getenv)},
		Getenv: os.Getenv, Resolvers: f.resolvers, SkipDNSCheck: f.noCheck,
	}
	c.Nomad, c.Region, c.Namespace, c.Tenancy = clients.Nomad, clients.Defaults.Region, os.Getenv("NOMAD_NAMESPACE"), table
	if !f.noConsul {
		find := edge.Finder{Nomad: clients.Nomad, Consul: clients.Consul, Namespace: os.Getenv(edge.NamespaceEnv), Credentials: os.Getenv(edge.CredentialsEnv)}
		c.Consul, c.Edge, c.Public, c.Finder = clients.Consul, find.Places, find.Public, &find
	}
	if len(f.edgeAddrs) > 0 {
		c.Edge = func(context.Context) (places []edge.Place, err error) {
			for _, a := range f.edgeAddrs {
				places = append(places, edge.Place{Address: a})
			}
			return places, nil
		}
	}
	if f.autoscale != "off" {
		c.Autoscale = f.autoscaler(c)
	}
	log := controllerLog(streams)
	c.Events = func(e acme.Event) { logEvent(ctx, log, e) }
	if c.Listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen); err != nil {
		return usagef("--listen: %s", err)
	}
	log.InfoContext(ctx, "listening", "address", c.Listener.Addr().String(), "store", backend.Name())
	return controller.Run(ctx, c)
}

// autoscaler returns how the controller scales and where it reads metrics.
func (f *controllerFlags) autoscaler(c controller.Config) *controller.Autoscale {
	a := &controller.Autoscale{DryRun: f.autoscale == "dry-run", EdgeCredentials: os.Getenv(edge.CredentialsEnv)}
	switch {
	case f.metrics != "":
		a.Prometheus = func(context.Context) (string, error) { return f.metrics, nil }
	case c.Consul != nil:
		a.Prometheus = func(ctx context.Context) (string, error) { return findPrometheus(ctx, c.Consul) }
	}
	if c.Finder != nil {
		a.Edge = c.Finder.Exporters
	}
	return a
}

// findPrometheus returns the address of a passing instance of the stack monitoring.
func findPrometheus(ctx context.Context, consul *capi.Client) (string, error) {
	for _, name := range []string{"victoria-metrics", "prometheus"} {
		entries, _, err := consul.Health().Service(name, "", true, (&capi.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return "", fmt.Errorf("cannot find %s in Consul: %w", name, err)
		}
		if len(entries) > 0 {
			e := entries[0]
			return "http://" + net.JoinHostPort(cmp.Or(e.Service.Address, e.Node.Address), strconv.Itoa(e.Service.Port)), nil
		}
	}
	return "", errors.New("no service victoria-metrics or prometheus passes its check in Consul: deploy the stack monitoring, or set --prometheus")
}

// privateKey is what no log has. Nothing writes one there; this is for the
// day that an error quotes what it could not read.
var privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`)

func controllerLog(streams *IO) *slog.Logger {
	return slog.New(slog.NewJSONHandler(streams.Err, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(privateKey.ReplaceAllString(a.Value.String(), "(private key)"))
		}
		return a
	}}))
}

func logEvent(ctx context.Context, log *slog.Logger, e acme.Event) {
	level := slog.LevelInfo
	switch e.Kind {
	case "failed", "held", "warning", "orphan", "drift", "refused":
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("event", e.Kind)}
	for _, a := range [][2]string{{"certificate", e.Certificate}, {"issuer", e.Issuer}, {"account", e.Account}, {"serial", e.Serial}} {
		if a[1] != "" {
			attrs = append(attrs, slog.String(a[0], a[1]))
		}
	}
	if len(e.Names) > 0 {
		attrs = append(attrs, slog.Any("names", e.Names))
	}
	if e.Requests > 0 {
		attrs = append(attrs, slog.Int("requests", e.Requests))
	}
	log.LogAttrs(ctx, level, e.Text, attrs...)
}
