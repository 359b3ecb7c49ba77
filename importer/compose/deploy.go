package compose

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render/lint"
)

// restart maps restart and says whether the service runs to an end.
func (s *service) restart() {
	at := s.at.get("restart")
	at.take()
	policy, attempts, _ := strings.Cut(s.cfg.Restart, ":")
	n, _ := strconv.Atoi(attempts)
	ends := s.runsToEnd()
	switch policy {
	case "always", "unless-stopped":
		if ends {
			at.warn("restart", fmt.Sprintf("%s is to end, since another service waits for it, and to start again", s.cfg.Name), "It runs as a batch job and starts again only after a failure.")
			s.s.Kind = importer.KindBatch
		}
	case "on-failure":
		if ends || !s.hasPort() && s.kind() == importer.KindBatch {
			s.s.Kind = importer.KindBatch
			s.s.Restart = &importer.Restart{Attempts: cmp.Or(n, 20), Interval: 24 * time.Hour, Delay: time.Second, Mode: "fail"}
		} else {
			at.warn("restart", fmt.Sprintf("%s starts again also when it ends without a failure", s.cfg.Name), fmt.Sprintf("If it runs to an end, import with --kind %s=batch.", s.cfg.Name))
			if n > 0 {
				s.s.Restart = &importer.Restart{Attempts: n, Interval: 30 * time.Minute, Delay: time.Second, Mode: "fail"}
			}
		}
	case "no":
		switch {
		case ends || s.kind() == importer.KindBatch || !s.hasPort() && s.kind() == "":
			s.s.Kind = importer.KindBatch
			s.s.Restart = &importer.Restart{Mode: "fail"}
		default:
			s.s.Restart = &importer.Restart{Mode: "fail"}
		}
	default:
		if ends || s.kind() == importer.KindBatch {
			s.s.Kind = importer.KindBatch
			s.s.Restart = &importer.Restart{Mode: "fail"}
		} else if s.mayEnd() {
			s.ledger.Warn(s.s.At, "restart", fmt.Sprintf("%s says nothing about restart and has no port: it starts again when it ends, as a service", s.cfg.Name), fmt.Sprintf("If it runs to an end, import with --kind %s=batch.", s.cfg.Name))
		}
	}
	if k := s.kind(); k != "" {
		s.s.Kind = k
	}
	s.s.Once = s.s.Kind == importer.KindBatch && s.s.Restart != nil && s.s.Restart.Attempts == 0
}

// kind is what the operator says of the service.
func (s *service) kind() string { return s.src.Kinds[s.cfg.Name] }

func (s *service) hasPort() bool {
	return len(s.cfg.Ports)+len(s.cfg.Expose) > 0 || s.cfg.HealthCheck != nil
}

// mayEnd reports whether nothing says that a service without a restart policy runs for
// ever.
func (s *service) mayEnd() bool {
	d := s.cfg.Deploy
	return s.kind() == "" && !s.hasPort() && (d == nil || d.RestartPolicy == nil && d.Mode != "global") && !importer.KnownImage(s.t.ImageRef).Known
}

// runsToEnd reports whether another service waits until this one has ended.
func (s *service) runsToEnd() bool {
	for _, other := range s.project.Services {
		if other.DependsOn[s.cfg.Name].Condition == types.ServiceConditionCompletedSuccessfully {
			return true
		}
	}
	return false
}

func (s *service) deploy() {
	at, d := s.at.get("deploy"), s.cfg.Deploy
	for _, n := range at {
		n.Fields()
	}
	count := s.cfg.GetScale()
	if count != 1 {
		s.s.Count = &count
	}
	if d == nil {
		s.writers(count)
		return
	}
	at.takeEach("mode", "replicas")
	s.extensions(at)
	switch d.Mode {
	case "global":
		s.s.Kind, s.s.Count = importer.KindSystem, nil
	case "replicated-job":
		s.s.Kind = importer.KindBatch
	case "global-job":
		s.s.Kind, s.s.Count = importer.KindSysbatch, nil
	}
	s.writers(count)
	if d.EndpointMode == "dnsrr" {
		at.get("endpoint_mode").warn("embedded-dns", fmt.Sprintf("the name %s leads to one address and not to those of all instances", s.cfg.Name), "Ask Consul for the instances, if the program needs them.")
	}
	at.take("endpoint_mode")
	s.updateConfig(at.get("update_config"), d.UpdateConfig)
	at.get("rollback_config").drop("Nomad goes back with the rules of update")
	s.restartPolicy(at.get("restart_policy"), d.RestartPolicy)
	s.placement(at.get("placement"), d.Placement)
}

// writers refuses several instances that write to one volume.
func (s *service) writers(count int) {
	if s.s.Kind == importer.KindSystem {
		for _, v := range s.s.Volumes {
			s.ledger.Warn(s.s.At, "volume-shared", fmt.Sprintf("%s runs on every node, and the volume %s is on one", s.cfg.Name, v.Source), "Make the volume on each node (nomad volume create), or mount a path of the nodes.")
		}
		return
	}
	if count < 2 {
		return
	}
	for i, v := range s.s.Volumes {
		if v.ReadOnly {
			continue
		}
		s.ledger.Refuse(s.s.At, "volume-shared", fmt.Sprintf("%d instances of %s write to the volume %s, which is on one node", count, s.cfg.Name, v.Source), "Run one instance, or give each its own service. Allowed, all run on that node.")
		s.s.Volumes[i].Shared = true
	}
}

func (s *service) updateConfig(at nodes, c *types.UpdateConfig) {
	for _, n := range at {
		n.Fields()
	}
	s.extensions(at)
	if c == nil {
		return
	}
	at.takeEach("parallelism", "delay", "monitor", "failure_action", "order")
	u := s.update()
	parallel := 1
	if c.Parallelism != nil {
		parallel = int(*c.Parallelism)
		if parallel == 0 {
			parallel = max(s.cfg.GetScale(), 1)
		}
	}
	u.MaxParallel = &parallel
	if c.Delay > 0 && c.Monitor > 0 {
		shorter := map[bool]string{true: "delay", false: "monitor"}[c.Delay <= c.Monitor]
		at.get(shorter).drop("min_healthy_time is the longer one of delay and monitor")
	}
	if wait := max(time.Duration(c.Delay), time.Duration(c.Monitor)); wait > 0 {
		u.MinHealthyTime = &wait
		if wait >= 5*time.Minute || u.HealthyDeadline != nil {
			deadline := wait + 5*time.Minute
			if u.HealthyDeadline != nil {
				deadline = wait + *u.HealthyDeadline
			}
			progress := 2 * deadline
			u.HealthyDeadline, u.ProgressDeadline = &deadline, &progress
		}
	}
	zero, yes, no := 0, true, false
	if c.Order == "start-first" {
		u.Canary, u.AutoPromote = &parallel, &yes
	} else {
		u.Canary, u.AutoPromote = &zero, &no
	}
	switch c.FailureAction {
	case "rollback":
		u.AutoRevert = &yes
	case "continue":
		at.get("failure_action").warn("update", "an update that fails is reverted and does not continue", "Set auto_revert = false, if the broken version may stay.")
	case "pause":
		u.AutoRevert = &no
	}
	if c.MaxFailureRatio > 0 {
		at.get("max_failure_ratio").warn("update", "a failed instance fails the update, whatever the ratio", "Nomad has no such limit.")
	}
	at.take("max_failure_ratio")
}

func (s *service) restartPolicy(at nodes, c *types.RestartPolicy) {
	for _, n := range at {
		n.Fields()
	}
	s.extensions(at)
	if c == nil {
		return
	}
	at.takeEach("condition", "delay", "max_attempts", "window")
	r := &importer.Restart{Attempts: 20, Interval: 5 * time.Minute, Delay: 5 * time.Second, Mode: "delay"}
	if c.Delay != nil {
		r.Delay = max(time.Duration(*c.Delay), time.Second)
	}
	if c.MaxAttempts != nil && *c.MaxAttempts > 0 {
		r.Attempts, r.Mode = int(min(*c.MaxAttempts, 1000)), "fail"
	}
	if c.Window != nil && *c.Window > 0 {
		r.Interval = max(time.Duration(*c.Window), 5*time.Second)
	}
	// Nomad refuses more attempts than fit into the interval.
	if need := time.Duration(r.Attempts) * r.Delay; need > r.Interval {
		r.Interval = need + r.Delay
	}
	switch c.Condition {
	case "none":
		r.Attempts, r.Mode = 0, "fail"
		if s.s.Kind == "" && !s.hasPort() && s.kind() == "" {
			s.s.Kind = importer.KindBatch
		}
	case "on-failure":
		if s.s.Kind == "" || s.s.Kind == importer.KindService {
			at.get("condition").warn("restart", fmt.Sprintf("%s starts again also when it ends without a failure", s.cfg.Name), fmt.Sprintf("If it runs to an end, import with --kind %s=batch.", s.cfg.Name))
		}
	}
	s.s.Restart = r
}

var constraint = regexp.MustCompile(`^\s*([\w.-]+)\s*(==|!=)\s*(.+?)\s*$`)

func (s *service) placement(at nodes, p types.Placement) {
	for _, n := range at {
		n.Fields()
	}
	s.extensions(at)
	at.takeEach("constraints", "preferences", "max_replicas_per_node")
	constraints := at.get("constraints")
	for _, text := range p.Constraints {
		m := constraint.FindStringSubmatch(text)
		if m == nil {
			constraints.warn("node-meta", fmt.Sprintf("the constraint %q cannot be read", text), "Write it as a constraint block of the job.")
			continue
		}
		op := ""
		if m[2] == "!=" {
			op = "!="
		}
		attribute := ""
		switch key := m[1]; {
		case key == "node.hostname" || key == "node.id":
			attribute = "${node.unique.name}"
		case key == "node.platform.os":
			attribute = "${attr.kernel.name}"
		case key == "node.platform.arch":
			attribute = "${attr.cpu.arch}"
			m[3] = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[m[3]] + strings.TrimPrefix(strings.TrimPrefix(m[3], "x86_64"), "aarch64")
		case key == "node.role":
			if m[3] == "manager" && op == "" || m[3] == "worker" && op == "!=" {
				constraints.warn("node-meta", fmt.Sprintf("%s is to run on a manager of the Swarm; it may run on any node", s.cfg.Name), "Write a constraint block, if it needs certain nodes.")
			}
			continue
		case strings.HasPrefix(key, "node.labels."), strings.HasPrefix(key, "engine.labels."):
			name := key[strings.Index(key, "labels.")+len("labels."):]
			attribute = "${meta." + strings.ReplaceAll(name, ".", "_") + "}"
			s.ledger.Warn(constraints.pos(), "node-meta", fmt.Sprintf("%s runs on nodes with %s %s %q", s.cfg.Name, attribute, cmp.Or(op, "="), m[3]), "Write it into meta of the Nomad clients.")
		default:
			constraints.warn("node-meta", fmt.Sprintf("the constraint %q has no counterpart", text), "Write a constraint block of the job.")
			continue
		}
		s.s.Constraints = append(s.s.Constraints, importer.Constraint{Attribute: attribute, Operator: op, Value: m[3]})
	}
	for _, p := range p.Preferences {
		name, ok := strings.CutPrefix(p.Spread, "node.labels.")
		if !ok {
			name = strings.TrimPrefix(p.Spread, "engine.labels.")
		}
		s.ledger.Warn(at.get("preferences").pos(), "node-meta", fmt.Sprintf("the instances of %s spread over meta.%s of the nodes", s.cfg.Name, name), "Write it into meta of the Nomad clients.")
		s.s.Spreads = append(s.s.Spreads, "${meta."+strings.ReplaceAll(name, ".", "_")+"}")
	}
	switch {
	case p.MaxReplicas == 1:
		s.s.Constraints = append(s.s.Constraints, importer.Constraint{Operator: "distinct_hosts", Value: "true"})
	case p.MaxReplicas > 1:
		s.s.Constraints = append(s.s.Constraints, importer.Constraint{Attribute: "${node.unique.id}", Operator: "distinct_property", Value: fmt.Sprint(p.MaxReplicas)})
	}
}

func megabytes(b types.UnitBytes) int {
	if b <= 0 {
		return 0
	}
	return max(int((int64(b)+(1<<20)-1)>>20), 10)
}

func (s *service) resources() {
	cfg, r := s.cfg, &s.t.Resources
	s.at.takeEach("mem_limit", "mem_reservation", "cpus", "cpu_shares", "cpu_quota", "cpu_period", "pids_limit")
	r.MemoryMax, r.Memory = megabytes(cfg.MemLimit), megabytes(cfg.MemReservation)
	r.CoresLimit = float64(cfg.CPUS)
	if cfg.CPUQuota > 0 && r.CoresLimit == 0 {
		r.CoresLimit = float64(cfg.CPUQuota) / float64(cmp.Or(cfg.CPUPeriod, 100000))
	}
	if cfg.CPUShares > 0 {
		r.Cores = float64(cfg.CPUShares) / 1024
	}
	pids := cfg.PidsLimit
	at := s.at.get("deploy", "resources")
	for _, n := range at {
		n.Fields()
	}
	s.extensions(at)
	if cfg.Deploy != nil {
		if l := cfg.Deploy.Resources.Limits; l != nil {
			s.limits(at.get("limits"))
			r.MemoryMax = cmp.Or(megabytes(l.MemoryBytes), r.MemoryMax)
			r.CoresLimit = cmp.Or(float64(l.NanoCPUs.Value()), r.CoresLimit)
			pids = cmp.Or(l.Pids, pids)
		}
		if l := cfg.Deploy.Resources.Reservations; l != nil {
			s.limits(at.get("reservations"))
			r.Memory = cmp.Or(megabytes(l.MemoryBytes), r.Memory)
			r.Cores = cmp.Or(float64(l.NanoCPUs.Value()), r.Cores)
			s.devices(at.get("reservations", "devices"), l.Devices)
			if len(l.GenericResources) > 0 {
				at.get("reservations", "generic_resources").warn("device", "generic resources of Swarm have no counterpart", "Write a device block or a constraint.")
			}
		}
	}
	if mb := s.memory[s.cfg.Name]; mb > 0 {
		r.Memory, r.MemoryMax = mb, max(r.MemoryMax, mb)
	}
	for _, n := range at {
		n.Get("limits").Fields()
		n.Get("reservations").Fields()
	}
	if r.CoresLimit > 0 && r.Cores > 0 {
		at.get("reservations", "cpus").drop("Nomad reserves as much CPU as it limits")
		s.at.get("cpu_shares").drop("Nomad reserves as much CPU as it limits")
	}
	if r.CoresLimit > 0 && r.Cores > r.CoresLimit {
		r.Cores = r.CoresLimit
	}
	if cfg.CPUQuota == 0 {
		s.at.get("cpu_period").drop("cpu_period has no effect without cpu_quota")
	}
	s.devices(s.at.get("gpus"), cfg.Gpus)
	if pids > 0 {
		s.set("pids_limit", fmt.Sprint(pids))
	}
	for _, key := range []string{"memswap_limit", "mem_swappiness", "oom_kill_disable", "blkio_config", "cpu_rt_period", "cpu_rt_runtime", "cpu_count", "cpu_percent", "credential_spec", "isolation", "cgroup_parent", "umask", "device_cgroup_rules"} {
		s.at.get(key).warn("unsupported", key+" has no counterpart on Nomad", "Remove it, or configure it on the nodes.")
	}
	if cfg.CPUSet != "" {
		s.at.take("cpuset")
		s.set("cpuset_cpus", importer.Quote(cfg.CPUSet))
	}
}

func (s *service) limits(at nodes) {
	at.takeEach("cpus", "memory", "pids")
	s.extensions(at)
}

func (s *service) devices(at nodes, all []types.DeviceRequest) {
	at.take()
	for _, d := range all {
		if d.Driver != "" && d.Driver != "nvidia" || d.Driver == "" && len(d.Capabilities) > 0 && !slices.ContainsFunc(d.Capabilities, func(c string) bool { return c == "gpu" || c == "nvidia" }) {
			at.warn("device", fmt.Sprintf("the device driver %s of %s has no counterpart", cmp.Or(d.Driver, strings.Join(d.Capabilities, ",")), s.cfg.Name), "Write a device block for the plugin of your nodes.")
			continue
		}
		count := int(d.Count)
		if count < 1 {
			count = max(len(d.IDs), 1)
			s.ledger.Warn(at.pos(), "device", fmt.Sprintf("%s gets %d GPU", s.cfg.Name, count), "Set count of the device block.")
		}
		s.m.Needs = append(s.m.Needs, importer.Need{What: "the device plugin nomad-device-nvidia", Why: s.cfg.Name, At: at.pos()})
		s.t.Resources.Devices = append(s.t.Resources.Devices, importer.Device{Name: "nvidia/gpu", Count: count})
	}
}

// container maps what the docker driver has under a similar name.
func (s *service) container() {
	cfg := s.cfg
	texts := func(key, name string, all []string) {
		s.at.take(key)
		if len(all) > 0 {
			s.set(name, list(all))
		}
	}
	flag := func(key, name string, on bool) {
		s.at.take(key)
		if on {
			s.set(name, "true")
		}
	}
	word := func(key, name, value string) {
		s.at.take(key)
		if value != "" {
			s.set(name, importer.Quote(value))
		}
	}
	need := func(key, what string) {
		s.ledger.Warn(s.at.get(key).pos(), "needs-client", fmt.Sprintf("%s of %s needs %s in the docker plugin of the clients", key, cfg.Name, what), "Configure the clients that may run it.")
		s.m.Needs = append(s.m.Needs, importer.Need{What: "`" + what + "` in the docker plugin", Why: cfg.Name, At: s.at.get(key).pos()})
	}
	texts("group_add", "group_add", cfg.GroupAdd)
	texts("cap_add", "cap_add", cfg.CapAdd)
	texts("cap_drop", "cap_drop", cfg.CapDrop)
	texts("security_opt", "security_opt", cfg.SecurityOpt)
	if other := slices.DeleteFunc(slices.Clone(cfg.CapAdd), importer.AllowedCapability); len(other) > 0 && !cfg.Privileged {
		need("cap_add", "allow_caps with "+strings.Join(other, ", "))
	}
	flag("privileged", "privileged", cfg.Privileged)
	if cfg.Privileged {
		need("privileged", "allow_privileged = true")
	}
	flag("read_only", "readonly_rootfs", cfg.ReadOnly)
	flag("tty", "tty", cfg.Tty)
	flag("stdin_open", "interactive", cfg.StdinOpen)
	flag("init", "init", cfg.Init != nil && *cfg.Init)
	word("runtime", "runtime", cfg.Runtime)
	if cfg.Runtime != "" && cfg.Runtime != "runc" {
		need("runtime", "allow_runtimes with "+cfg.Runtime)
	}
	for _, ns := range []struct{ key, name, value string }{{"pid", "pid_mode", cfg.Pid}, {"ipc", "ipc_mode", cfg.Ipc}, {"uts", "uts_mode", cfg.Uts}, {"userns_mode", "userns_mode", cfg.UserNSMode}, {"cgroup", "cgroupns", cfg.Cgroup}} {
		s.at.take(ns.key)
		switch {
		case ns.value == "" || ns.value == "shareable" || ns.value == "private":
		case strings.Contains(ns.value, ":"):
			s.at.get(ns.key).warn("unsupported", fmt.Sprintf("%s of %s is that of another container, which Nomad cannot share", ns.key, cfg.Name), "Run both programs in one container, or with the node's ("+ns.key+": host).")
		default:
			s.set(ns.name, importer.Quote(ns.value))
			if ns.value == "host" && ns.key != "cgroup" {
				need(ns.key, "allow_privileged = true")
			}
		}
	}
	s.at.take("shm_size")
	if cfg.ShmSize > 0 {
		s.set("shm_size", fmt.Sprint(int64(cfg.ShmSize)))
	}
	s.at.take("oom_score_adj")
	if cfg.OomScoreAdj != 0 {
		s.set("oom_score_adj", fmt.Sprint(cfg.OomScoreAdj))
	}
	pairs := func(key, name string, all map[string]string) {
		s.at.take(key)
		if len(all) == 0 {
			return
		}
		var lines []string
		for _, k := range slices.Sorted(maps.Keys(all)) {
			lines = append(lines, fmt.Sprintf("%s = %s", importer.Quote(k), importer.Quote(all[k])))
		}
		s.set(name, "{\n"+strings.Join(lines, "\n")+"\n}")
	}
	pairs("sysctls", "sysctl", cfg.Sysctls)
	pairs("storage_opt", "storage_opt", cfg.StorageOpt)
	limits := map[string]string{}
	for name, u := range cfg.Ulimits {
		limits[name] = fmt.Sprint(u.Single)
		if u.Single == 0 {
			limits[name] = fmt.Sprintf("%d:%d", u.Soft, u.Hard)
		}
	}
	pairs("ulimits", "ulimit", limits)
	s.at.take("devices")
	for _, d := range cfg.Devices {
		if strings.Contains(d.Source, "=") && !strings.HasPrefix(d.Source, "/") {
			s.at.get("devices").warn("device", fmt.Sprintf("the CDI device %s needs a plugin on the nodes", d.Source), "Write a device block.")
			continue
		}
		body := "host_path = " + importer.Quote(d.Source) + "\ncontainer_path = " + importer.Quote(cmp.Or(d.Target, d.Source))
		if d.Permissions != "" {
			body += "\ncgroup_permissions = " + importer.Quote(d.Permissions)
		}
		s.setBlock("devices", body)
	}
	s.logging()
}

func list(all []string) string {
	quoted := make([]string, len(all))
	for i, v := range all {
		quoted[i] = importer.Quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func (s *service) logging() {
	at, l := s.at.get("logging"), s.cfg.Logging
	at.take()
	if l == nil {
		return
	}
	switch l.Driver {
	case "", "json-file", "local", "journald":
		if l.Driver == "journald" {
			break
		}
		size := l.Options["max-size"]
		if bytes := bytesOf(size); bytes > 0 {
			s.t.LogFileMB = int(min(max(bytes>>20, 1), 100))
		}
		for _, n := range at.get("options") {
			for _, o := range n.Fields() {
				if o.Key != "max-size" && o.Key != "max-file" {
					o.Drop("an option of a log driver of Docker")
				}
			}
		}
		if n, err := strconv.Atoi(l.Options["max-file"]); err == nil && n > 0 {
			s.t.LogFiles = min(n, 20)
		}
		if s.t.LogFileMB*max(s.t.LogFiles, 3) > 250 { // ephemeral_disk must be larger
			s.s.EphemeralDisk = s.t.LogFileMB*max(s.t.LogFiles, 3) + 300
		}
		return
	case "none":
		return
	}
	at.warn("logging", fmt.Sprintf("%s logs with the driver %s", s.cfg.Name, l.Driver), "Remove the logging block of the job to have the logs in Nomad.")
	body := "type = " + importer.Quote(l.Driver)
	if len(l.Options) > 0 {
		body += "\nconfig {\n"
		for _, k := range slices.Sorted(maps.Keys(l.Options)) {
			v := l.Options[k]
			if lint.InClear(k, v) {
				v = ""
				s.ledger.Warn(at.pos(), "logging", fmt.Sprintf("the option %s of the log driver has a secret, which is left out", k), "Configure the log driver on the nodes.")
			}
			body += importer.Quote(k) + " = " + importer.Quote(v) + "\n"
		}
		body = strings.Replace(body, "config {\n", "config = {\n", 1) + "}"
	}
	s.setBlock("logging", body)
}
