package imported

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// manifests are an application with what manifests often ask of a Pod.
const manifests = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data:
  LEVEL: 'a$(b) {{ c }} ${d}'
  app.conf: |
    listen {{ port }}; # ${x}
binaryData:
  raw: /wABAg==
---
apiVersion: v1
kind: Secret
metadata: {name: credentials}
stringData: {password: 'k8s"pa$$ {{ y }}', token: tok}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 30080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000}
      initContainers:
      - name: wait
        image: composespec/conformance-tests-server
        command: [/server, check, "http://store/ping"]
      containers:
      - name: web
        image: composespec/conformance-tests-server
        ports: [{name: http, containerPort: 8080}]
        envFrom: [{configMapRef: {name: settings}}]
        env:
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: credentials, key: password}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: JOINED, value: "$(LITERAL)-$(NODE)-$$(NODE)"}
        - {name: LITERAL, value: x}
        readinessProbe: {httpGet: {path: /ping, port: http}, periodSeconds: 2}
        livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 5}
        resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {memory: 64Mi}}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts:
        - {name: conf, mountPath: /volumes/app.conf, subPath: app.conf}
        - {name: secret, mountPath: /volumes/token, subPath: token}
        lifecycle: {preStop: {sleep: {seconds: 2}}}
      - name: sidecar
        image: composespec/conformance-tests-server
        env: [{name: HTTP_PORT, value: "9090"}, {name: UDP_PORT, value: "9090"}]
        volumeMounts: [{name: all, mountPath: /volumes}]
      volumes:
      - {name: conf, configMap: {name: settings}}
      - {name: secret, secret: {secretName: credentials, defaultMode: 0440}}
      - {name: all, projected: {sources: [{configMap: {name: settings}}, {secret: {name: credentials}}]}}
---
apiVersion: v1
kind: Service
metadata: {name: store}
spec:
  clusterIP: None
  selector: {app: store}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  serviceName: store
  replicas: 2
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      securityContext: {runAsUser: 1000, fsGroup: 2000}
      containers:
      - name: store
        image: composespec/conformance-tests-server
        ports: [{containerPort: 80}]
        env:
        - {name: HTTP_PORT, value: "80"}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        volumeMounts: [{name: data, mountPath: /volumes}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  backoffLimit: 2
  template:
    spec:
      restartPolicy: Never
      initContainers:
      - name: wait
        image: composespec/conformance-tests-server
        command: [/server, check, "http://server:8080/ping"]
      containers:
      - {name: once, image: composespec/conformance-tests-client}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  containers:
  - {name: server, image: composespec/conformance-tests-server, ports: [{containerPort: 8080}]}
`

// testKubernetes runs manifests and asks their Pods, through one of them, what they see.
func testKubernetes(t *testing.T, w *world) {
	file := filepath.Join(t.TempDir(), "app.yaml")
	must(t, os.WriteFile(file, []byte(manifests), 0o600))
	dir := w.Import(t, "pods", file)
	w.Deploy(t, dir, on(w.Nodes[:2]...)...)
	const web = "http://127.0.0.1:30080"
	n := w.Nodes[0]
	for _, c := range []struct{ ask, want string }{
		{"/env?name=LEVEL", "a$(b) {{ c }} ${d}"},
		{"/env?name=PASSWORD", `k8s"pa$$ {{ y }}`},
		{"/volumefile?filename=app.conf", "listen {{ port }}; # ${x}\n"},
		{"/volumefile?filename=token", "tok"},
		{"127.0.0.1:9090/volumefile?filename=LEVEL", "a$(b) {{ c }} ${d}"},
		{"127.0.0.1:9090/volumefile?filename=password", `k8s"pa$$ {{ y }}`},
		{"web.default.svc.cluster.local/ping", "PONG FROM TARGET"},
		{"store-0.store/env?name=POD", "store-0"},
		{"store-1.store/write?filename=row&text=one", "written"},
		{"store-1.store.default.svc.cluster.local/volumefile?filename=row", "one"},
		{"store-0.store/write?filename=row&text=zero", "written"},
		{"store-1.store/volumefile?filename=row", "one"},
		{"server:8080/scalechecker", "1"}, // once called it
	} {
		ask := c.ask
		if ask[0] != '/' {
			// On a busy machine the mesh may need longer to know a service than the
			// program would wait.
			ask = "/ping?timeout=30s&address=" + url.QueryEscape(ask)
		}
		n.answersWithin(t, web+ask, c.want, 40*time.Second)
	}
}
