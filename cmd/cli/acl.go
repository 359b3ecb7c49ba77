package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/record"
)

func newACL(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "acl",
		Short: "Print and create the ACL policies that drover needs",
		Example: `  drover acl policy --for deployer --stack ocis
  drover acl bootstrap`,
	}
	cmd.AddCommand(newACLPolicy(streams), newACLBootstrap(streams, f))
	return cmd
}

func newACLPolicy(streams *IO) *cobra.Command {
	var (
		use, system string
		scope       acl.Scope
	)
	var words []string
	for _, u := range acl.Uses() {
		words = append(words, string(u))
	}
	cmd := &cobra.Command{
		Use:   "policy --for USE",
		Short: "Print the least ACL policy for one use of drover",
		Long: `Print the Nomad policy and the Consul policy that allow one use of drover and
nothing more. The uses are

  deployer    deploy, roll back, destroy, secrets, certificates
  ci          plan, status, history, logs; no secrets, no deploy
  reader      status, history, logs
  controller  the job drover-controller
  schedule    the job of a schedule; 'drover schedule apply' makes it
  edge        the job edge

It needs no cluster and changes nothing.`,
		Example: `  drover acl policy --for reader
  drover acl policy --for deployer --stack ocis --system nomad | nomad acl policy apply deploy-ocis -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if use == "" {
				return usagef("%s: say what the policy is --for: %s", cmd.CommandPath(), strings.Join(words, ", "))
			}
			if !slices.Contains(words, use) {
				return usagef("%s: --for is one of %s, not %q", cmd.CommandPath(), strings.Join(words, ", "), use)
			}
			for i, name := range scope.Stacks {
				stackName, env, one := strings.Cut(name, "/")
				if scope.Stacks[i] = record.PathName(stackName); one {
					scope.Stacks[i] += "/" + record.PathName(env)
				}
			}
			for _, part := range []struct {
				system, comment string
				policy          acl.Policy
			}{
				{"nomad", "Nomad", scope.Nomad(acl.Use(use))},
				{"consul", "Consul", scope.Consul(acl.Use(use))},
			} {
				switch system {
				case part.system:
					fmt.Fprint(streams.Out, part.policy.Rules)
				case "":
					fmt.Fprintf(streams.Out, "# %s: %s\n%s", part.comment, part.policy.Name, part.policy.Rules)
				case "nomad", "consul":
				default:
					return usagef("%s: --system is nomad or consul, not %q", cmd.CommandPath(), system)
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&use, "for", "", "use: "+strings.Join(words, ", "))
	f.StringVar(&scope.Namespace, "namespace", "default", "Nomad namespace of the jobs")
	f.StringArrayVar(&scope.Stacks, "stack", nil, "`STACK`, or STACK/ENVIRONMENT (repeatable; default all)")
	f.StringArrayVar(&scope.Tenants, "tenant", nil, "other `NAMESPACE` in the controller's table, for --for controller (repeatable)")
	f.BoolVar(&scope.Autoscale, "autoscale", false, "let the controller scale jobs, for --for controller")
	f.StringVar(&system, "system", "", "print only the policy of nomad or consul")
	return cmd
}

func newACLBootstrap(streams *IO, f *factory) *cobra.Command {
	var (
		scope  acl.Scope
		w      acl.Workload
		jwksCA string
	)
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Create all ACL policies, and make Consul trust Nomad's jobs",
		Long: `Create the policies of all uses in Nomad and Consul, and attach the policies of
jobs to their jobs. Create the auth method in Consul with which services and
tasks log in by their workload identity. The command creates no tokens. It is
idempotent: it updates the policies and auth methods that exist.

It needs tokens that may manage ACLs, in NOMAD_TOKEN and CONSUL_HTTP_TOKEN.

Consul verifies identities with the keys of --jwks-url. Without it, the command
copies Nomad's present keys. Nomad rotates them every 30 days: run the command
again before that.`,
		Example: `  drover acl bootstrap
  drover acl bootstrap --namespace shop --jwks-url https://keys.example.org/.well-known/jwks.json --jwks-ca ca.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if jwksCA != "" {
				if w.JWKSURL == "" {
					return usagef("%s: --jwks-ca goes with --jwks-url", cmd.CommandPath())
				}
				pem, err := os.ReadFile(jwksCA)
				if err != nil {
					return err
				}
				w.JWKSCA = string(pem)
			}
			w.Namespaces = []string{scope.Namespace}
			clients, err := f.connect(ctx, true)
			if err != nil {
				return err
			}
			if w.JWKSURL == "" {
				if w.Keys, err = acl.Keys(ctx, clients.Nomad); err != nil {
					return err
				}
			}
			for _, id := range scope.Edges {
				if !strings.HasPrefix(id, edge.ServiceName+"-") {
					return usagef("%s: --edge is edge-NAME, not %q", cmd.CommandPath(), id)
				}
			}
			made, err := acl.Bootstrap(ctx, clients.Nomad, scope, w)
			for _, p := range made {
				if p.Job != "" {
					fmt.Fprintf(streams.Out, "Nomad   %s, of job %s\n", p.Name, p.Job)
				} else {
					fmt.Fprintf(streams.Out, "Nomad   %s\n", p.Name)
				}
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "Nomad   auth method %s\n", acl.LoginMethod)
			made, err = acl.BootstrapConsul(ctx, clients.Consul, scope, w)
			if consulACLsOff(err) {
				fmt.Fprintln(streams.Err, "Consul's ACLs are off: nothing is made there.")
				return nil
			}
			for _, p := range made {
				fmt.Fprintf(streams.Out, "Consul  %s\n", p.Name)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "Consul  auth method %s\n", acl.AuthMethod)
			fmt.Fprintf(streams.Err, "Next: nomad acl token create -type client -policy %s\n", scope.Nomad(acl.Deployer).Name)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&scope.Namespace, "namespace", "default", "Nomad namespace of the jobs")
	fl.StringArrayVar(&scope.Tenants, "tenant", nil, "other `NAMESPACE` in the controller's table (repeatable)")
	fl.StringArrayVar(&scope.Edges, "edge", nil, "`ID` of the job of one more edge (variable name of its stack; repeatable)")
	fl.BoolVar(&scope.Autoscale, "autoscale", false, "let the controller scale jobs")
	fl.StringVar(&w.JWKSURL, "jwks-url", "", "where Consul's servers fetch Nomad's public keys")
	fl.StringVar(&jwksCA, "jwks-ca", "", "`FILE` with the CA of --jwks-url")
	fl.StringArrayVar(&w.Services, "services", nil, "`NAME` of services that jobs in the namespace may register in Consul, * for any characters (repeatable; default all)")
	fl.StringArrayVar(&w.TaskJobs, "task-jobs", []string{"ocis-*", "mesh-ocis"}, "`ID` of jobs whose tasks register --task-services, * for any characters (repeatable)")
	fl.StringArrayVar(&w.TaskServices, "task-services", nil, "prefix of services that tasks register by themselves: com.owncloud. of oCIS (repeatable)")
	return cmd
}

// consulACLsOff recognises the answer of a Consul without ACLs.
func consulACLsOff(err error) bool {
	var status capi.StatusError
	return errors.As(err, &status) && status.Code == http.StatusUnauthorized
}
