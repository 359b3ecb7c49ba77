package kubernetes_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/importertest"
	"github.com/drover-nomad/drover/importer/kubernetes"
)

func read(t *testing.T, text string, src importer.Source) *importer.Result {
	t.Helper()
	src.Inputs = []importer.Input{{Name: filepath.Join(t.TempDir(), "app.yaml"), Text: []byte(text)}}
	res, err := importer.Run(t.Context(), "kubernetes", kubernetes.Read, src)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

const shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web-config, namespace: shop}
data:
  LOG_LEVEL: info
  app.conf: |
    upstream db.shop.svc.cluster.local:5432
  empty.conf: ""
---
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: shop}
type: Opaque
data: {password: WGsyOXNMdzdwUQ==}
stringData: {url: "postgres://app:Xk29sLw7pQ@db:5432/app"}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: uploads, namespace: shop}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 50%, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web, tier: front}}
    spec:
      terminationGracePeriodSeconds: 20
      initContainers:
        - {name: one, image: "busybox:1.36", command: [sh, -c, "echo one"]}
        - {name: two, image: "busybox:1.36", command: [sh, -c, "echo two"]}
      containers:
        - name: logs
          image: busybox:1.36
          args: [tail, -f, /log/x]
          volumeMounts: [{name: log, mountPath: /log}]
          resources: {limits: {memory: 32Mi}}
        - name: app
          image: example.org/shop/web:1.2.3
          command: [/web]
          args: ["--greeting=$(GREETING)", "--password=$(PASSWORD)", "$$(X)", "$(NONE)"]
          ports: [{name: http, containerPort: 8080}, {containerPort: 9090, name: metrics}]
          env:
            - {name: GREETING, value: hello}
            - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
            - {name: DATABASE_URL, valueFrom: {secretKeyRef: {name: db, key: url}}}
            - {name: LEVEL, valueFrom: {configMapKeyRef: {name: web-config, key: LOG_LEVEL}}}
            - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
            - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
            - {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
          readinessProbe: {httpGet: {path: /ok, port: http}, periodSeconds: 5, failureThreshold: 2}
          livenessProbe: {httpGet: {path: /ok, port: http}, initialDelaySeconds: 20}
          lifecycle: {preStop: {exec: {command: [sh, -c, sleep 5]}}}
          resources: {requests: {cpu: 250m, memory: 128Mi}, limits: {cpu: "1", memory: 256Mi}}
          securityContext: {runAsUser: 1000, runAsGroup: 1000, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          volumeMounts:
            - {name: config, mountPath: /etc/web}
            - {name: config, mountPath: /etc/app.conf, subPath: app.conf}
            - {name: secret, mountPath: /run/secrets/db, readOnly: true}
            - {name: log, mountPath: /log}
            - {name: tmp, mountPath: /tmp}
      volumes:
        - {name: config, configMap: {name: web-config, defaultMode: 0440}}
        - {name: secret, secret: {secretName: db, items: [{key: password, path: pw}]}}
        - {name: log, emptyDir: {}}
        - {name: tmp, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
      nodeSelector: {kubernetes.io/os: linux, disk: ssd}
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - {weight: 100, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}}
      colour: red
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: http, nodePort: 30080}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop
  annotations: {cert-manager.io/cluster-issuer: le, nginx.ingress.kubernetes.io/proxy-body-size: 10m}
spec:
  ingressClassName: nginx
  tls: [{hosts: [shop.example.org], secretName: tls}]
  rules:
    - host: shop.example.org
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
        - name: postgres
          image: postgres:16
          ports: [{containerPort: 5432}]
          env: [{name: POSTGRES_PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}]
          volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: clean, namespace: shop}
spec:
  schedule: "0 3 * * *"
  concurrencyPolicy: Forbid
  jobTemplate: {spec: {backoffLimit: 2, template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: "example.org/shop/clean:1", args: [run]}]}}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: shop}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
`

// TestRead_Shop: what an application with the usual objects becomes.
func TestRead_Shop(t *testing.T) {
	t.Parallel()
	res := read(t, shop, importer.Source{})
	if res.Name != "shop" {
		t.Errorf("got stack %q, want shop", res.Name)
	}
	importertest.Imported(t, res, map[string][]string{
		"web.nomad.hcl": {
			"count = 3", "max_parallel = 2\ncanary = 2", `shutdown_delay = "5s"`,
			"attribute = \"$${attr.kernel.name}\"\nvalue = \"linux\"", `attribute = "$${meta.disk}"`, "spread {\nattribute = \"$${node.unique.id}\"",
			`tags = ["drover.route=shop.example.org/", "drover.max-body=10m"]`,
			"path = \"/ok\"\ninterval = \"5s\"\ntimeout = \"1s\"\nfailures_before_critical = 2\ncheck_restart {\nlimit = 3\ngrace = \"20s\"",
			"migrate {\nmax_parallel = 2",
			`entrypoint = ["/web"]`, `args = ["--greeting=hello", "--password=$${PASSWORD}", "$(X)", "$(NONE)"]`,
			`user = "1000:1000"`, "readonly_rootfs = true", `cap_drop = ["ALL"]`, `security_opt = ["no-new-privileges"]`, "memory_hard_limit = 256", "memory = 128",
			`MEM = "256"`, `NODE = "$${node.unique.name}"`, `POD_IP = "$${NOMAD_ALLOC_IP_p8080}"`, "PASSWORD={{ .db_password.Value | toJSON }}",
			`"local/etc/web:/etc/web:ro"`, `"local/etc/app.conf:/etc/app.conf:ro"`, `"secrets/run/secrets/db/pw:/run/secrets/db/pw:ro"`, `"../alloc/data/log:/log"`,
			"type = \"tmpfs\"\ntarget = \"/tmp\"\ntmpfs_options {\nsize = 16777216\nmode = 1023",
			"perms = \"0440\"", `until [ -e /alloc/data/.init-0 ]`,
		},
		"db-1.nomad.hcl":             {`hostname = "db-1"`, `source = "shop-db-1-data"`, "canary = 0"},
		"clean.nomad.hcl":            {`type = "batch"`, "crons = [\"0 3 * * *\"]\nprohibit_overlap = true", "attempts = 2"},
		"stack.hcl":                  {"service \"db-1\" {\ndepends_on = [\"mesh\", \"db-0\"]", `parameters = { gid = "999", uid = "999" }`, `names = ["shop.example.org"]`},
		"mesh.nomad.hcl":             {`:80", service = "shop-web" }`, `"web-published-30080" = { bind = "*:30080", service = "shop-web" }`, `service = "shop-db-1", single = true }`},
		"_base.nomad.hcl":            {`"db:198.18.`, `"db.shop:198.18.`, `"db.shop.svc.cluster.local:198.18.`, `"db-1.db:198.18.`, `"web.shop.svc:198.18.`},
		"secrets.yaml":               {"db_password: Xk29sLw7pQ", "db_url: postgres://app:Xk29sLw7pQ@db:5432/app"},
		"files/web-config/LOG_LEVEL": {"info"},
	})
	for name, text := range map[string]string{"web.nomad.hcl": importertest.File(res, "web.nomad.hcl"), "stack.hcl": importertest.File(res, "stack.hcl")} {
		if strings.Contains(text, "Xk29sLw7pQ") {
			t.Errorf("%s has a secret in clear", name)
		}
	}
	if got := importertest.Findings(res); !strings.Contains(got, "spec.template.spec.colour is not imported") {
		t.Errorf("got %s, want a finding about colour", got)
	}
}

// pod returns a Deployment with the fields of a container and of a pod.
func pod(container, spec string) string {
	return `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
"spec": {"containers": [{"name": "c", "image": "example.org/web:1"` + container + `}]` + spec + `}}}}`
}

// other is a second workload, which uses the names of the first.
const other = `
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: c, image: "example.org/client:1"}]}
---
`

// TestRead_Services: a Service is an address with its own ports.
func TestRead_Services(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want map[string][]string
		find string
	}{
		"two Services of one workload have addresses of their own": {
			other + pod("", "") + "\n---\n" + `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 9090}]}}`,
			map[string][]string{"mesh.nomad.hcl": {`"a:80" = {`, `"b:80" = {`, `-web" }`, `-web-p9090" }`}}, "",
		},
		"a Service in front of two workloads reaches both": {
			other + strings.ReplaceAll(pod("", ""), `"name": "web"`, `"name": "v1"`) + "\n---\n" + strings.ReplaceAll(pod("", ""), `"name": "web"`, `"name": "v2"`) +
				"\n---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}",
			map[string][]string{"mesh.nomad.hcl": {`service = "app-v1", more = ["app-v2"], sticky = true }`, "balance source", `server-template s${i}- 10 _${name}._tcp.service.consul`}}, "",
		},
		"a Service without a selector leads to its endpoints": {
			other + `{apiVersion: v1, kind: Service, metadata: {name: legacy}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Endpoints, metadata: {name: legacy}, subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{port: 8080}]}]}`,
			map[string][]string{"mesh.nomad.hcl": {`service = "", servers = ["192.0.2.7:8080"] }`, "server a${i} ${a} check"}, "client.nomad.hcl": {}}, "",
		},
		"an ExternalName without an address is reported": {
			other + `{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {type: ExternalName, externalName: db.example.org}}`,
			nil, "db is another name of db.example.org; /etc/hosts has addresses only (network-external)",
		},
		"a Service that selects nothing is reported": {
			other + `{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {selector: {app: db}, ports: [{port: 5432}]}}`,
			nil, "the Service db selects no workload of the input",
		},
		"variables of Services exist where the input names them": {
			other + pod(`, "env": [{"name": "X", "value": "$(A_SERVICE_HOST)"}]`, "") + "\n---\n{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: web}, ports: [{port: 80}]}}",
			map[string][]string{"client.nomad.hcl": {`A_SERVICE_HOST = "a"`, `A_SERVICE_PORT = "80"`}}, "",
		},
		"a load balancer is a route or a port of the edge": {
			pod("", "") + "\n---\n{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24], selector: {app: web}, ports: [{name: http, port: 80}, {name: db, port: 5432}]}}",
			map[string][]string{"web.nomad.hcl": {`"drover.route=${var.domain}/"`, `"drover.allow=192.0.2.0/24"`, `"drover.tcp=5432"`}, "variables.hcl": {`variable "domain" {`}}, "Add 5432 to the variable tcp_ports of the edge",
		},
		"names of one namespace are known in it alone": {
			`{apiVersion: v1, kind: Pod, metadata: {name: client, namespace: one}, spec: {containers: [{name: c, image: "example.org/client:1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: server, namespace: two, labels: {app: s}}, spec: {containers: [{name: c, image: "example.org/server:1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: third, namespace: two}, spec: {containers: [{name: c, image: "example.org/third:1"}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: two}, spec: {selector: {app: s}, ports: [{port: 80}]}}`,
			map[string][]string{"third.nomad.hcl": {`"s:198.18.`, `"s.two:198.18.`}, "client.nomad.hcl": {`"s.two.svc:198.18.`}}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, c.text, importer.Source{Name: "app"})
			importertest.Imported(t, res, c.want)
			if got := importertest.Findings(res); !strings.Contains(got, c.find) {
				t.Errorf("got %s, want %q", got, c.find)
			}
			if strings.HasPrefix(name, "names of one namespace") && strings.Contains(importertest.File(res, "client.nomad.hcl"), `"s:198`) {
				t.Errorf("client knows a short name of another namespace:\n%s", importertest.File(res, "client.nomad.hcl"))
			}
		})
	}
}

// Two imports of one input under two names are two stacks, which share no volume. Binary
// values of a ConfigMap are no variables.
func TestRead_Name(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "two"} {
		res := read(t, `
{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {LEVEL: info}, binaryData: {raw: /wABAg==}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: web, image: "example.org/web:1", envFrom: [{configMapRef: {name: c}}], volumeMounts: [{name: d, mountPath: /data}]}], volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]}}`,
			importer.Source{Name: name})
		importertest.Imported(t, res, map[string][]string{"stack.hcl": {`volume "` + name + `-data"`}, "web.nomad.hcl": {`source = "` + name + `-data"`, `LEVEL = "info"`}})
		if text := importertest.File(res, "web.nomad.hcl"); strings.Contains(text, "raw") {
			t.Errorf("got\n%s\nwant no variable raw", text)
		}
	}
}

// TestRead_Options: what single fields become.
func TestRead_Options(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, file, want, find string
	}{
		"HostNetwork":       {pod(`, "ports": [{"containerPort": 80}]`, `, "hostNetwork": true`), "web.nomad.hcl", "mode = \"host\"\n\nport \"p80\" {\nstatic = 80", ""},
		"privileged":        {pod(`, "securityContext": {"privileged": true, "capabilities": {"add": ["NET_ADMIN"]}}`, ""), "web.nomad.hcl", "cap_add = [\"NET_ADMIN\"]", "allow_privileged = true"},
		"script probe":      {pod(`, "livenessProbe": {"exec": {"command": ["cat", "/ok"]}, "failureThreshold": 5}`, ""), "web.nomad.hcl", "type = \"script\"\ntask = \"web\"\ncommand = \"cat\"\nargs = [\"/ok\"]", ""},
		"startup probe":     {pod(`, "ports": [{"containerPort": 80}], "livenessProbe": {"tcpSocket": {"port": 80}}, "startupProbe": {"tcpSocket": {"port": 80}, "failureThreshold": 60}`, ""), "web.nomad.hcl", "grace = \"10m\"", ""},
		"missing ConfigMap": {pod(`, "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]`, ""), "web.nomad.hcl", "A = var.m_k", "which is not in the input; it is the variable m_k (unset-variable)"},
		"missing Secret":    {pod(`, "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "m", "key": "k"}}}]`, ""), "stack.hcl", "secret \"m_k\" {", "Write its value into secrets.yaml"},
		"secret in clear":   {pod(`, "env": [{"name": "DB_PASSWORD", "value": "Xk29sLw7pQ"}]`, ""), "web.nomad.hcl", "DB_PASSWORD={{ .db_password.Value | toJSON }}", ""},
		"affinity":          {pod("", `, "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}]}]}}}`), "web.nomad.hcl", "attribute = \"$${attr.cpu.arch}\"\noperator = \"set_contains_any\"\nvalue = \"amd64,arm64\"", ""},
		"anti-affinity":     {pod("", `, "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}`), "web.nomad.hcl", "operator = \"distinct_hosts\"", ""},
		"host path":         {pod(`, "volumeMounts": [{"name": "h", "mountPath": "/data", "subPath": "x"}]`, `, "volumes": [{"name": "h", "hostPath": {"path": "/srv"}}]`), "web.nomad.hcl", `"/srv/x:/data"`, "host-path"},
		"fsGroup":           {pod(`, "volumeMounts": [{"name": "h", "mountPath": "/data"}]`, `, "securityContext": {"fsGroup": 2000}, "volumes": [{"name": "h", "persistentVolumeClaim": {"claimName": "c"}}]`), "stack.hcl", `parameters = { gid = "2000", mode = "0775", uid = "0" }`, ""},
		"gpu":               {pod(`, "resources": {"limits": {"nvidia.com/gpu": 2}}`, ""), "web.nomad.hcl", "device \"nvidia/gpu\" {\ncount = 2", "device"},
		"stdin job":         {strings.ReplaceAll(strings.ReplaceAll(pod("", ""), "apps/v1", "batch/v1"), "Deployment", "Job"), "web.nomad.hcl", "type = \"batch\"", ""},
		"autoscaler":        {pod("", "") + "\n---\n{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web}, spec: {minReplicas: 3, maxReplicas: 9, scaleTargetRef: {kind: Deployment, name: web}}}", "web.nomad.hcl", "count = 3", "between 3 and 9 instances"},
		"role":              {pod("", `, "serviceAccountName": "op"`) + "\n---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: op}, subjects: [{kind: ServiceAccount, name: op}], roleRef: {kind: Role, name: op}}", "web.nomad.hcl", "", "web has rights in Kubernetes' API as op (needs-kubernetes)"},
		"DNS in a command":  {pod(`, "command": ["sh", "-c", "until nslookup db; do sleep 1; done"]`, ""), "web.nomad.hcl", "nslookup db", "embedded-dns"},
		"key twice":         {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: [{name: c, image: b}]\n  containers: [{name: c, image: d}]", "a.nomad.hcl", `image = "d"`, `the key "containers" is there twice`},
		"object twice":      {pod("", "") + "\n---\n" + strings.ReplaceAll(pod("", ""), "web:1", "web:2"), "web.nomad.hcl", "web:2", "is there twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, "---\n"+c.text, importer.Source{})
			importertest.Imported(t, res, map[string][]string{c.file: {c.want}})
			if got := importertest.Findings(res); !strings.Contains(got, c.find) {
				t.Errorf("got %s, want %q", got, c.find)
			}
		})
	}
}

// TestRead_Ingress: annotations become tags, and none opens what they restrict.
func TestRead_Ingress(t *testing.T) {
	t.Parallel()
	base := "---\n" + pod("", "") + "\n---\n{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}\n---\n"
	ingress := func(annotations, path string) string {
		return base + "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i, annotations: {" + annotations + "}}, spec: {rules: [{host: a.example.org, http: {paths: [{path: '" + path + "', pathType: Prefix, backend: {service: {name: a, port: {name: http}}}}]}}]}}"
	}
	for name, c := range map[string]struct{ text, want, find string }{
		"plain":         {ingress("", "/"), `tags = ["drover.route=a.example.org/", "drover.http=serve"]`, ""},
		"strip":         {ingress("nginx.ingress.kubernetes.io/rewrite-target: /$2", "/api(/|$)(.*)"), `tags = ["drover.route=a.example.org/api", "drover.strip=/api", "drover.http=serve"]`, ""},
		"allow":         {ingress("nginx.ingress.kubernetes.io/whitelist-source-range: '192.0.2.0/24, 198.51.100.1'", "/"), `"drover.allow=192.0.2.0/24,198.51.100.1"`, ""},
		"auth":          {ingress("nginx.ingress.kubernetes.io/auth-type: basic", "/"), `"drover.auth=`, "requests are denied until it has them"},
		"another proxy": {ingress("nginx.ingress.kubernetes.io/configuration-snippet: more_set_headers x", "/"), "drover.route", "configuration-snippet of the Ingress i is not mapped"},
		"HTTPRoute": {base + `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {hostnames: [b.example.org], parentRefs: [{name: g}], rules: [{matches: [{path: {type: PathPrefix, value: /x}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], backendRefs: [{name: a, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g}, spec: {gatewayClassName: x, listeners: [{name: l, protocol: HTTPS, port: 443}]}}`, `tags = ["drover.route=b.example.org/x", "drover.strip=/x"]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, c.text, importer.Source{})
			importertest.Imported(t, res, map[string][]string{"web.nomad.hcl": {c.want}})
			if got := importertest.Findings(res); !strings.Contains(got, c.find) {
				t.Errorf("got %s, want %q", got, c.find)
			}
		})
	}
	for name, annotation := range map[string]string{
		"another service decides":     "nginx.ingress.kubernetes.io/auth-url: https://auth.example.org/",
		"a snippet":                   "nginx.ingress.kubernetes.io/configuration-snippet: deny all;",
		"a middleware of Traefik":     "traefik.ingress.kubernetes.io/router.middlewares: default-auth@kubernetescrd",
		"users of another controller": "haproxy.org/auth-type: basic-auth",
		"a limit by country":          "nginx.ingress.kubernetes.io/modsecurity-snippet: deny",
		"addresses that are no range": "nginx.ingress.kubernetes.io/whitelist-source-range: office",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if res := read(t, ingress(annotation, "/"), importer.Source{}); !res.Refused() {
				t.Error("got a stack, want a refusal")
			}
			res := read(t, ingress(annotation, "/"), importer.Source{Allow: []string{"forward-auth", "route"}})
			if got := importertest.File(res, "web.nomad.hcl"); got == "" || strings.Contains(got, "drover.route") {
				t.Errorf("got a route that was restricted:\n%s", got)
			}
		})
	}
}

// TestRead_CustomResource: allowed, a custom resource is left out and the rest imported.
func TestRead_CustomResource(t *testing.T) {
	t.Parallel()
	text := "---\n" + pod("", "") + "\n---\n{apiVersion: acid.zalan.do/v1, kind: postgresql, metadata: {name: main}, spec: {numberOfInstances: 2}}"
	res := read(t, text, importer.Source{Allow: []string{"custom-resource"}})
	if res.Refused() || importertest.File(res, "web.nomad.hcl") == "" || !strings.Contains(importertest.Findings(res), "warning: postgresql main") {
		t.Errorf("got %s, want a stack and a warning", importertest.Findings(res))
	}
}

// TestRead_Refusals: what is refused, with its place and its remedy.
func TestRead_Refusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"template of Helm": {"apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Values.name }}\n", "helm template NAME CHART | drover import kubernetes -"},
		"kustomization":    {"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\npatches: [{path: x}]", "app.yaml:3: refusal: the kustomization has patches, which changes the other files (not-rendered); Render it first: kustomize build DIR"},
		"patch":            {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: 3}", "Deployment a has no containers (invalid); If it is a patch, render it first"},
		"no image":         {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c}]}", "(needs-image)"},
		"unknown volume":   {pod(`, "volumeMounts": [{"name": "v", "mountPath": "/v"}]`, ""), "web mounts the volume v, which it does not have (invalid)"},
		"disk of a cloud":  {pod(`, "volumeMounts": [{"name": "v", "mountPath": "/v"}]`, `, "volumes": [{"name": "v", "awsElasticBlockStore": {"volumeID": "x"}}]`), "one of awsElasticBlockStore (volume-driver)"},
		"order of inits":   {pod("", `, "initContainers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]`), "(init-order)"},
		"UDP by name":      {"---\n" + pod("", "") + other + "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: web}, ports: [{port: 514, protocol: UDP}]}}", "(udp-name)"},
		"no schedule":      {"{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {schedule: daily, jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: b}]}}}}}}", `"daily" is no schedule of cron`},
		"many replicas":    {"{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a}, spec: {replicas: 1000000000, template: {spec: {containers: [{name: c, image: b}]}}}}", "(unsupported)"},
		"custom resource":  {"---\n" + pod("", "") + "\n---\n{apiVersion: acid.zalan.do/v1, kind: postgresql, metadata: {name: main}, spec: {numberOfInstances: 2}}", "refusal: postgresql main is a custom resource of acid.zalan.do"},
		"route of Traefik": {"---\n" + pod("", "") + "\n---\n{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: i}, spec: {routes: []}}", "(custom-resource)"},
		"GitOps":           {"{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: a}, spec: {}}", "(not-rendered)"},
		"no workload":      {"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {b: c}}", "(no-input)"},
		"huge file":        {"---\n" + pod(`, "volumeMounts": [{"name": "v", "mountPath": "/v"}]`, `, "volumes": [{"name": "v", "configMap": {"name": "m"}}]`) + "\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {b: " + strings.Repeat("x", 70<<10) + "}}", "(file-too-big)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := read(t, c.text, importer.Source{})
			if got := importertest.Findings(res); !res.Refused() || !strings.Contains(got, c.want) {
				t.Errorf("got %s, want a refusal with %q", got, c.want)
			}
		})
	}
}

// TestRead_TypedList: the items of a list of one kind have no kind of their own.
func TestRead_TypedList(t *testing.T) {
	t.Parallel()
	res := read(t, "apiVersion: v1\nkind: PodList\nmetadata: {resourceVersion: '1'}\nitems:\n- metadata: {name: a, generateName: a-}\n  spec: {containers: [{name: c, image: 'x:1'}]}\n", importer.Source{})
	importertest.Imported(t, res, map[string][]string{"a.nomad.hcl": {`image = "x:1"`}})
	if got := importertest.Findings(res); strings.Contains(got, "not-imported") {
		t.Errorf("got\n%s\nwant every value mapped or reported", got)
	}
}

// TestRead_Volumes: modes and options of volumes are kept or reported.
func TestRead_Volumes(t *testing.T) {
	t.Parallel()
	res := read(t, `apiVersion: v1
kind: Pod
metadata: {name: a, labels: {x: y}}
spec:
  containers:
  - name: c
    image: x:1
    volumeMounts:
    - {name: p, mountPath: /p}
    - {name: d, mountPath: /d}
    - {name: h, mountPath: /h, mountPropagation: HostToContainer}
    - {name: e, mountPath: /e}
  volumes:
  - {name: p, projected: {defaultMode: 0400, sources: [{configMap: {name: cm, items: [{key: k, path: k}, {key: k, path: l, mode: 0444}]}}, {secret: {name: s}}]}}
  - {name: d, downwardAPI: {defaultMode: 0440, items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: h, hostPath: {path: /srv}}
  - {name: e, emptyDir: {sizeLimit: 1Gi}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {k: v}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {t: Xk29sLw7pQ}}
`, importer.Source{})
	importertest.Imported(t, res, map[string][]string{
		"a.nomad.hcl": {"data = file(\"files/cm/k\")\nperms = \"0400\"", "perms = \"0444\"", ".Value }}{{ end }}\"\nperms = \"0400\"", "perms = \"0440\""},
		"findings":    {"mounts that the node makes below /srv later", "a directory of the allocation has the size of its disk"},
	})
}

// TestRead_NoEffect: values with no effect on Nomad are reported.
func TestRead_NoEffect(t *testing.T) {
	t.Parallel()
	res := read(t, `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: a}
spec:
  selector: {matchLabels: {x: y}}
  updateStrategy: {rollingUpdate: {maxSurge: 1}}
  template:
    metadata: {labels: {x: y}}
    spec:
      topologySpreadConstraints: [{maxSkew: 3, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]
      containers:
      - name: c
        image: x:1
        ports: [{containerPort: 80}]
        readinessProbe: {initialDelaySeconds: 5, tcpSocket: {port: 80}}
        livenessProbe: {periodSeconds: 7, tcpSocket: {port: nosuch}}
        volumeMounts: [{name: e, mountPath: /e}]
      volumes: [{name: e, ephemeral: {volumeClaimTemplate: {spec: {resources: {requests: {storage: 1Gi}}}}}}]
`, importer.Source{})
	importertest.Imported(t, res, map[string][]string{"findings": {
		"app.yaml:6: left-out: a job of type system stops an instance", "app.yaml:10: left-out: Nomad spreads the instances", "app.yaml:15: left-out: a new instance is ready as soon as its check passes",
		"app.yaml:16: warning: a probe of a names no port of the container", "app.yaml:18: left-out: it is a directory of the allocation",
	}})
}

// TestRead_UDPNames: with names in Consul's DNS, a Service is known by UDP, too.
func TestRead_UDPNames(t *testing.T) {
	t.Parallel()
	text := pod("", "") + "\n---\n" + strings.ReplaceAll(pod("", ""), "web", "other") + `
---
{apiVersion: v1, kind: Service, metadata: {name: logs}, spec: {selector: {app: web}, ports: [{port: 514, targetPort: 5140, protocol: UDP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: dns}, spec: {selector: {app: other}, ports: [{name: a, port: 53, protocol: UDP}, {name: b, port: 53}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: bare}, spec: {clusterIP: None, selector: {app: web}, ports: [{port: 5141, protocol: UDP}]}}
`
	for _, network := range []string{importer.NetworkConsulDNS, importer.NetworkMesh} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			res := read(t, text, importer.Source{Network: network, Name: "shop"})
			if network == importer.NetworkMesh {
				if got := importertest.Findings(res); !strings.Contains(got, "others reach logs by UDP on port 514, which the mesh does not carry (udp-name); Say --network consul-dns") {
					t.Errorf("got\n%s\nwant a refusal that names --network consul-dns", got)
				}
				return
			}
			importertest.Imported(t, res, map[string][]string{
				"web.nomad.hcl":   {"port \"p5140\" {\nstatic = 514\nto = 5140\n}", `"logs"`, `"logs.default.svc.cluster.local"`, `"bare"`},
				"other.nomad.hcl": {"port \"p53\" {\nstatic = 53\nto = 53\n}", `"dns"`},
			})
			if got := importertest.Findings(res); strings.Contains(got, "udp-name") {
				t.Errorf("got\n%s\nwant no finding about UDP names", got)
			}
		})
	}
}

// FuzzRead: no input makes the importer panic or write a stack that is not valid.
func FuzzRead(f *testing.F) {
	f.Add(shop)
	f.Add(pod(`, "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]`, `, "volumes": [{}]`))
	f.Add(other)
	f.Add("apiVersion: v1\nkind: List\nitems: [{}, {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{}]}}]")
	f.Add("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}], type: ExternalName}")
	f.Add("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: -}\nspec: {replicas: 2, serviceName: a, template: {spec: {containers: [{name: ä, image: a}]}}}")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 64<<10 {
			t.Skip()
		}
		src := importer.Source{Name: "app", Inputs: []importer.Input{{Name: "app.yaml", Text: []byte(text)}}}
		res, err := importer.Run(t.Context(), "kubernetes", kubernetes.Read, src)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range res.Findings {
			if strings.Contains(x.Message, importer.Mistake) || strings.Contains(x.Message, "the stack would not be valid") {
				t.Errorf("%s\nof\n%s", x, text)
			}
		}
	})
}
