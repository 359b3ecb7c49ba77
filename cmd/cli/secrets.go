package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

func newSecrets(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secrets",
		Short: "Show and change the secrets of a stack",
		Long: `Show and change the secrets of a stack.

The first deploy generates the secrets. They are stored in Nomad Variables: a
master copy per stack and environment, and for each job a copy of only the secrets
that it uses.`,
		Example: "  drover secrets list ocis -e prod",
	}
	cmd.AddCommand(newSecretsList(streams, f), newSecretsShow(streams, f), newSecretsSet(streams, f),
		newSecretsRotate(streams, f), newSecretsExport(streams, f), newSecretsImport(streams, f))
	return cmd
}

// opened has the secrets of a stack and what the secrets commands need to change
// them.
type opened struct {
	*record.Secrets
	client *api.Client
	stack  *stack.Stack
	jobs   []render.Job

	rotation *release.Rotation // nil for commands that write no variables of jobs
}

// openSecrets reads the stack; withJobs also renders it, for the commands
// that write into the variables of its jobs.
func openSecrets(ctx context.Context, f *factory, flags *stackFlags, arg string, withJobs bool) (opened, error) {
	var (
		o   opened
		err error
	)
	if withJobs {
		o.stack, o.jobs, err = flags.load(ctx, arg)
	} else {
		o.stack, err = flags.stack(ctx, arg)
	}
	if err != nil {
		return o, err
	}
	clients, err := f.connect(ctx, false)
	if err != nil {
		return o, err
	}
	o.client = clients.Nomad
	o.Secrets = record.OpenSecrets(clients.Nomad, o.stack.Name, o.stack.Environment, nil)
	if len(o.jobs) > 0 {
		targets, err := f.targets(ctx, o.stack, o.jobs, false)
		if err != nil {
			return o, err
		}
		o.Secrets = o.At(func(target string) *api.Client { return targets[target].Nomad })
		releases := record.OpenReleases(clients.Nomad, o.stack.Name, o.stack.Environment)
		if o.rotation, err = release.NewRotation(ctx, releases, targets, o.jobs); err != nil {
			return o, err
		}
		o.jobs = o.rotation.Jobs()
	}
	return o, nil
}

// passOn stores the credentials of the stack's DNS providers for the controller, if
// they are secrets and a deployment has stored them before.
func (o opened) passOn(ctx context.Context) error {
	wants := dns.DesiredRecords{Client: o.client}
	for _, d := range o.stack.DNSProviders() {
		if d.CredentialSecret == "" {
			continue
		}
		owner := dns.BlockOwner(dns.Owner(o.stack.Name, o.stack.Environment), d.Name)
		known, err := wants.HasCredential(ctx, owner)
		if err != nil {
			return err
		}
		if !known {
			continue
		}
		value, err := o.Lookup(ctx, d.CredentialSecret)
		if err == nil {
			_, err = wants.PutCredential(ctx, owner, value.Reveal())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// secretsCommand is a subcommand with the flags of a stack.
func secretsCommand(flags *stackFlags, use, short, example string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		return run(cmd.Context(), args)
	}}
	flags.register(cmd)
	hideFlags(cmd, "service") // secrets are the stack's
	return cmd
}

func newSecretsList(streams *IO, f *factory) *cobra.Command {
	var (
		flags  stackFlags
		format string
	)
	cmd := secretsCommand(&flags, "list STACK", "List the secrets of a stack, never their values", "  drover secrets list ocis -e prod", exactArgs(1, "STACK"), func(ctx context.Context, args []string) error {
		if err := oneOf("-o", format, "text", "json"); err != nil {
			return err
		}
		o, unread, err := openRecordedSecrets(ctx, f, &flags, args[0])
		if err != nil {
			return err
		}
		list, err := o.List(ctx, o.stack.Secrets)
		if err != nil {
			return err
		}
		if format == "json" {
			return json.NewEncoder(streams.Out).Encode(list)
		}
		w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tTYPE\tSET\tAGE\t")
		for _, l := range list {
			kind, set, age, note := l.Type, "no", "-", l.Description
			if kind == "" && unread == nil {
				kind, note = "-", "not in the stack"
			}
			kind = dash(kind)
			if l.Set {
				set = "yes"
			}
			if !l.Made.IsZero() {
				age = ago(time.Since(l.Made))
			}
			if !l.Expires.IsZero() {
				note = strings.TrimSpace("expires " + l.Expires.Format(time.DateOnly) + "  " + note)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Name, kind, set, age, note)
		}
		if err := w.Flush(); err != nil || unread == nil {
			return err
		}
		fmt.Fprintf(streams.Err, "Only stored secrets are shown, without their types: the source of stack %s cannot be read: %s\n", o.stack.Name, errorText(unread))
		return nil
	})
	hideFlags(cmd, "target")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// openRecordedSecrets is openSecrets for commands that only read. They work without
// the source of the stack: unread is the error of reading it, nil if it was read.
func openRecordedSecrets(ctx context.Context, f *factory, flags *stackFlags, arg string) (o opened, unread, err error) {
	o, err = openSecrets(ctx, f, flags, arg, false)
	if err == nil || asClusterError(err) != nil {
		return o, nil, err
	}
	unread = err
	name, err := deploy.StackName(arg)
	if err != nil {
		return o, nil, unread
	}
	clients, r, err := f.recorded(ctx, arg, flags.environment)
	if err != nil {
		return o, nil, err
	}
	last, err := r.Last(ctx)
	switch {
	case err != nil:
		return o, nil, err
	case last == nil:
		return o, nil, unread // STACK may be a typo: unread names it
	}
	o = opened{Secrets: record.OpenSecrets(clients.Nomad, name, r.Environment(), nil), client: clients.Nomad, stack: &stack.Stack{Name: name, Environment: r.Environment()}}
	return o, unread, nil
}

func newSecretsShow(streams *IO, f *factory) *cobra.Command {
	var flags stackFlags
	cmd := secretsCommand(&flags, "show STACK NAME", "Print the value of one secret", "  drover secrets show ocis admin_password -e prod", exactArgs(2, "STACK and NAME"), func(ctx context.Context, args []string) error {
		o, _, err := openRecordedSecrets(ctx, f, &flags, args[0])
		if err != nil {
			return err
		}
		v, err := o.Show(ctx, o.stack.Secrets, args[1])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(streams.Out, strings.TrimRight(v.Reveal(), "\n"))
		return err
	})
	hideFlags(cmd, "target")
	return cmd
}

func newSecretsSet(streams *IO, f *factory) *cobra.Command {
	var (
		flags stackFlags
		file  string
	)
	cmd := secretsCommand(&flags, "set STACK NAME", "Give a secret a value, from stdin or a prompt",
		"  drover secrets set ocis admin_password -e prod < password.txt", exactArgs(2, "STACK and NAME (the value comes from stdin)"), func(ctx context.Context, args []string) error {
			o, err := openSecrets(ctx, f, &flags, args[0], true)
			if err != nil {
				return err
			}
			value, err := readSecret(streams, file, args[1])
			if err != nil {
				return err
			}
			jobs, err := o.Set(ctx, o.stack.Secrets, o.jobs, args[1], value)
			if err == nil {
				err = o.passOn(ctx)
			}
			if err != nil {
				return releaseError(err)
			}
			return o.reportChange(ctx, streams, "secret "+args[1]+" set", jobs, []string{args[1]})
		})
	cmd.Flags().StringVar(&file, "file", "", "read the value from this file, without its last line break")
	return cmd
}

// readSecret reads a value from a file, a prompt or stdin. It never takes one from
// the command line, which other users of the machine can see.
func readSecret(streams *IO, file, name string) (secrets.Value, error) {
	var (
		text []byte
		err  error
	)
	in, isFile := streams.In.(*os.File)
	switch {
	case file != "":
		text, err = os.ReadFile(file)
	case isFile && term.IsTerminal(int(in.Fd())):
		fmt.Fprintf(streams.Err, "Value of %s (not shown): ", name)
		text, err = term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(streams.Err)
	default:
		text, err = io.ReadAll(io.LimitReader(streams.In, 64<<10))
	}
	if err != nil {
		return secrets.Value{}, fmt.Errorf("reading the value of secret %s: %w", name, err)
	}
	return secrets.NewValue(strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")), nil
}

func newSecretsRotate(streams *IO, f *factory) *cobra.Command {
	var flags stackFlags
	return secretsCommand(&flags, "rotate STACK NAME", "Make a new value for one secret", "  drover secrets rotate ocis jwt_secret -e prod", exactArgs(2, "STACK and NAME"), func(ctx context.Context, args []string) error {
		o, err := openSecrets(ctx, f, &flags, args[0], true)
		if err != nil {
			return err
		}
		jobs, err := o.Rotate(ctx, o.stack.Secrets, o.jobs, args[1])
		if err == nil {
			err = o.passOn(ctx)
		}
		if err != nil {
			return releaseError(err)
		}
		return o.reportChange(ctx, streams, "secret "+args[1]+" rotated", jobs, o.itemsOf(args[1]))
	})
}

// itemsOf returns the items of a secret.
func (o opened) itemsOf(name string) []string {
	for _, s := range o.stack.Secrets {
		if s.Name == name {
			return s.Items()
		}
	}
	return []string{name}
}

// reportChange prints what was done and how it affects the tasks of jobs, whose
// variables were written. For tasks that do not see the change it prints a command.
func (o opened) reportChange(ctx context.Context, streams *IO, what string, jobs, items []string) error {
	if _, err := fmt.Fprintln(streams.Out, what); err != nil || len(jobs) == 0 || o.rotation == nil {
		return err
	}
	effects, err := o.rotation.Effects(ctx, jobs, items)
	if err != nil {
		return fmt.Errorf("%s, but it cannot be found out what the tasks of %s make of it: %w", what, strings.Join(jobs, ", "), err)
	}
	for _, e := range effects {
		fmt.Fprintln(streams.Out, e)
	}
	if stale := release.Stale(effects); len(stale) > 0 {
		fmt.Fprintf(streams.Err, "Next: drover redeploy %s %s\n", release.StackArgs(o.stack.Name, o.stack.Environment), strings.Join(stale, " "))
	}
	return nil
}

func newSecretsExport(streams *IO, f *factory) *cobra.Command {
	var (
		flags       stackFlags
		format, out string
	)
	cmd := secretsCommand(&flags, "export STACK", "Print all secrets in clear, for a backup", "  drover secrets export ocis -e prod --out secrets.yaml", exactArgs(1, "STACK"), func(ctx context.Context, args []string) error {
		if err := oneOf("-o", format, "yaml", "json"); err != nil {
			return err
		}
		o, _, err := openRecordedSecrets(ctx, f, &flags, args[0])
		if err != nil {
			return err
		}
		text, err := o.Export(ctx, format)
		if err != nil {
			return err
		}
		if out == "" {
			_, err = streams.Out.Write(text)
			return err
		}
		if err := writePrivate(out, text); err != nil {
			return fmt.Errorf("writing the secrets to %s: %w", out, err)
		}
		return nil
	})
	hideFlags(cmd, "target")
	cmd.Flags().StringVarP(&format, "output", "o", "yaml", "yaml or json")
	cmd.Flags().StringVar(&out, "out", "", "write to this new file, readable by you alone")
	return cmd
}

// writePrivate never writes into a file that is there: it might be readable
// by others.
func writePrivate(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(name)
	}
	return err
}

func newSecretsImport(streams *IO, f *factory) *cobra.Command {
	var (
		flags stackFlags
		force bool
	)
	cmd := secretsCommand(&flags, "import STACK FILE", "Take secrets from an export or from an existing ocis.yaml", "  drover secrets import ocis secrets.yaml -e prod", exactArgs(2, "STACK and FILE"), func(ctx context.Context, args []string) error {
		text, err := os.ReadFile(args[1])
		if err != nil {
			return fmt.Errorf("reading the secrets: %w", err)
		}
		o, err := openSecrets(ctx, f, &flags, args[0], true)
		if err != nil {
			return err
		}
		rep, err := o.Import(ctx, o.stack.Secrets, o.jobs, text, force)
		if err == nil {
			err = o.passOn(ctx)
		}
		if err != nil {
			return releaseError(fmt.Errorf("importing %s: %w", args[1], err))
		}
		if len(rep.Missing) > 0 {
			fmt.Fprintf(streams.Err, "not in the file, left to deploy: %s\n", strings.Join(rep.Missing, ", "))
		}
		if len(rep.Ignored) > 0 {
			fmt.Fprintf(streams.Err, "in the file and not in the stack: %s\n", strings.Join(rep.Ignored, ", "))
		}
		return o.reportChange(ctx, streams, fmt.Sprintf("%d imported, %d had this value already", len(rep.Secrets), len(rep.Same)), rep.Jobs, rep.Secrets)
	})
	cmd.Flags().BoolVar(&force, "force", false, "replace values that differ")
	return cmd
}
