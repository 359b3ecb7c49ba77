package cli

import (
	"context"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/controller"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/edge"
)

// controllerFlags are those of drover controller.
type controllerFlags struct {
	certStore
	dns       dnsFlags
	listen    string
	noCheck   bool
	resolvers []string
	challenge int
	edgeAddrs []string
	noConsul  bool
	sweep     bool
}

func newController(streams *IO) *cobra.Command {
	var f controllerFlags
	cmd := &cobra.Command{
		Use:   "controller [STACK]",
		Short: "Renew certificates and keep DNS records, for as long as the cluster runs",
		Long: `Renew certificates and keep DNS records, for as long as the cluster runs.

Every certificate in the store is issued and renewed, and the instances of the
edge are asked whether they serve it. With STACK, its dns block says how DNS-01
is answered, and its records are kept in DNS.

Several may run: one works, the others take over when it ends. All of them
serve /health and /metrics. The log is JSON on stderr.

Registrations in Consul whose allocation is over, left behind by clients that
were lost, are named in the log, and removed with --sweep-orphans.`,
		Example: "  drover controller ocis -e prod --listen 0.0.0.0:9190",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes one STACK at most", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), streams, args)
		},
	}
	f.certStore.register(cmd)
	f.dns.stackFlags.register(cmd)
	_ = cmd.Flags().MarkHidden("service")
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:9190", "HOST:PORT of /health and /metrics")
	fl.BoolVar(&f.noCheck, "no-check", false, "ask CAs without looking first whether the names can be proven")
	fl.IntVar(&f.challenge, "challenge-port", 80, "port at which CAs ask for HTTP-01")
	fl.StringArrayVar(&f.resolvers, "resolver", nil, "DNS server that must show a record of DNS-01, instead of those of the dns block (repeatable)")
	fl.StringArrayVar(&f.edgeAddrs, "edge-address", nil, "HOST:PORT that serves the certificates, instead of those in Consul (repeatable)")
	fl.BoolVar(&f.noConsul, "no-consul", false, "do without Consul: neither look for the edge there nor for registrations left behind")
	fl.BoolVar(&f.sweep, "sweep-orphans", false, "remove registrations in Consul that lost clients left behind, instead of naming them")
	return cmd
}

func (f *controllerFlags) run(ctx context.Context, streams *IO, args []string) error {
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
	f.dns.format, f.dns.timeout = "text", 30*time.Second
	backend, err := f.open(ctx)
	if err != nil {
		return err
	}
	clients, err := connect(ctx, !f.noConsul)
	if err != nil {
		return err
	}
	c := controller.Config{
		Backend: backend, SweepOrphans: f.sweep,
		ACME: acme.Config{Solvers: map[string]acme.Solver{acme.HTTP01: acme.Stateless{SkipCheck: f.noCheck, Port: f.challenge}}},
	}
	c.Nomad = clients.Nomad
	if !f.noConsul {
		c.Consul, c.Edge = clients.Consul, edge.Addresses(clients.Consul)
	}
	if len(f.edgeAddrs) > 0 {
		c.Edge = func(context.Context) ([]string, error) { return f.edgeAddrs, nil }
	}
	if len(args) == 1 {
		if err := f.withStack(ctx, args[0], &c); err != nil {
			return err
		}
	}
	log := controllerLog(streams)
	c.Events = func(e acme.Event) { logEvent(ctx, log, e) }
	if c.Listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen); err != nil {
		return usagef("--listen: %s", err)
	}
	log.InfoContext(ctx, "listening", "address", c.Listener.Addr().String(), "store", backend.Name())
	return controller.Run(ctx, c)
}

// withStack keeps the DNS of a stack and answers DNS-01 there.
func (f *controllerFlags) withStack(ctx context.Context, arg string, c *controller.Config) error {
	// Mistakes are told now, not in the log.
	m, _, s, err := f.dns.open(ctx, arg)
	if err != nil {
		return err
	}
	if _, c.ACME.Issuers, err = acme.FromStack(s); err != nil {
		return certError(err)
	}
	if m != nil {
		solver := dnsSolver(s, m.Provider, f.resolvers, f.noCheck)
		c.ACME.Solvers[acme.DNS01], c.ACME.Solvers[acme.DNSPersist01] = solver, solver
	}
	c.DNS = func(ctx context.Context) (*dns.Manager, []dns.Record, error) {
		m, records, _, err := f.dns.open(ctx, arg)
		return m, records, err
	}
	return nil
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
	case "failed", "held", "warning", "orphan", "drift":
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
