package importer

import "strconv"

// Rules that every reader may use. Each is described in docs/reference/import.md.
const (
	RuleInvalid     = "invalid"
	RuleNotImported = "not-imported"
	RuleLeftOut     = "left-out"
)

// Rule is a kind of finding.
type Rule struct {
	Name string
	Why  string
}

// Rules are all rules in the order of docs/reference/import.md.
func Rules() []Rule {
	return []Rule{
		{RuleInvalid, "The input is not what its own tool accepts, or the stack could not be written from it. It cannot be allowed."},
		{"no-input", "No file has anything that can be imported."},
		{"outside-project", "The input names a file outside its project. `--root DIR` says how far it may reach."},
		{"missing-file", "The input names a file that does not exist."},
		{"file-too-big", "A file of more than 64 KiB, or 256 KiB in one job, does not fit into a job spec. Put it into the image."},
		{"needs-image", "The image is built from source, which import does not do. Build and push it, and say `--image SERVICE=REF`."},
		{"unknown-port", "Another service reaches this one by name, or may, and nothing says on which port. Say `--port SERVICE=PORT`."},
		{"udp-name", "Other services may reach a UDP port by name, which the mesh does not carry."},
		{"udp-static", "A published UDP port is a static port of the node, so that one instance fits on a node and none starts beside its predecessor."},
		{"port-conflict", "Two tasks of one group, or two listeners of a node, need the same port."},
		{"random-port", "A port without a number on the host is registered in Consul only."},
		{"name-collision", "Two names are equal after they were made valid for Nomad and Consul."},
		{"renamed", "A name is not valid for Nomad or Consul and was changed."},
		{"bind-source", "A directory with source code is mounted. The code must be in the image; `--drop-binds` leaves such mounts out."},
		{"bind-as-volume", "A directory beside the input becomes a host volume. Copy its content there."},
		{"bind-read-only", "A file that the container may write is mounted read-only, because it is a part of the job."},
		{"host-path", "A path of the node is mounted. It must exist on each node that runs the job, and the docker plugin must allow it."},
		{"docker-socket", "The container controls the node's Docker engine: it sees every container of Nomad and can become root."},
		{"no-copy-up", "Docker copies what the image has at this path into an empty volume. Nomad does not."},
		{"volume-driver", "The volume is not on the node's disk. Nomad needs a CSI plugin for it."},
		{"volume-external", "The volume must exist in Nomad under this name."},
		{"volume-shared", "Several instances write to one volume, which is on one node."},
		{"mount-kind", "Nomad has no mount of this kind."},
		{"no-memory", "The input does not limit memory. Nomad must reserve some; set `memory` of the stack."},
		{"no-isolation", "Nomad does not separate networks: every allocation can reach every address."},
		{"network-external", "The network belongs to another application. Say the addresses of its names with `--host NAME=ADDRESS`."},
		{"network-address", "Addresses of containers are given by Nomad."},
		{"registry-auth", "Credentials of a registry belong into the configuration of the Nomad clients."},
		{"aws-identity", "Tasks have no credentials of AWS on Nomad."},
		{"exec-driver", "A command without an image runs with Nomad's exec driver, which shows it a part of the node's files."},
		{"needs-client", "The clients must allow this in their configuration."},
		{"node-meta", "The constraint reads a value that the operator must write into `meta` of the Nomad clients."},
		{"unset-variable", "A variable has neither a value nor a default, and is empty, as for the tool of the format."},
		{"embedded-dns", "The input uses the DNS server of its own platform, which does not exist on Nomad."},
		{"health", "A health check differs on Nomad."},
		{"restart", "Restarts differ on Nomad."},
		{"update", "Updates differ on Nomad."},
		{"kill-timeout", "Nomad clients cut a longer kill_timeout down to their max_kill_timeout (30s by default)."},
		{"depends-on", "The order of services differs on Nomad."},
		{"route", "A route cannot be had from the edge, or not in this way."},
		{"forward-auth", "Another service decides whether a request is allowed. The edge asks it, if it is a service of the input and the operator of the edge allows it."},
		{"proxy", "A reverse proxy that reads labels from Docker does not work on Nomad."},
		{"logging", "With another log driver, `drover logs` and `nomad alloc logs` are empty."},
		{"hook", "A hook runs in its own task, or cannot run."},
		{"init-order", "Init containers run one after the other; prestart tasks of Nomad all start at once."},
		{"scaling", "Instances are not added and removed by load without the Nomad Autoscaler."},
		{"cpu-limit", "Nomad limits a task to the CPU that it reserves, or not at all. The container may use more than its limit."},
		{"needs-kubernetes", "The program calls Kubernetes' API, which does not exist on Nomad."},
		{"custom-resource", "A program in Kubernetes decides what this object means. Import what it makes of it. Allowed, it is left out."},
		{"not-rendered", "The input is a source of manifests and not the manifests. Render it first, with `helm template` or `kustomize build`."},
		{"device", "A device needs a plugin on the clients."},
		{"unsupported", "Nomad has nothing of this kind."},
		{"vault", "Since Nomad 1.10, a task has a token of Vault by its identity, and no job file has tokens."},
		{"twice", "A value is given twice, or names something that does not exist; Nomad refuses that now."},
		{"minimum", "The value is less than Nomad takes, and was raised."},
		{"incomplete", "The job has no task with a driver: Nomad parses it and does not run it."},
		{"odd-number", "A number with a leading zero was octal in HCL1 and is decimal in HCL2."},
		{"schedule", "Nomad does not take this schedule."},
		{RuleNotImported, "The importer does not know this value."},
		{RuleLeftOut, "The value has no effect when the application runs."},
	}
}

// IsRule reports whether there is a rule of this name.
func IsRule(name string) bool {
	for _, r := range Rules() {
		if r.Name == name {
			return true
		}
	}
	return false
}

func itoa(n int) string { return strconv.Itoa(n) }
