package nomad

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/drover-nomad/drover/importer"
)

// shape is what a field of Nomad's API becomes in a job file.
type shape struct {
	name   string           // in the file; "" for one that only the server has
	kind   fieldKind        // what the value is
	label  string           // field that is the label of a block
	fields map[string]shape // of a block
}

type fieldKind int

const (
	fieldValue  fieldKind = iota // a scalar, a list or an object
	fieldSpan                    // nanoseconds, or a text such as "30s"
	fieldBlock                   // an object, or a list of objects
	fieldKeys                    // an object whose keys are the operator's
	fieldServer                  // only the server has it
)

// jobShape is the job of the API, by the names of all versions since 0.1.
func jobShape() map[string]shape {
	attr := func(name string) shape { return shape{name: name} }
	dur := func(name string) shape { return shape{name: name, kind: fieldSpan} }
	blk := func(name, label string, fields map[string]shape) shape {
		return shape{name: name, kind: fieldBlock, label: label, fields: fields}
	}
	keys := func(name string) shape { return shape{name: name, kind: fieldKeys} }
	none := shape{kind: fieldServer}

	constraint := blk("constraint", "", map[string]shape{"LTarget": attr("attribute"), "RTarget": attr("value"), "Operand": attr("operator"), "Hard": none, "Weight": none})
	affinity := blk("affinity", "", map[string]shape{"LTarget": attr("attribute"), "RTarget": attr("value"), "Operand": attr("operator"), "Weight": attr("weight")})
	spread := blk("spread", "", map[string]shape{"Attribute": attr("attribute"), "Weight": attr("weight"),
		"SpreadTarget": blk("target", "Value", map[string]shape{"Percent": attr("percent")})})
	update := blk("update", "", map[string]shape{"Stagger": dur("stagger"), "MaxParallel": attr("max_parallel"), "HealthCheck": attr("health_check"),
		"MinHealthyTime": dur("min_healthy_time"), "HealthyDeadline": dur("healthy_deadline"), "ProgressDeadline": dur("progress_deadline"),
		"AutoRevert": attr("auto_revert"), "AutoPromote": attr("auto_promote"), "Canary": attr("canary")})
	restart := blk("restart", "", map[string]shape{"Attempts": attr("attempts"), "Interval": dur("interval"), "Delay": dur("delay"), "Mode": attr("mode"),
		"RenderTemplates": attr("render_templates"), "RestartOnSuccess": none, "OnSuccess": none})
	reschedule := blk("reschedule", "", map[string]shape{"Attempts": attr("attempts"), "Interval": dur("interval"), "Delay": dur("delay"),
		"DelayFunction": attr("delay_function"), "MaxDelay": dur("max_delay"), "Unlimited": attr("unlimited")})
	migrate := blk("migrate", "", map[string]shape{"MaxParallel": attr("max_parallel"), "HealthCheck": attr("health_check"),
		"MinHealthyTime": dur("min_healthy_time"), "HealthyDeadline": dur("healthy_deadline")})
	port := blk("port", "Label", map[string]shape{"Value": attr("static"), "To": attr("to"), "HostNetwork": attr("host_network")})
	network := blk("network", "", map[string]shape{"Mode": attr("mode"), "MBits": attr("mbits"), "ReservedPorts": port, "DynamicPorts": port,
		"Device": none, "CIDR": none, "IP": none, "Public": none, "Hostname": attr("hostname"),
		"DNS": blk("dns", "", map[string]shape{"Servers": attr("servers"), "Searches": attr("searches"), "Options": attr("options")})})
	checkRestart := blk("check_restart", "", map[string]shape{"Limit": attr("limit"), "Grace": dur("grace"), "IgnoreWarnings": attr("ignore_warnings")})
	check := blk("check", "", map[string]shape{"Id": none, "ID": none, "Name": attr("name"), "Type": attr("type"), "Command": attr("command"), "Args": attr("args"),
		"Path": attr("path"), "Protocol": attr("protocol"), "PortLabel": attr("port"), "Expose": attr("expose"), "AddressMode": attr("address_mode"),
		"Interval": dur("interval"), "Timeout": dur("timeout"), "InitialStatus": attr("initial_status"), "TLSSkipVerify": attr("tls_skip_verify"),
		"Header": keys("header"), "Method": attr("method"), "CheckRestart": checkRestart, "GRPCService": attr("grpc_service"), "GRPCUseTLS": attr("grpc_use_tls"),
		"TaskName": attr("task"), "SuccessBeforePassing": attr("success_before_passing"), "FailuresBeforeCritical": attr("failures_before_critical")})
	service := blk("service", "", map[string]shape{"Id": none, "ID": none, "Name": attr("name"), "Tags": attr("tags"), "CanaryTags": attr("canary_tags"),
		"PortLabel": attr("port"), "AddressMode": attr("address_mode"), "EnableTagOverride": attr("enable_tag_override"), "Checks": check, "CheckRestart": checkRestart,
		"Meta": keys("meta"), "CanaryMeta": keys("canary_meta"), "TaskName": attr("task"), "Provider": attr("provider")})
	vault := blk("vault", "", map[string]shape{"Policies": attr("policies"), "Env": attr("env"), "ChangeMode": attr("change_mode"), "ChangeSignal": attr("change_signal"),
		"Namespace": attr("namespace"), "Role": attr("role")})
	task := blk("task", "Name", map[string]shape{"Driver": attr("driver"), "User": attr("user"), "Config": keys("config"), "Env": keys("env"), "Meta": keys("meta"),
		"Constraints": constraint, "Affinities": affinity, "Services": service, "Vault": vault, "RestartPolicy": restart,
		"Resources": blk("resources", "", map[string]shape{"CPU": attr("cpu"), "Cores": attr("cores"), "MemoryMB": attr("memory"), "MemoryMaxMB": attr("memory_max"),
			"DiskMB": attr("disk"), "IOPS": attr("iops"), "Networks": network, "Devices": blk("device", "Name", map[string]shape{"Count": attr("count"),
				"Constraints": constraint, "Affinities": affinity})}),
		"LogConfig":       blk("logs", "", map[string]shape{"MaxFiles": attr("max_files"), "MaxFileSizeMB": attr("max_file_size"), "Disabled": attr("disabled")}),
		"DispatchPayload": blk("dispatch_payload", "", map[string]shape{"File": attr("file")}),
		"Lifecycle":       blk("lifecycle", "", map[string]shape{"Hook": attr("hook"), "Sidecar": attr("sidecar")}),
		"Artifacts": blk("artifact", "", map[string]shape{"GetterSource": attr("source"), "GetterOptions": keys("options"), "GetterMode": attr("mode"),
			"GetterHeaders": keys("headers"), "RelativeDest": attr("destination")}),
		"Templates": blk("template", "", map[string]shape{"SourcePath": attr("source"), "DestPath": attr("destination"), "EmbeddedTmpl": attr("data"),
			"ChangeMode": attr("change_mode"), "ChangeSignal": attr("change_signal"), "Splay": dur("splay"), "Perms": attr("perms"), "Envvars": attr("env"),
			"LeftDelim": attr("left_delimiter"), "RightDelim": attr("right_delimiter"), "VaultGrace": dur("vault_grace")}),
		"VolumeMounts": blk("volume_mount", "", map[string]shape{"Volume": attr("volume"), "Destination": attr("destination"), "ReadOnly": attr("read_only"), "PropagationMode": attr("propagation_mode")}),
		"KillTimeout":  dur("kill_timeout"), "KillSignal": attr("kill_signal"), "Leader": attr("leader"), "ShutdownDelay": dur("shutdown_delay"), "Kind": none,
	})
	group := blk("group", "Name", map[string]shape{"Count": attr("count"), "Constraints": constraint, "Affinities": affinity, "Spreads": spread, "Tasks": task,
		"RestartPolicy": restart, "ReschedulePolicy": reschedule, "Migrate": migrate, "Update": update, "Networks": network, "Services": service, "Meta": keys("meta"),
		"EphemeralDisk": blk("ephemeral_disk", "", map[string]shape{"Sticky": attr("sticky"), "Migrate": attr("migrate"), "SizeMB": attr("size")}),
		"Volumes": {name: "volume", kind: fieldBlock, label: "Name", fields: map[string]shape{"Type": attr("type"), "Source": attr("source"), "ReadOnly": attr("read_only"),
			"AccessMode": attr("access_mode"), "AttachmentMode": attr("attachment_mode"), "PerAlloc": attr("per_alloc")}},
		"ShutdownDelay": dur("shutdown_delay"), "StopAfterClientDisconnect": dur("stop_after_client_disconnect"), "MaxClientDisconnect": dur("max_client_disconnect"),
		"PreventRescheduleOnLost": attr("prevent_reschedule_on_lost"), "Disconnect": blk("disconnect", "", map[string]shape{"LostAfter": dur("lost_after"),
			"StopOnClientAfter": dur("stop_on_client_after"), "Replace": attr("replace"), "Reconcile": attr("reconcile")})})
	job := map[string]shape{"Type": attr("type"), "Region": attr("region"), "Namespace": attr("namespace"), "Priority": attr("priority"), "AllAtOnce": attr("all_at_once"),
		"Datacenters": attr("datacenters"), "Constraints": constraint, "Affinities": affinity, "Spreads": spread, "TaskGroups": group, "Update": update,
		"Meta": keys("meta"), "Migrate": migrate, "Reschedule": reschedule, "VaultToken": attr("vault_token"), "ConsulToken": attr("consul_token"),
		"Periodic": blk("periodic", "", map[string]shape{"Enabled": attr("enabled"), "Spec": attr("cron"), "Specs": attr("crons"), "SpecType": none,
			"ProhibitOverlap": attr("prohibit_overlap"), "TimeZone": attr("time_zone")}),
		"ParameterizedJob": blk("parameterized", "", map[string]shape{"Payload": attr("payload"), "MetaRequired": attr("meta_required"), "MetaOptional": attr("meta_optional")}),
	}
	for _, name := range []string{"ID", "Status", "StatusDescription", "Stop", "Stable", "Version", "SubmitTime", "CreateIndex", "ModifyIndex", "JobModifyIndex",
		"ParentID", "Dispatched", "Payload", "GC", "VaultNamespace", "ConsulNamespace", "NomadTokenID", "Multiregion", "DispatchIdempotencyToken"} {
		job[name] = none
	}
	return job
}

// fromJSON makes the tree of a job file of a job of the API. Fields that it does not
// know stay untouched in the ledger.
func fromJSON(job *importer.Node) *body {
	at := token{line: job.Pos().Line, col: job.Pos().Column}
	id := job.Get("ID").Text()
	if id == "" {
		id = job.Get("Name").Text()
	}
	b := &body{}
	fields := jobShape()
	if name := job.Get("Name").Text(); name != id && name != "" {
		b.items = append(b.items, newAttr(at, "name", importer.Quote(name)))
	}
	fields["Name"] = shape{kind: fieldServer}
	b.items = append(b.items, object(job, fields).items...)
	top := newBlock(at, "job")
	top.blank, top.body, top.labels = false, b, []token{{kind: tokString, text: importer.Quote(id)}}
	return &body{items: []*item{top}}
}

// object makes the items of an object. Empty values are left out: for the API they are
// absent.
func object(n *importer.Node, fields map[string]shape) *body {
	b := &body{}
	for _, f := range n.Fields() {
		s, known := fields[f.Key]
		at := token{line: f.Pos().Line, col: f.Pos().Column}
		switch {
		case !known:
			if isEmpty(f) {
				f.Take()
			}
		case s.kind == fieldServer:
			f.Take()
		case isEmpty(f):
			f.Take()
		case s.kind == fieldBlock:
			b.items = append(b.items, blocksOf(f, s)...)
		case s.kind == fieldKeys:
			x := newBlock(at, s.name)
			x.body = freeBody(f)
			x.blank = true
			x.assign = (s.name == "env" || s.name == "meta") && slices.ContainsFunc(x.body.items, func(i *item) bool { return !hclsyntax.ValidIdentifier(i.key()) })
			b.items = append(b.items, x)
		default:
			f.Take()
			if s.name == "to" && f.Peek() == "0" || s.name == "static" && f.Peek() == "0" {
				continue
			}
			x := newAttr(at, s.name, "0")
			x.value = &expr{tokens: []token{{kind: tokNumber, text: literalOf(f, s.kind == fieldSpan), line: at.line, col: at.col}}}
			if strings.HasPrefix(x.value.tokens[0].text, `"`) {
				x.value.tokens[0].kind = tokString
			}
			if strings.HasPrefix(x.value.tokens[0].text, "<<") {
				x.value.tokens[0].kind = tokHeredoc
			}
			b.items = append(b.items, x)
		}
	}
	return b
}

// blocksOf makes the blocks of an object, of a list of objects or, for volumes, of
// objects by their name.
func blocksOf(f *importer.Node, s shape) []*item {
	all := f.Items()
	if f.Kind == importer.Map {
		all = []*importer.Node{f}
		if s.name == "volume" {
			all = f.Fields()
		}
	}
	var out []*item
	for _, n := range all {
		x := newBlock(token{line: n.Pos().Line, col: n.Pos().Column}, s.name)
		if n.Kind != importer.Map { // the ports of Nomad 0.1 are texts or numbers
			label := n.Text()
			if _, err := strconv.Atoi(label); err == nil && s.name == "port" {
				x.body.items = append(x.body.items, newAttr(x.name, "static", label))
				label = "p" + label
			}
			x.labels = []token{{kind: tokString, text: importer.Quote(label)}}
			out = append(out, x)
			continue
		}
		if s.label != "" {
			label := n.Get(s.label).Text()
			if s.name == "volume" && label == "" {
				label = n.Key
			}
			x.labels = []token{{kind: tokString, text: importer.Quote(label)}}
			fields := map[string]shape{s.label: {kind: fieldServer}}
			for k, v := range s.fields {
				fields[k] = v
			}
			x.body = object(n, fields)
		} else {
			x.body = object(n, s.fields)
		}
		if s.name == "constraint" {
			oldOperand(x.body)
		}
		if len(x.body.items) > 0 || len(x.labels) > 0 {
			out = append(out, x)
		}
	}
	return out
}

// oldOperand writes operands of the API that are no operators of a job file.
func oldOperand(b *body) {
	if i := b.attr("operator"); i != nil {
		if s, _ := i.value.text(); s == "=" {
			b.remove(i)
		}
	}
}

func isEmpty(n *importer.Node) bool {
	return n.Kind == importer.Null || n.Kind != importer.Scalar && len(n.Keys()) == 0 && len(n.Items()) == 0 ||
		n.Kind == importer.Scalar && n.Peek() == ""
}

// freeBody makes a body of an object with the operator's keys.
func freeBody(n *importer.Node) *body {
	b := &body{}
	for _, f := range n.Fields() {
		at := token{line: f.Pos().Line, col: f.Pos().Column}
		x := &item{name: token{kind: tokIdent, text: f.Key, line: at.line, col: at.col}}
		if !hclsyntax.ValidIdentifier(f.Key) {
			x.name.kind, x.name.text = tokString, importer.Quote(f.Key)
		}
		f.Take()
		text := literalOf(f, false)
		x.value = &expr{tokens: []token{{kind: tokNumber, text: text, line: at.line, col: at.col}}}
		switch {
		case strings.HasPrefix(text, `"`):
			x.value.tokens[0].kind = tokString
		case strings.HasPrefix(text, "<<"):
			x.value.tokens[0].kind = tokHeredoc
		default:
			// Lists and objects of tokens, so that the rules of HCL apply to them.
			if tokens, err := tokenize("", text); err == nil {
				for i := range tokens {
					tokens[i].line, tokens[i].col = at.line, at.col
				}
				x.value.tokens = tokens[:len(tokens)-1]
			}
		}
		b.items = append(b.items, x)
	}
	return b
}

// hclBody makes a body of an object in the JSON of HCL1, in which the labels of a block
// are keys, and several blocks of one name are a list.
func hclBody(n *importer.Node) *body {
	b := &body{}
	for _, f := range n.Fields() {
		at := token{line: f.Pos().Line, col: f.Pos().Column}
		switch {
		case slices.Contains([]string{"job", "group", "task", "port", "target", "volume", "device"}, f.Key) && len(jsonObjects(f)) > 0:
			for _, named := range jsonObjects(f) {
				for _, labelled := range named.Fields() {
					for _, o := range jsonObjects(labelled) {
						x := newBlock(at, f.Key)
						x.labels = []token{{kind: tokString, text: importer.Quote(labelled.Key), line: o.Pos().Line, col: o.Pos().Column}}
						x.body = hclBody(o)
						b.items = append(b.items, x)
					}
				}
			}
		case len(jsonObjects(f)) > 0:
			for _, o := range jsonObjects(f) {
				x := newBlock(at, f.Key)
				if x.body = hclBody(o); freeForm(f.Key) || f.Key == "options" || f.Key == "headers" {
					x.body = freeBody(o)
				}
				x.assign = (f.Key == "env" || f.Key == "meta") && slices.ContainsFunc(x.body.items, func(i *item) bool { return !hclsyntax.ValidIdentifier(i.key()) })
				b.items = append(b.items, x)
			}
		case isEmpty(f):
			f.Take()
		default:
			f.Take()
			text := literalOf(f, false)
			x := newAttr(at, f.Key, text)
			x.value = literal(at, text)
			if strings.HasPrefix(text, "<<") {
				x.value.tokens[0].kind = tokHeredoc
			}
			b.items = append(b.items, x)
		}
	}
	return b
}

// jsonObjects returns an object, or those of a list of objects; nil for any other value.
func jsonObjects(n *importer.Node) []*importer.Node {
	if n.Kind == importer.Map {
		return []*importer.Node{n}
	}
	if slices.ContainsFunc(n.Items(), func(c *importer.Node) bool { return c.Kind != importer.Map }) {
		return nil
	}
	return n.Items()
}

var runtimeName = regexp.MustCompile(`\$\$\{((?:attr|node|meta|env|NOMAD)[\w.-]*)\}`)

// literalOf is a value of JSON as HCL.
func literalOf(n *importer.Node, asSpan bool) string {
	switch n.Kind {
	case importer.List:
		var all []string
		for _, c := range n.Items() {
			all = append(all, literalOf(c, false))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case importer.Map:
		var all []string
		for _, c := range n.Fields() {
			key := c.Key
			if !hclsyntax.ValidIdentifier(key) {
				key = importer.Quote(key)
			}
			all = append(all, key+" = "+literalOf(c, false))
		}
		return "{ " + strings.Join(all, ", ") + " }"
	case importer.Null:
		return "null"
	}
	text := n.Peek()
	if n.Tag != "!!str" {
		if ns, err := strconv.ParseInt(text, 10, 64); err == nil && asSpan {
			return fmt.Sprintf("%q", time.Duration(ns))
		}
		return text
	}
	quoted := runtimeName.ReplaceAllStringFunc(importer.Quote(text), func(s string) string {
		if traversal.MatchString(s[3 : len(s)-1]) {
			return s[1:]
		}
		return s
	})
	if strings.HasSuffix(text, "\n") && strings.Count(text, "\n") > 1 && !strings.Contains(text, "EOT") && !strings.Contains(text, "\r") {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "${", "$${"), "%{", "%%{")
		return "<<EOT\n" + text + "EOT"
	}
	return quoted
}
