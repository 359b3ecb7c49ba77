package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/importer"
	inputs "github.com/drover-nomad/drover/importer/formats"
)

func newImport(streams *IO) *cobra.Command {
	var (
		src                         importer.Source
		format, out, service        string
		images, ports, hosts, kinds []string
		routes, publish             []string
		inspect                     string
		single                      bool
		chart                       string
		values                      []string
	)
	cmd := &cobra.Command{
		Use:   "import [FORMAT] FILE…",
		Short: "Make a stack of an application of another platform",
		Long: `Make a stack of an application that was written for another platform.

FORMAT is compose (Docker Compose files and Swarm stacks), kubernetes (manifests, as
from kustomize build and helm template), marathon (apps, groups and pods of Mesos
Marathon), ecs (task definitions, services and CloudFormation templates of Amazon ECS)
or nomad (job files of Nomad, also of 0.1 to 0.12, and jobs of its API in JSON). Without
it, the command recognises the format. Several FILEs are merged in their
order, as by the tool of the format. A directory stands for the YAML and JSON files
directly in it, "-" for the standard input. A FILE with the name of a format is ./FILE.
With --chart, the manifests are those that the helm on PATH makes of a Helm chart.

The command reads the files and those that they name, which must be in the Git
repository or the directory of the first FILE (--root). It starts nothing but helm, and
makes no request. With --inspect-images, docker says which ports an image has, or skopeo,
which asks the registry.

It writes a stack into the directory --out, which must be empty or absent: stack.hcl,
one job spec for each service, and IMPORT.md, which lists everything that differs with
its file and line. Secrets are only in secrets.yaml (mode 0600), for drover secrets
import. With --single, it prints one job spec and writes nothing.

The exit code is 0 for a stack, with warnings or without. It is 2 if the input is
refused: nothing is written then. --allow RULE turns the refusals of a rule into
warnings; docs/reference/import.md describes the rules.`,
		Example: `  drover import compose.yaml --out mystack
  drover import compose.yaml compose.prod.yaml --name shop --port db=5432 --out shop
  helm template shop ./chart | drover import kubernetes - --out shop
  drover import --chart ./chart --values prod.yaml --out shop
  drover import compose web.yaml --single | nomad job run -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && chart == "" {
				return usagef("%s: give FILE…", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			if err := importFlags(&src, images, ports, hosts, kinds, routes, publish); err != nil {
				return err
			}
			name, err := importInputs(cmd, streams, &src, args, chart, values)
			if err != nil {
				return err
			}
			src.Environ = os.Environ()
			if _, err := os.Stat(inspect); err != nil && inspect != "" && inspect != inspectByProgram {
				return usagef("--inspect-images: cannot read %s: %s", inspect, errors.Unwrap(err))
			}
			if inspect != "" {
				src.ExposedPorts = exposedPorts(cmd.Context(), inspect)
			}
			res, err := inputs.Run(cmd.Context(), name, src)
			if errors.Is(err, inputs.ErrUnknown) {
				return usagef("%s", err)
			}
			if err != nil {
				return err
			}
			if out == "" {
				out = res.Name
			}
			switch {
			case res.Refused():
				if err := printImport(streams, res, format, ""); err != nil {
					return err
				}
				return errSilent{exitUsage}
			case single:
				return printSingle(streams, res, service)
			}
			err = res.WriteTo(out)
			if errors.Is(err, importer.ErrNotEmpty) {
				return usagef("%s is not empty: drover import overwrites nothing; name another directory with --out", out)
			}
			if err != nil {
				return err
			}
			return printImport(streams, res, format, out)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&format, "output", "o", "text", "text or json")
	fl.StringVar(&out, "out", "", "directory of the stack; the name of the stack in the current directory if not given")
	fl.StringVar(&src.Name, "name", "", "name of the stack")
	fl.StringVar(&chart, "chart", "", "Helm chart to import, a directory or an archive; calls the helm on PATH")
	fl.StringArrayVar(&values, "values", nil, "file of values for --chart (repeatable)")
	fl.StringVar(&src.Root, "root", "", "directory that files named by the input must be in")
	fl.StringArrayVar(&src.Profiles, "profile", nil, "profile of Compose to import (repeatable)")
	fl.StringArrayVar(&src.EnvFiles, "env-file", nil, "file of variables instead of .env (repeatable)")
	fl.StringArrayVar(&images, "image", nil, "image of a service: SERVICE=REF (repeatable)")
	fl.StringArrayVar(&ports, "port", nil, "port by which others reach a service: SERVICE=PORT (repeatable)")
	fl.StringArrayVar(&hosts, "host", nil, "address of a name outside the input: NAME=ADDRESS (repeatable)")
	fl.StringArrayVar(&routes, "route", nil, "public name of a service, with TLS: SERVICE=HOST or SERVICE=HOST/PATH (repeatable)")
	fl.StringArrayVar(&publish, "publish", nil, "how published ports are published: mesh, static or edge, or SERVICE=mesh, … (repeatable)")
	fl.StringVar(&inspect, "inspect-images", "", "find ports in the images, with docker or skopeo on PATH, or in this OCI layout or archive of docker save: --inspect-images[=PATH]")
	fl.Lookup("inspect-images").NoOptDefVal = inspectByProgram
	fl.StringVar(&src.Network, "network", importer.NetworkMesh, "how services reach one another: mesh, gateway, consul-dns or host")
	fl.StringArrayVar(&kinds, "kind", nil, "type of a service's job: SERVICE=service, batch, system or sysbatch (repeatable)")
	fl.StringArrayVar(&src.Allow, "allow", nil, "turn the refusals of this rule into warnings (repeatable)")
	fl.BoolVar(&src.DropBinds, "drop-binds", false, "leave out directories that are mounted from beside the input")
	fl.BoolVar(&src.KeepProxy, "keep-proxy", false, "import a reverse proxy although the edge has its routes")
	fl.BoolVar(&single, "single", false, "print one job spec instead of writing a stack")
	fl.StringVar(&service, "service", "", "the service of --single")
	return cmd
}

// importInputs reads the inputs, and returns the format that the arguments name.
func importInputs(cmd *cobra.Command, streams *IO, src *importer.Source, args []string, chart string, values []string) (string, error) {
	if chart == "" && len(values) > 0 {
		return "", usagef("--values is for --chart")
	}
	if chart == "" {
		name, files, err := importFormat(cmd, args)
		if err == nil {
			src.Inputs, err = readInputs(streams.In, files)
		}
		return name, err
	}
	if len(args) > 0 && args[0] != "kubernetes" {
		return "", usagef("--chart is for kubernetes, and not for %s", args[0])
	}
	in, err := renderChart(cmd.Context(), chart, src.Name, values)
	if err != nil {
		return "", err
	}
	src.Inputs = []importer.Input{in}
	if len(args) > 1 {
		more, err := readInputs(streams.In, args[1:])
		if err != nil {
			return "", err
		}
		src.Inputs = append(src.Inputs, more...)
	}
	return "kubernetes", nil
}

// importFormat takes the format from the arguments, if the first one names it. The name
// alone is a file, if there is one.
func importFormat(cmd *cobra.Command, args []string) (string, []string, error) {
	if !slices.Contains(inputs.Names(), args[0]) {
		return "", args, nil
	}
	if len(args) > 1 {
		return args[0], args[1:], nil
	}
	if _, err := os.Stat(args[0]); err != nil {
		return "", nil, usagef("%s: give FILE…", cmd.CommandPath())
	}
	return "", args, nil
}

// importFlags puts the flags of the form KEY=VALUE into src, and checks --allow.
func importFlags(src *importer.Source, images, ports, hosts, kinds, routes, publish []string) error {
	pairs := func(flag string, all []string) (map[string]string, error) {
		out := map[string]string{}
		for _, kv := range all {
			k, v, ok := strings.Cut(kv, "=")
			if !ok || k == "" || v == "" {
				return nil, usagef("--%s %q is not of the form NAME=VALUE", flag, kv)
			}
			out[k] = v
		}
		return out, nil
	}
	var err error
	if src.Images, err = pairs("image", images); err != nil {
		return err
	}
	if src.Hosts, err = pairs("host", hosts); err != nil {
		return err
	}
	if src.Kinds, err = pairs("kind", kinds); err != nil {
		return err
	}
	for name, kind := range src.Kinds {
		if err := oneOf("--kind "+name, kind, importer.KindService, importer.KindBatch, importer.KindSystem, importer.KindSysbatch); err != nil {
			return err
		}
	}
	src.Publish = map[string]string{}
	for _, kv := range publish {
		name, mode, ok := strings.Cut(kv, "=")
		if !ok {
			name, mode = "", kv
		}
		if err := oneOf("--publish", mode, importer.PublishMesh, importer.PublishStatic, importer.PublishEdge); err != nil {
			return err
		}
		src.Publish[name] = mode
	}
	if err := oneOf("--network", src.Network, importer.NetworkMesh, importer.NetworkGateway, importer.NetworkConsulDNS, importer.NetworkHost); err != nil {
		return err
	}
	src.Ports = map[string][]int{}
	for _, kv := range ports {
		name, text, ok := strings.Cut(kv, "=")
		number, err := strconv.Atoi(text)
		if !ok || err != nil || number < 1 || number > 65535 {
			return usagef("--port %q is not of the form SERVICE=PORT", kv)
		}
		src.Ports[name] = append(src.Ports[name], number)
	}
	src.Routes = map[string][]string{}
	for _, kv := range routes {
		name, route, ok := strings.Cut(kv, "=")
		if !ok || name == "" || !importer.IsRoute(route) {
			return usagef("--route %q is not of the form SERVICE=HOST/PATH, with a host name and a plain path", kv)
		}
		src.Routes[name] = append(src.Routes[name], route)
	}
	for _, rule := range src.Allow {
		if !importer.IsRule(rule) {
			return usagef("--allow: there is no rule %q; docs/reference/import.md lists them", rule)
		}
	}
	return nil
}

// readInputs reads files of at most importer.MaxFile bytes.
func readInputs(stdin io.Reader, names []string) ([]importer.Input, error) {
	var all []importer.Input
	names, err := expandDirs(names)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		from := stdin
		if name != "-" {
			info, err := os.Stat(name)
			if err != nil {
				return nil, usagef("cannot read %s: %s", name, errors.Unwrap(err))
			}
			if !info.Mode().IsRegular() {
				return nil, usagef("%s is no file", name)
			}
			f, err := os.Open(name)
			if err != nil {
				return nil, fmt.Errorf("reading the input: %w", err)
			}
			defer func() { _ = f.Close() }()
			from = f
		}
		text, err := io.ReadAll(io.LimitReader(from, importer.MaxFile+1))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		if len(text) > importer.MaxFile {
			return nil, usagef("%s has more than %d MiB", name, importer.MaxFile>>20)
		}
		all = append(all, importer.Input{Name: name, Text: text})
	}
	return all, nil
}

// expandDirs replaces directories by the YAML and JSON files directly in them, in the
// order of their names, as kubectl does.
func expandDirs(names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		info, err := os.Stat(name)
		if name == "-" || err != nil || !info.IsDir() {
			all = append(all, name)
			continue
		}
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, fmt.Errorf("reading the input: %w", err)
		}
		before := len(all)
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
				all = append(all, filepath.Join(name, e.Name()))
			}
		}
		if len(all) == before {
			return nil, usagef("%s has no file that ends with .yaml, .yml or .json", name)
		}
	}
	return all, nil
}

// printSingle prints the job spec of the only service, or of the one named.
func printSingle(streams *IO, res *importer.Result, service string) error {
	printFindings(streams.Err, res)
	var names []string
	for _, j := range res.Jobs {
		if j.Service == service || service == "" && res.Imported(j.Service) {
			names = append(names, j.Service)
		}
	}
	if len(names) != 1 {
		for _, j := range res.Jobs {
			if !slices.Contains(names, j.Service) {
				names = append(names, j.Service)
			}
		}
		return usagef("--single prints one job spec, and the stack has %s; name one with --service", strings.Join(names, ", "))
	}
	for _, j := range res.Jobs {
		if j.Service == names[0] {
			if _, err := streams.Out.Write(j.HCL); err != nil {
				return err
			}
		}
	}
	return nil
}

func printFindings(w io.Writer, res *importer.Result) {
	for _, f := range res.Findings {
		if f.Severity != importer.LeftOut {
			fmt.Fprintln(w, f)
		}
	}
}

// printImport prints what came of an import. dir is "" after a refusal.
func printImport(streams *IO, res *importer.Result, format, dir string) error {
	if format == "json" {
		enc := json.NewEncoder(streams.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(struct {
			*importer.Result
			Refused bool   `json:"refused"`
			Dir     string `json:"dir,omitempty"`
		}{res, res.Refused(), dir})
	}
	printFindings(streams.Err, res)
	if dir == "" {
		fmt.Fprintln(streams.Err, "The input is refused; nothing was written.")
		return nil
	}
	warnings := 0
	for _, f := range res.Findings {
		if f.Severity == importer.Warning {
			warnings++
		}
	}
	fmt.Fprintf(streams.Out, "%s: the stack %q, %d warnings. Read %s, then 'drover lint %s'.\n", dir, res.Name, warnings, filepath.Join(dir, "IMPORT.md"), dir)
	return nil
}
