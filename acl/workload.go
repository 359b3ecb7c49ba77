package acl

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

const (
	// AuthMethod is the name that Nomad's agents expect by default
	// (consul.service_auth_method, consul.task_auth_method).
	AuthMethod = "nomad-workloads"
	// Audience is what service_identity and task_identity of Nomad's agents
	// put into the token.
	Audience = "consul.io"
)

// Workload describes how Consul authenticates Nomad's workloads: a JWT auth
// method for the identities of services and tasks, and the rights of a token
// for one. A service may register itself under its name; a task may read
// services.
type Workload struct {
	// JWKSURL is where Consul's servers fetch Nomad's public keys from.
	// Consul has no client certificate to show there: with
	// verify_https_client on, that is something in front of Nomad, or Keys.
	JWKSURL string
	// JWKSCA is the CA of JWKSURL in PEM; empty for the system's.
	JWKSCA string
	// Keys are Nomad's public keys in PEM instead of JWKSURL. Nomad makes new
	// ones after server.root_key_rotation_threshold, 30 days by default.
	Keys []string
	// Namespaces are Nomad's namespaces whose tasks may read services.
	Namespaces []string
	// Services are the names of the services that jobs in Namespaces may register;
	// * stands for any characters. Empty allows every name, as long as no namespace
	// of the cluster is restricted.
	Services []string
	// TaskServices are prefixes of services that the tasks of TaskJobs in Namespaces
	// register by themselves, past Nomad: oCIS does, as com.owncloud. TaskJobs are
	// IDs of jobs, in which * stands for any characters.
	TaskServices, TaskJobs []string
}

// method returns the auth method as Consul stores it.
func (w Workload) method() (*capi.ACLAuthMethod, error) {
	config := map[string]any{
		"BoundAudiences":   []string{Audience},
		"JWTSupportedAlgs": []string{"RS256"},
		"ClaimMappings": map[string]string{
			"nomad_namespace": "nomad_namespace",
			"nomad_job_id":    "nomad_job_id",
			"nomad_task":      "nomad_task",
			"nomad_service":   "nomad_service",
		},
	}
	switch {
	case w.JWKSURL != "" && len(w.Keys) > 0:
		return nil, errors.New("Consul takes Nomad's keys or the URL of them, not both")
	case w.JWKSURL != "":
		config["JWKSURL"] = w.JWKSURL
		if w.JWKSCA != "" {
			config["JWKSCACert"] = w.JWKSCA
		}
	case len(w.Keys) > 0:
		config["JWTValidationPubKeys"] = w.Keys
	default:
		return nil, errors.New("Consul needs Nomad's public keys or the URL of them")
	}
	return &capi.ACLAuthMethod{
		Name: AuthMethod, Type: "jwt", TokenLocality: "local", Config: config,
		DisplayName: "Nomad", Description: "Identities of Nomad's services and tasks",
	}, nil
}

// tasksPolicy returns the Consul policy of every task.
func (w Workload) tasksPolicy() Policy {
	var b strings.Builder
	b.WriteString("node_prefix \"\" {\n  policy = \"read\"\n}\nservice_prefix \"\" {\n  policy = \"read\"\n}\n")
	return Policy{Name: "nomad-tasks", Description: "Rights of tasks that run on Nomad", Rules: b.String()}
}

// registerPolicy is what tasks may do in addition that register services by
// themselves.
func (w Workload) registerPolicy(name string) Policy {
	var b strings.Builder
	for _, prefix := range w.TaskServices {
		fmt.Fprintf(&b, "service_prefix %q {\n  policy = \"write\"\n}\n", prefix)
	}
	return Policy{Name: name, Description: "Rights of tasks on Nomad that register services by themselves", Rules: b.String()}
}

// Apply creates or updates Consul's auth method, and the policy, roles and binding rules
// of the tasks (PUT /v1/acl/auth-method/:name, /v1/acl/policy, /v1/acl/role,
// /v1/acl/binding-rule; acl:write).
func (w Workload) Apply(ctx context.Context, c *capi.Client) error {
	if err := w.ApplyMethod(ctx, c); err != nil {
		return err
	}
	policy, err := PutConsulPolicy(ctx, c, w.tasksPolicy())
	if err != nil {
		return err
	}
	for _, ns := range w.Namespaces {
		if err := putConsulRole(ctx, c, reads+ns, policy); err != nil {
			return err
		}
		if len(w.TaskServices) == 0 {
			continue
		}
		policy, err := PutConsulPolicy(ctx, c, w.registerPolicy(registers+ns))
		if err != nil {
			return err
		}
		if err := putConsulRole(ctx, c, registers+ns, policy); err != nil {
			return err
		}
	}
	return nil
}

// Names of roles in Consul, with that of a namespace of Nomad behind them.
const (
	reads     = "nomad-tasks-"
	registers = "nomad-task-services-"
)

// anyNamespace selects the services of all namespaces.
const anyNamespace = `"nomad_service" in value`

// ofNamespace selects, with more conditions behind it, what is in a namespace.
func ofNamespace(namespace string) string {
	return fmt.Sprintf("value.nomad_namespace == %q", namespace)
}

// matches selects the values of a claim that are covered by one of patterns.
func matches(claim string, patterns []string) string {
	var all []string
	for _, p := range patterns {
		all = append(all, strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, ".*"))
	}
	return fmt.Sprintf("value.%s matches `^(%s)$`", claim, strings.Join(all, "|"))
}

// applyServices makes the binding rules by which services may register themselves:
// one for all namespaces, or, once a namespace is restricted, one for each.
func (w Workload) applyServices(ctx context.Context, c *capi.Client) error {
	q := (&capi.QueryOptions{}).WithContext(ctx)
	rules, _, err := c.ACL().BindingRuleList(AuthMethod, q)
	if err != nil {
		return fmt.Errorf("reading Consul's binding rules: %w", err)
	}
	restricted := func(namespace string) bool {
		return slices.ContainsFunc(rules, func(r *capi.ACLBindingRule) bool {
			return r.BindType == capi.BindingRuleBindTypeService && strings.Contains(r.Selector, ofNamespace(namespace))
		})
	}
	single := slices.ContainsFunc(rules, func(r *capi.ACLBindingRule) bool {
		return r.BindType == capi.BindingRuleBindTypeService && strings.Contains(r.Selector, "value.nomad_namespace")
	})
	put := func(selector, part string) error {
		return putBinding(ctx, c, &capi.ACLBindingRule{
			Description: "Services of Nomad's jobs", Selector: selector, BindType: capi.BindingRuleBindTypeService, BindName: "${value.nomad_service}",
		}, part)
	}
	if len(w.Services) == 0 && !single {
		return put(anyNamespace, "")
	}
	for _, ns := range w.Namespaces {
		switch {
		case len(w.Services) > 0:
			err = put(anyNamespace+" and "+ofNamespace(ns)+" and "+matches("nomad_service", w.Services), ofNamespace(ns))
		case !restricted(ns):
			err = fmt.Errorf("the services of other namespaces are restricted to their names in Consul, so name those of namespace %s too", ns)
		}
		if err != nil {
			return err
		}
	}
	if len(w.Services) == 0 {
		return nil
	}
	// The namespaces of before keep what they had, each by a rule of its own.
	roles, _, err := c.ACL().RoleList(q)
	if err != nil {
		return fmt.Errorf("reading Consul's roles: %w", err)
	}
	for _, r := range roles {
		if ns, is := strings.CutPrefix(r.Name, reads); is && !slices.Contains(w.Namespaces, ns) && !restricted(ns) {
			if err := put(anyNamespace+" and "+ofNamespace(ns), ofNamespace(ns)); err != nil {
				return err
			}
		}
	}
	for _, r := range rules {
		if r.BindType == capi.BindingRuleBindTypeService && r.Selector == anyNamespace {
			if _, err := c.ACL().BindingRuleDelete(r.ID, (&capi.WriteOptions{}).WithContext(ctx)); err != nil {
				return fmt.Errorf("deleting Consul's binding rule for all namespaces: %w", err)
			}
		}
	}
	return nil
}

// ApplyMethod creates or updates only the auth method and its binding rules, which each
// Consul datacenter has for itself. Policies and roles belong to the primary datacenter.
func (w Workload) ApplyMethod(ctx context.Context, c *capi.Client) error {
	method, err := w.method()
	if err != nil {
		return err
	}
	q := (&capi.WriteOptions{}).WithContext(ctx)
	old, _, err := c.ACL().AuthMethodRead(AuthMethod, (&capi.QueryOptions{}).WithContext(ctx))
	switch {
	case err != nil && !consulMissing(err):
		return fmt.Errorf("reading Consul's auth method %s: %w", AuthMethod, err)
	case err != nil || old == nil:
		_, _, err = c.ACL().AuthMethodCreate(method, q)
	default:
		_, _, err = c.ACL().AuthMethodUpdate(method, q)
	}
	if err != nil {
		return fmt.Errorf("writing Consul's auth method %s: %w", AuthMethod, err)
	}
	if err := w.applyServices(ctx, c); err != nil {
		return err
	}
	for _, ns := range w.Namespaces {
		if len(w.TaskServices) == 0 {
			break
		}
		if err := putBinding(ctx, c, &capi.ACLBindingRule{
			Description: "Tasks on Nomad that register services by themselves",
			Selector:    `"nomad_service" not in value and ` + ofNamespace(ns) + " and " + matches("nomad_job_id", w.TaskJobs),
			BindType:    capi.BindingRuleBindTypeRole, BindName: registers + ns,
		}, ""); err != nil {
			return err
		}
	}
	return putBinding(ctx, c, &capi.ACLBindingRule{
		Description: "Tasks of Nomad's jobs", Selector: `"nomad_service" not in value`,
		BindType: capi.BindingRuleBindTypeRole, BindName: reads + "${value.nomad_namespace}",
	}, "")
}

// Keys returns the public keys, in PEM, that verify Nomad's identities: the present, the
// next and the former ones (GET /.well-known/jwks.json).
func Keys(ctx context.Context, c *api.Client) ([]string, error) {
	body, err := c.Raw().Response("/.well-known/jwks.json", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading Nomad's public keys: %w", err)
	}
	defer func() { _ = body.Close() }()
	b, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading Nomad's public keys: %w", err)
	}
	return parseJWKS(b)
}

// parseJWKS takes the RSA keys out of a key set (RFC 7517; RFC 7518 section
// 6.3.1). Keys of Nomad before 1.9 are Ed25519, which Consul refuses ("Invalid
// supported algorithm: EdDSA").
func parseJWKS(b []byte) ([]string, error) {
	var set struct {
		Keys []struct{ Kty, N, E string }
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("reading Nomad's public keys: %w", err)
	}
	var all []string
	for i, k := range set.Keys {
		n, e := decode(k.N), decode(k.E)
		if k.Kty != "RSA" || len(n) == 0 || len(e) == 0 || len(e) > 4 {
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())})
		if err != nil {
			return nil, fmt.Errorf("reading Nomad's public key %d: %w", i+1, err)
		}
		all = append(all, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	if len(all) == 0 {
		return nil, errors.New("Nomad has no RSA key to sign identities with: make one with nomad operator root keyring rotate")
	}
	return all, nil
}

func decode(s string) []byte {
	b, _ := base64.RawURLEncoding.DecodeString(s)
	return b
}

func consulMissing(err error) bool {
	var status capi.StatusError
	return errors.As(err, &status) && (status.Code == http.StatusNotFound || status.Code == http.StatusForbidden && strings.Contains(status.Body, "ACL not found"))
}

// PutConsulPolicy creates or updates a Consul policy.
func PutConsulPolicy(ctx context.Context, c *capi.Client, p Policy) (id string, err error) {
	want := &capi.ACLPolicy{Name: p.Name, Description: p.Description, Rules: p.Rules}
	q := (&capi.WriteOptions{}).WithContext(ctx)
	old, _, err := c.ACL().PolicyReadByName(p.Name, (&capi.QueryOptions{}).WithContext(ctx))
	switch {
	case err != nil && !consulMissing(err):
		return "", fmt.Errorf("reading Consul's policy %s: %w", p.Name, err)
	case err != nil || old == nil:
		want, _, err = c.ACL().PolicyCreate(want, q)
	default:
		want.ID = old.ID
		want, _, err = c.ACL().PolicyUpdate(want, q)
	}
	if err != nil {
		return "", fmt.Errorf("writing Consul's policy %s: %w", p.Name, err)
	}
	return want.ID, nil
}

// putConsulRole creates or updates a role with only this policy.
func putConsulRole(ctx context.Context, c *capi.Client, name, policy string) error {
	want := &capi.ACLRole{Name: name, Description: "Made by drover acl bootstrap", Policies: []*capi.ACLRolePolicyLink{{ID: policy}}}
	q := (&capi.WriteOptions{}).WithContext(ctx)
	old, _, err := c.ACL().RoleReadByName(name, (&capi.QueryOptions{}).WithContext(ctx))
	switch {
	case err != nil && !consulMissing(err):
		return fmt.Errorf("reading Consul's role %s: %w", name, err)
	case err != nil || old == nil:
		_, _, err = c.ACL().RoleCreate(want, q)
	default:
		want.ID = old.ID
		_, _, err = c.ACL().RoleUpdate(want, q)
	}
	if err != nil {
		return fmt.Errorf("writing Consul's role %s: %w", name, err)
	}
	return nil
}

// putBinding makes a binding rule of the auth method. Rules have no names: it
// updates the one that binds to the same and whose selector contains part.
func putBinding(ctx context.Context, c *capi.Client, want *capi.ACLBindingRule, part string) error {
	want.AuthMethod = AuthMethod
	all, _, err := c.ACL().BindingRuleList(AuthMethod, (&capi.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("reading Consul's binding rules: %w", err)
	}
	q := (&capi.WriteOptions{}).WithContext(ctx)
	for _, old := range all {
		if old.BindType == want.BindType && old.BindName == want.BindName && strings.Contains(old.Selector, part) {
			want.ID = old.ID
			_, _, err = c.ACL().BindingRuleUpdate(want, q)
			break
		}
	}
	if want.ID == "" {
		_, _, err = c.ACL().BindingRuleCreate(want, q)
	}
	if err != nil {
		return fmt.Errorf("writing Consul's binding rule for %s: %w", want.BindName, err)
	}
	return nil
}
