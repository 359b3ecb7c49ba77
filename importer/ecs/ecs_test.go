package ecs_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/ecs"
	"github.com/drover-nomad/drover/importer/importertest"
)

func read(t *testing.T, src importer.Source, texts ...string) *importer.Result {
	t.Helper()
	for i, text := range texts {
		name := []string{"app.json", "service.json", "more.json"}[i]
		src.Inputs = append(src.Inputs, importer.Input{Name: filepath.Join(t.TempDir(), name), Text: []byte(text)})
	}
	res, err := importer.Run(t.Context(), "ecs", ecs.Read, src)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func check(t *testing.T, res *importer.Result, files map[string][]string, reported []string) {
	t.Helper()
	if res.Refused() {
		t.Fatal(importertest.Findings(res))
	}
	for name, want := range files {
		got := importertest.File(res, name)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: got\n%s\nwant %s", name, got, w)
			}
		}
	}
	for _, w := range reported {
		if got := importertest.Findings(res); !strings.Contains(got, w) {
			t.Errorf("got findings\n%s\nwant %s", got, w)
		}
	}
	for _, f := range res.Files {
		if f.Path != "secrets.yaml" && strings.Contains(string(f.Text), "Xk29sLw7pQ") {
			t.Errorf("got a secret in %s", f.Path)
		}
	}
}

const shop = `{"taskDefinition": {
  "family": "shop", "networkMode": "bridge", "cpu": "1 vCPU", "memory": "2GB", "revision": 7,
  "taskRoleArn": "arn:aws:iam::1:role/shop", "ephemeralStorage": {"sizeInGiB": 21},
  "runtimePlatform": {"cpuArchitecture": "ARM64"},
  "volumes": [
    {"name": "data", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true}},
    {"name": "scratch", "host": {}}, {"name": "sock", "host": {"sourcePath": "/var/run/docker.sock"}}],
  "placementConstraints": [
    {"type": "memberOf", "expression": "attribute:ecs.instance-type =~ t3.* and attribute:stack in [a, b]"}],
  "containerDefinitions": [
    {"name": "log", "image": "fluent:1", "essential": false, "memoryReservation": 64,
     "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/in", "readOnly": true}]},
    {"name": "web", "image": "1.dkr.ecr.eu-west-1.amazonaws.com/web:1", "memory": 256, "memoryReservation": 128, "cpu": 512,
     "command": ["serve", "--token=Xk29sLw7pQ"], "entryPoint": ["/init"], "workingDirectory": "/srv", "user": "10:10",
     "links": ["log:fluentd"], "dependsOn": [{"containerName": "migrate", "condition": "SUCCESS"}],
     "portMappings": [{"containerPort": 8080, "hostPort": 80, "name": "http"}, {"containerPort": 9000, "hostPort": 0}],
     "environment": [{"name": "COLOUR", "value": "$${red}"}, {"name": "API_TOKEN", "value": "Xk29sLw7pQ"}, {"name": "DB", "value": "postgres://u:Xk29sLw7pQ@db/x"}],
     "secrets": [{"name": "KEY", "valueFrom": "arn:aws:secretsmanager:eu-west-1:1:secret:key"}],
     "healthCheck": {"command": ["CMD-SHELL", "curl -f http://localhost:8080/ || exit 1"], "retries": 5, "startPeriod": 20},
     "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}, {"sourceVolume": "scratch", "containerPath": "/out"}],
     "ulimits": [{"name": "nofile", "softLimit": 1024, "hardLimit": 2048}], "systemControls": [{"namespace": "net.core.somaxconn", "value": "9"}],
     "linuxParameters": {"initProcessEnabled": true, "capabilities": {"add": ["NET_ADMIN"], "drop": ["MKNOD"]}, "tmpfs": [{"containerPath": "/run", "size": 8}]},
     "stopTimeout": 60, "readonlyRootFilesystem": true,
     "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "shop"}}},
    {"name": "migrate", "image": "web:1", "essential": false, "command": ["migrate"]}]
}, "tags": []}`

const service = `{
  "serviceName": "Shop_Front", "taskDefinition": "arn:aws:ecs:eu-west-1:1:task-definition/shop:7", "desiredCount": 4, "launchType": "EC2",
  "deploymentConfiguration": {"maximumPercent": 150, "minimumHealthyPercent": 50, "deploymentCircuitBreaker": {"enable": true, "rollback": true}},
  "loadBalancers": [{"containerName": "web", "containerPort": 8080, "targetGroupArn": "arn:aws:x"}],
  "healthCheckGracePeriodSeconds": 90,
  "placementStrategy": [{"type": "spread", "field": "attribute:ecs.availability-zone"}, {"type": "binpack", "field": "memory"}],
  "serviceConnectConfiguration": {"enabled": true, "namespace": "prod", "services": [{"portName": "http", "clientAliases": [{"port": 80, "dnsName": "front"}]}]},
  "tags": [{"key": "team", "value": "web"}]
}`

// TestRead_Service: what a task definition and its service become.
func TestRead_Service(t *testing.T) {
	t.Parallel()
	res := read(t, importer.Source{}, shop, service)
	check(t, res, map[string][]string{
		"shop-front.nomad.hcl": {
			`job "shop-shop-front" {`, "count = 4", "canary = 0", "max_parallel = 2", `operator = "regexp"`, `value = "^(?:t3.*)$"`, `value = "^(?:a|b)$"`, `attribute = "$${meta.stack}"`,
			`attribute = "$${attr.platform.aws.placement.availability-zone}"`, `value = "arm64"`, `port "http" {`, "static = 80", "to = 8080", `port "p9000" {`,
			`team = "web"`, `type = "script"`, `command = "/bin/sh"`, `args = ["-c", "curl -f http://localhost:8080/ || exit 1"]`, "limit = 5", `grace = "1m30s"`,
			`source = "shop-shop-front-data"`, "size = 21504", `task "web" {`, "leader = true", `user = "10:10"`, `kill_timeout = "1m"`,
			`hook = "prestart"`, `image = "1.dkr.ecr.eu-west-1.amazonaws.com/web:1"`, `entrypoint = ["/init"]`, `args = ["serve", "--token=$${DROVER_`, `"fluentd:127.0.0.1"`,
			"memory_hard_limit = 256", "memory = 128", "0.5 * var.mhz_per_core", `work_dir = "/srv"`, "readonly_rootfs = true", "init = true", `cap_add = ["NET_ADMIN"]`, `cap_drop = ["MKNOD"]`,
			`"nofile" = "1024:2048"`, `"net.core.somaxconn" = "9"`, `target = "/run"`, "size = 8388608", "COLOUR = \"$$${red}\"", "KEY={{ .key.Value | toJSON }}", "API_TOKEN={{ .",
			`"../alloc/data/scratch:/out"`, `"../alloc/data/scratch:/in:ro"`,
		},
		"stack.hcl": {`stack "shop" {`, `description = "In AWS arn:aws:secretsmanager:eu-west-1:1:secret:key."`, `volume "shop-shop-front-data" {`},
	}, []string{
		"app.json:3: warning: the containers of shop-front have no credentials of the task role (aws-identity)",
		"(registry-auth)", "(needs-client)", "(logging)", "(kill-timeout)", "(no-copy-up)", "(node-meta)", "the container log is not essential",
		"service.json:4: warning: port 8080 of shop-front is behind a load balancer whose listeners are not in the input (route)",
	})
	if got := importertest.File(res, "shop-front.nomad.hcl"); strings.Index(got, `task "web"`) > strings.Index(got, `task "log"`) {
		t.Errorf("got\n%s\nwant the container behind the load balancer first", got)
	}
	if got := importertest.Findings(res); strings.Contains(got, "(not-imported)") {
		t.Errorf("got\n%s\nwant every value mapped or reported", got)
	}
}

const stack = `AWSTemplateFormatVersion: '2010-09-09'
Parameters:
  Tag: {Type: String, Default: '1.2', Description: Version of the image}
  DbPassword: {Type: String, NoEcho: true}
  Hosts: {Type: CommaDelimitedList, Default: 'a.example,b.example'}
  Stage: {Type: String, Default: prod}
  Port: {Type: Number, Default: 8080}
  Unused: {Type: String}
Mappings:
  Sizes: {prod: {Memory: 512}, test: {Memory: 64}}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  IsTest: !Not [{Condition: IsProd}]
Resources:
  Cluster: {Type: 'AWS::ECS::Cluster'}
  Database: {Type: 'AWS::RDS::DBInstance', Properties: {Engine: postgres}}
  Namespace: {Type: 'AWS::ServiceDiscovery::PrivateDnsNamespace', Properties: {Name: internal, Vpc: vpc-1}}
  Names:
    Type: AWS::ServiceDiscovery::Service
    Properties: {Name: api, NamespaceId: !Ref Namespace, DnsConfig: {DnsRecords: [{Type: A, TTL: 60}]}}
  ApiTask:
    Type: AWS::ECS::TaskDefinition
    Properties:
      Family: !Sub '${AWS::StackName}-api'
      NetworkMode: awsvpc
      Memory: !FindInMap [Sizes, !Ref Stage, Memory]
      Cpu: 256
      ContainerDefinitions:
        - Name: api
          Image: !Sub 'registry.example/api:${Tag}'
          Command: !If [IsProd, [run, !Join ['-', [a, !Ref Stage]]], [test]]
          PortMappings: [{ContainerPort: !Ref Port, Name: http}]
          Environment:
            - {Name: DB_HOST, Value: !GetAtt Database.Endpoint.Address}
            - {Name: DB_PASSWORD, Value: !Ref DbPassword}
            - {Name: QUEUE, Value: !ImportValue shared-queue}
            - {Name: REGION, Value: !Ref 'AWS::Region'}
            - {Name: FIRST, Value: !Select [0, !Split [':', 'x:y']]}
            - {Name: SECRET_TOKEN, Value: '{{resolve:secretsmanager:token}}'}
            - !If [IsTest, {Name: DEBUG, Value: '1'}, !Ref 'AWS::NoValue']
  Api:
    Type: AWS::ECS::Service
    DependsOn: Rule
    Properties:
      ServiceName: api
      Cluster: !Ref Cluster
      TaskDefinition: !Ref ApiTask
      DesiredCount: !If [IsProd, 2, 1]
      HealthCheckGracePeriodSeconds: 30
      ServiceRegistries: [{RegistryArn: !GetAtt Names.Arn}]
      LoadBalancers: [{ContainerName: api, ContainerPort: !Ref Port, TargetGroupArn: !Ref Group}]
  Group:
    Type: AWS::ElasticLoadBalancingV2::TargetGroup
    Properties: {Protocol: HTTP, Port: 80, HealthCheckPath: /ok, HealthCheckIntervalSeconds: 15, UnhealthyThresholdCount: 3, TargetGroupAttributes: [{Key: stickiness.enabled, Value: 'true'}]}
  Listener:
    Type: AWS::ElasticLoadBalancingV2::Listener
    Properties: {Port: 443, Protocol: HTTPS, DefaultActions: [{Type: fixed-response}]}
  Rule:
    Type: AWS::ElasticLoadBalancingV2::ListenerRule
    Properties:
      ListenerArn: !Ref Listener
      Priority: 1
      Conditions:
        - {Field: host-header, HostHeaderConfig: {Values: [api.example.org]}}
        - {Field: path-pattern, Values: ['/v1/*']}
      Actions: [{Type: forward, TargetGroupArn: !Ref Group}]
  Nightly:
    Type: AWS::Events::Rule
    Properties:
      ScheduleExpression: cron(0 3 ? * MON-FRI *)
      Targets: [{Arn: x, Id: x, RoleArn: x, EcsParameters: {TaskCount: 1, TaskDefinitionArn: !Ref ApiTask}}]
`

// TestRead_Template: what a template of CloudFormation becomes, with the functions of
// its language.
func TestRead_Template(t *testing.T) {
	t.Parallel()
	res := read(t, importer.Source{Name: "shop"}, stack)
	if res.Name != "shop" {
		t.Errorf("got stack %q, want shop", res.Name)
	}
	check(t, res, map[string][]string{
		"api.nomad.hcl": {
			`job "shop-api" {`, "count = 2", `image = "registry.example/api:${var.tag}"`, `args = ["run", "a-${var.stage}"]`, `port "http" {`, "to = 8080", "memory = 512", "0.25 * var.mhz_per_core",
			"DB_HOST = var.database_endpoint_address", "QUEUE = var.shared_queue", "REGION = var.aws_region", `FIRST = "x"`, "DB_PASSWORD={{ .db_password.Value | toJSON }}", "SECRET_TOKEN={{ .secretsmanager_token.Value | toJSON }}",
			`"drover.route=api.example.org/v1/"`, `"drover.sticky=cookie"`, `type = "http"`, `path = "/ok"`, `interval = "15s"`, "failures_before_critical = 3", `grace = "30s"`,
		},
		"api-nightly.nomad.hcl": {`type = "batch"`, `crons = ["0 3 * * MON-FRI"]`, `time_zone = "UTC"`, "attempts = 0"},
		"variables.hcl":         {`variable "tag" {`, `default = "1.2"`, `description = "Version of the image"`, `variable "aws_region" {`},
		"stack.hcl":             {`certificate "shop" {`, `names = ["api.example.org"]`, `secret "db_password" {`},
		"IMPORT.md":             {"api.internal"},
	}, []string{
		"warning: only AWS knows the attribute Database.Endpoint.Address; the variable database_endpoint_address is empty (unset-variable)",
		"app.json:16: warning: Database (AWS::RDS::DBInstance) runs no container, and is not a part of the stack (unsupported)",
		"nothing that is imported uses Parameters.Unused",
	})
	for name, text := range map[string]string{"DEBUG": importertest.File(res, "api.nomad.hcl"), "drover.http": importertest.File(res, "api.nomad.hcl"), "(not-imported)": importertest.Findings(res)} {
		if strings.Contains(text, name) {
			t.Errorf("got %s in\n%s", name, text)
		}
	}
}

// TestRead: single values.
func TestRead(t *testing.T) {
	t.Parallel()
	task := func(rest, container string) string {
		return `{"family": "app",` + rest + ` "containerDefinitions": [{"name": "app", "image": "a:1", "memory": 64` + container + `}]}`
	}
	for name, c := range map[string]struct {
		texts    []string
		job      []string // of app.nomad.hcl; nil for a refusal
		findings []string
	}{
		"a list of container definitions":       {[]string{`[{"name": "a", "image": "a:1", "memory": 64, "portMappings": [{"containerPort": "80"}]}]`}, []string{`task "a"`, "to = 80"}, nil},
		"the network of the node":               {[]string{task(`"networkMode": "host",`, `, "portMappings": [{"containerPort": 80}]`)}, []string{`network_mode = "host"`, "static = 80"}, nil},
		"ports of the task's own network":       {[]string{task(`"networkMode": "awsvpc",`, `, "portMappings": [{"containerPort": 80, "hostPort": 80}]`)}, []string{"to = 80"}, nil},
		"a range of ports":                      {[]string{task("", `, "portMappings": [{"containerPortRange": "8000-8002"}]`)}, []string{"to = 8000", "to = 8002"}, nil},
		"an update without a second instance":   {[]string{task("", ""), `{"desiredCount": 1, "deploymentConfiguration": {"maximumPercent": 100, "minimumHealthyPercent": 0}}`}, []string{"canary = 0", "auto_promote = false"}, nil},
		"blue and green":                        {[]string{task("", ""), `{"desiredCount": 2, "deploymentController": {"type": "CODE_DEPLOY"}}`}, []string{"canary = 2", "auto_promote = false"}, []string{"(update)"}},
		"a task definition that runs to an end": {[]string{task("", "")}, []string{`task "app"`}, []string{"Say --kind app=batch"}},
		"the proxy of App Mesh is left out":     {[]string{`{"family": "app", "proxyConfiguration": {"containerName": "envoy"}, "containerDefinitions": [{"name": "app", "image": "a:1", "memory": 64}, {"name": "envoy", "image": "e:1", "memory": 64}]}`}, []string{`task "app"`}, []string{"(proxy)"}},
		"a file system of AWS":                  {[]string{task(`"volumes": [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}],`, `, "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]`)}, nil, []string{"(volume-driver)"}},
		"a volume that is not there":            {[]string{task("", `, "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]`)}, nil, []string{`the task definition has no volume "v" (invalid)`}},
		"a placeholder for the image":           {[]string{`{"family": "app", "containerDefinitions": [{"name": "app", "image": "<IMAGE1_NAME>"}]}`}, nil, []string{"app.json:1: refusal", "(needs-image); Say --image app=REF."}},
		"a template of ecspresso":               {[]string{"{\"family\": \"app\", \"containerDefinitions\": [\n{\"name\": \"app\", \"image\": \"a:{{ must_env `TAG` }}\"}]}"}, nil, []string{"app.json:2: refusal", "Render it first: ecspresso render"}},
		"a template that is no JSON":            {[]string{"{\"family\": \"app\",\n \"cpu\": {{ env `CPU` `1` }}, \"containerDefinitions\": []}"}, nil, []string{"app.json:2: refusal", "Render it first: ecspresso render"}},
		"a tag of Docker's logs is no template": {[]string{task("", `, "logConfiguration": {"logDriver": "gelf", "options": {"tag": "{{.Name}}"}}`)}, []string{`"tag" = "{{.Name}}"`}, []string{"(logging)"}},
		"a service alone":                       {[]string{`{"desiredCount": 1, "launchType": "EC2"}`}, nil, []string{"(no-input); Import both together"}},
		"a template without a task definition":  {[]string{"AWSTemplateFormatVersion: '2010-09-09'\nResources: {V: {Type: 'AWS::EC2::VPC'}}"}, nil, []string{"app.json:1: refusal: the template has no task definition", "(no-input)"}},
		"variables in a file of S3":             {[]string{task("", `, "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::b/x.env"}]`)}, nil, []string{"(missing-file)"}},
		"two containers on one port":            {[]string{`[{"name": "a", "image": "a:1", "portMappings": [{"containerPort": 80}]}, {"name": "b", "image": "b:1", "portMappings": [{"containerPort": 80}]}]`}, nil, []string{"(port-conflict)"}},
		"a constraint that Nomad lacks":         {[]string{task(`"placementConstraints": [{"type": "memberOf", "expression": "attribute:a == 1 or attribute:b == 2"}],`, "")}, nil, []string{"(unsupported)"}},
		"sticky sessions without a route": {[]string{"Resources:\n  T: {Type: 'AWS::ECS::TaskDefinition', Properties: {Family: app, ContainerDefinitions: [{Name: app, Memory: 64, Image: 'a:1'}]}}\n" +
			"  S: {Type: 'AWS::ECS::Service', Properties: {TaskDefinition: !Ref T, LoadBalancers: [{ContainerName: app, ContainerPort: 80, TargetGroupArn: !Ref G}]}}\n" +
			"  G: {Type: 'AWS::ElasticLoadBalancingV2::TargetGroup', Properties: {TargetGroupAttributes: [{Key: stickiness.enabled, Value: true}]}}\n"}, []string{"to = 80"}, []string{"keeps a client at one instance of app"}},
		"memory and processes of the node":  {[]string{task(`"ipcMode": "none", "pidMode": "host",`, "")}, []string{`ipc_mode = "none"`, `pid_mode = "host"`}, []string{"(needs-client)"}},
		"a log router that others wait for": {[]string{`{"family": "app", "containerDefinitions": [{"name": "log", "image": "f:1", "memory": 64, "firelensConfiguration": {"type": "fluentbit"}}, {"name": "app", "image": "a:1", "memory": 64, "dependsOn": [{"containerName": "log", "condition": "START"}]}]}`}, []string{`task "app"`}, []string{"left-out: the container log is left out"}},
		"parameters that are secrets by their use": {[]string{"Parameters: {P: {Type: String, Default: Xk29sLw7pQ}, Q: {Type: String, NoEcho: true, Default: Xk29sLw7pQ2}, R: {Type: String}, S: {Type: String, Default: s}}\nResources:\n  T: {Type: 'AWS::ECS::TaskDefinition', Properties: {Family: app, ContainerDefinitions: [{Name: app, Memory: 64, Image: 'a:1', " +
			"HealthCheck: {Command: [CMD-SHELL, !Sub 'ping ${Q} ${S}']}, Environment: [{Name: DB_PASSWORD, Value: !Ref P}, {Name: URL, Value: !Sub 'postgres://u:${P}@h/x'}, {Name: API_TOKEN, Value: !Ref R}]}]}}"},
			[]string{"DB_PASSWORD={{ .db_password.Value | toJSON }}", "URL={{ .url.Value | toJSON }}", "API_TOKEN={{ .api_token.Value | toJSON }}", `"ping $${DROVER_Q} s"`}, nil},
		"a manifest of Copilot":                      {[]string{"name: app\ntype: Backend Service\nimage: {build: Dockerfile}"}, nil, []string{"AWS Copilot (unsupported)"}},
		"conditions that refer to themselves":        {[]string{"Conditions: {A: {Condition: A}}\nResources:\n  T: {Type: 'AWS::ECS::TaskDefinition', Properties: {Family: app, ContainerDefinitions: [{Name: app, Memory: 64, Image: !If [A, 'b:1', 'a:1']}]}}"}, []string{`image = "a:1"`}, nil},
		"an image that the operator chooses":         {[]string{`{"family": "app", "containerDefinitions": [{"name": "web", "memory": 64}]}`}, []string{`image = "x:2"`}, nil},
		"a password that the shared rule lets pass":  {[]string{task("", `, "environment": [{"name": "DB_PASS", "value": "postgres"}]`)}, []string{"DB_PASS={{ .db_pass.Value | toJSON }}"}, nil},
		"a value that the importer does not know":    {[]string{task(`"colour": "red",`, "")}, []string{`task "app"`}, []string{"colour is not imported (not-imported)"}},
		"a schedule that no cron expression can say": {[]string{"Resources:\n  T: {Type: 'AWS::ECS::TaskDefinition', Properties: {Family: app, ContainerDefinitions: [{Name: app, Memory: 64, Image: 'a:1'}]}}\n  R: {Type: 'AWS::Events::Rule', Properties: {ScheduleExpression: rate(7 hours), Targets: [{EcsParameters: {TaskDefinitionArn: !Ref T}}]}}"}, nil, []string{"app.json:3: refusal"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, importer.Source{Images: map[string]string{"web": "x:2"}}, c.texts...)
			if c.job != nil {
				check(t, res, map[string][]string{"app.nomad.hcl": c.job}, c.findings)
				return
			}
			if !res.Refused() {
				t.Fatalf("got no refusal, want %q", c.findings)
			}
			for _, w := range c.findings {
				if got := importertest.Findings(res); !strings.Contains(got, w) {
					t.Errorf("got findings\n%s\nwant %s", got, w)
				}
			}
		})
	}
}

// TestRead_Daemon: a service with one task on each node is a system job.
func TestRead_Daemon(t *testing.T) {
	t.Parallel()
	res := read(t, importer.Source{}, `{"family": "app", "containerDefinitions": [{"name": "app", "image": "a:1", "memory": 64}]}`, `{"schedulingStrategy": "DAEMON"}`)
	check(t, res, map[string][]string{"_base.nomad.hcl": {`type = "system"`}}, nil)
}

// TestCron: schedules of EventBridge become those of Nomad.
func TestCron(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"cron(0 12 * * ? *)":        "0 12 * * *",
		"cron(0/15 * ? * 2-6 *)":    "0/15 * * * 1-5",
		"cron(0 8 ? * 1,7 *)":       "0 8 * * 0,6",
		"cron(0 8 ? * 6#3 2027)":    "0 8 * * 5#3 2027",
		"cron(0 8 L * ? *)":         "0 8 L * *",
		"rate(1 minute)":            "* * * * *",
		"rate(5 minutes)":           "*/5 * * * *",
		"rate(120 minutes)":         "0 */2 * * *",
		"rate(6 hours)":             "0 */6 * * *",
		"rate(1 day)":               "0 0 * * *",
		"rate(7 minutes)":           "",
		"cron(x 8 * * ? *)":         "",
		"rate(0 hours)":             "",
		"at(2027-01-01T00:00:00)":   "",
		"rate(99999999999 minutes)": "",
	} {
		got, ok := ecs.Cron(text)
		if got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %t; want %q", text, got, ok, want)
		}
	}
}

// FuzzRead: no input makes the reader panic, and every value is in one count.
func FuzzRead(f *testing.F) {
	f.Add([]byte(shop))
	f.Add([]byte(service))
	f.Add([]byte(stack))
	f.Add([]byte(`[{"name":"a","image":"b","portMappings":[{"containerPort":-1,"hostPort":99999}]}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		src := importer.Source{Inputs: []importer.Input{{Name: "app.json", Text: text}}}
		l := importer.NewLedger(nil)
		if _, err := ecs.Read(t.Context(), src, l); err != nil {
			return
		}
		l.Finish()
		if c := l.Counts(); c.Values != c.Mapped+c.LeftOut+c.Reported {
			t.Errorf("got %+v, want every value in one count", c)
		}
	})
}

// TestRead_Rules: what else a rule of a load balancer says becomes tags of the edge, and
// what the edge cannot match has no route.
func TestRead_Rules(t *testing.T) {
	t.Parallel()
	const hosts = "        - {Field: host-header, HostHeaderConfig: {Values: [api.example.org]}}\n"
	for _, c := range []struct{ name, old, text, want string }{
		{"addresses", "        - {Field: path-pattern, Values: ['/v1/*']}", "        - {Field: source-ip, SourceIpConfig: {Values: [10.0.0.0/8, 192.0.2.1/32]}}", `"drover.allow=10.0.0.0/8,192.0.2.1/32"`},
		{"a header", "        - {Field: path-pattern, Values: ['/v1/*']}", "        - {Field: http-header, HttpHeaderConfig: {HttpHeaderName: X, Values: [y]}}", ""},
		{"addresses without a host", hosts + "        - {Field: path-pattern, Values: ['/v1/*']}", "        - {Field: source-ip, Values: [10.0.0.0/8]}", "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(stack, c.old, c.text, 1)
			if text == stack {
				t.Fatal("the template has no such rule")
			}
			res := read(t, importer.Source{Name: "shop"}, text)
			switch got := importertest.File(res, "api.nomad.hcl"); {
			case c.want == "refused":
				if !res.Refused() || !strings.Contains(importertest.Findings(res), "(route)") {
					t.Errorf("got no refusal:\n%s", importertest.Findings(res))
				}
			case c.want == "":
				if got == "" || strings.Contains(got, "drover.route") {
					t.Errorf("got a route or no job:\n%s%s", got, importertest.Findings(res))
				}
			case !strings.Contains(got, c.want):
				t.Errorf("got\n%s\nwant %s\n%s", got, c.want, importertest.Findings(res))
			}
		})
	}
}

// TestRead_Base64: a literal in base64 is evaluated, and anything else is a variable.
func TestRead_Base64(t *testing.T) {
	t.Parallel()
	res := read(t, importer.Source{}, `{"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"T": {"Type": "AWS::ECS::TaskDefinition", "Properties": {"Family": "a", "ContainerDefinitions": [
  {"Name": "a", "Image": "a:1", "RestartPolicy": {"Enabled": true}, "Environment": [{"Name": "A", "Value": {"Fn::Base64": "abc"}}, {"Name": "B", "Value": {"Fn::Base64": {"Fn::GetAtt": "X.Y"}}}]}]}}}}`)
	check(t, res, map[string][]string{"a.nomad.hcl": {`A = "YWJj"`, "B = var."}}, []string{"only AWS knows the function Base64", "left-out: Nomad starts a container again"})
}
