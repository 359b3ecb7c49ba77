package edge

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/edge/route"
)

// Registration is one instance of a service in Consul that has tags of the edge.
type Registration struct {
	Service   string
	ID        string // in Consul
	Namespace string // Nomad's; "" if it is unknown, or if Nomad did not register the instance
	// Hidden is true if Nomad registered the instance, and the controller cannot see its
	// allocation.
	Hidden bool
	Job    string // in Namespace; "" as Namespace
	// Version is the same for the instances that have to agree about their tags: those
	// of one group in one version of a job, canaries apart.
	Version string
	Index   uint64 // Consul's CreateIndex, by which the older one is known
	Tags    []string
}

// Claim is a route that belongs to a service.
type Claim struct {
	Route     string    `json:"route"` // "http HOST/PATH", "sni HOST" or "tcp PORT"; "auth NAME" of an authenticator
	Service   string    `json:"service"`
	Namespace string    `json:"namespace,omitempty"`
	Job       string    `json:"job,omitempty"`
	Class     string    `json:"class,omitempty"` // of the edges; "" for the default one
	Since     time.Time `json:"since"`
	// Missing is since when no instance of the service is registered; zero if one is.
	Missing time.Time `json:"missing,omitzero"`
}

// authenticator begins the [Claim.Route] of a service that the edge asks about requests.
const authenticator = "auth "

// host is that of the route; "" for a port and for an authenticator.
func (c Claim) host() string {
	kind, from, _ := strings.Cut(c.Route, " ")
	if kind == string(TCP) || strings.HasPrefix(c.Route, authenticator) {
		return ""
	}
	host, _, _ := strings.Cut(from, "/")
	return host
}

// holder names who has the claim, for messages.
func (c Claim) holder(several bool) string {
	text := "service " + c.Service
	if several && c.Namespace != "" {
		text += " of namespace " + c.Namespace
	}
	return text + " since " + c.Since.UTC().Format("2006-01-02 15:04 MST")
}

// routeKey names what a tag asks for, as in [Claim]; "" if it asks for nothing.
func routeKey(tag string) string {
	t, ok := route.Parse(tag)
	if !ok {
		return ""
	}
	kind := string(t.Kind)
	if t.Kind == HTTP || t.Kind == Redirect {
		kind = "http"
	}
	return kind + " " + t.From
}

// RefusedTag is a tag of a service that does not count, and why.
type RefusedTag struct {
	Service string
	Tag     string
	Message string
}

// Decision is whose the routes are, and which tags do not count.
type Decision struct {
	Claims  []Claim // by Route
	Refused []RefusedTag
	// Strict is true if a route counts only once it is among Claims: there are several
	// namespaces and no table says what each may claim.
	Strict bool
	// Shared are the hosts on which several namespaces have routes, without a table
	// that says so, each with the namespaces.
	Shared map[string][]string
	// Own are the instances that get requests, as digests of their IDs, of each service
	// that has instances of other namespaces too. The key is the service; of the target of
	// a canary it is SERVICE.service.TARGET, as the backend's name.
	Own map[string][]string
}

// Claimants is everything that a [Decision] is made of.
type Claimants struct {
	Kind          Kind
	Settings      *Settings
	Registrations []Registration
	// Several is true if the cluster has several namespaces.
	Several bool
	// Before are the claims of the last decision, nil for none. First is true if there
	// was no decision: then every route that is served is claimed, also by several
	// namespaces, so that a running site stays as it is.
	Before []Claim
	First  bool
	// Ended reports whether the job of a claim exists no more. known is false if
	// that is unknown.
	Ended func(Claim) (ended, known bool)
	Now   time.Time
}

// claimGrace is how long a claim outlives its service if it is unknown whether the
// job still exists.
const claimGrace = 10 * time.Minute

// weighty are the tags that restrict who reaches a service. They all hold, whichever
// instances have them. Of the others, those of one version count that all its instances
// have.
var weighty = []string{"class", "allow", "auth", "deny", "forward-auth", "client-cert", "limit", "max-body"}

// Decide is whose the routes are. A claim lasts until its job no longer exists, or
// runs without asking for it; of several new ones the oldest registration has it.
func Decide(in Claimants) Decision {
	d := Decision{Strict: in.Several && (in.Settings == nil || len(in.Settings.Tenants) == 0), Shared: map[string][]string{}, Own: map[string][]string{}}
	byService := map[string][]Registration{}
	for _, r := range in.Registrations {
		byService[r.Service] = append(byService[r.Service], r)
	}
	before := slices.DeleteFunc(slices.Clone(in.Before), func(c Claim) bool { return in.over(c, byService[c.Service]) })
	homes := map[string][]string{} // the namespaces of a service
	for _, c := range before {
		if c.Namespace != "" && !slices.Contains(homes[c.Service], c.Namespace) {
			homes[c.Service] = append(homes[c.Service], c.Namespace)
		}
	}
	type candidate struct {
		Claim
		tag   string
		index uint64
	}
	var candidates []candidate
	asked := map[[2]string][]Registration{} // by service and route, also with tags that do not count
	refuse := func(service, tag, format string, args ...any) {
		d.Refused = append(d.Refused, RefusedTag{service, tag, fmt.Sprintf(format, args...)})
	}
	own := func(key, service string, home []string) {
		foreign := false
		ids := []string{}
		for _, r := range byService[service] {
			if slices.Contains(home, r.Namespace) && !r.Hidden || r.Namespace == "" && !r.Hidden {
				ids = append(ids, tagDigest(r.ID))
			} else {
				foreign = true
			}
		}
		if foreign && len(home) > 0 {
			slices.Sort(ids)
			d.Own[key] = ids
		}
	}
	for _, service := range slices.Sorted(maps.Keys(byService)) {
		all := byService[service]
		slices.SortStableFunc(all, func(a, b Registration) int { return cmp.Compare(a.Index, b.Index) })
		home := homes[service]
		asks := in.Settings != nil && slices.Contains(in.Settings.Authenticators, service)
		if len(home) == 0 && !in.First {
			for _, r := range all {
				if r.Namespace != "" {
					home = []string{r.Namespace}
					break
				}
			}
		}
		var instances []Registration
		reasons := map[string]string{} // of tags that do not count, unless other instances have them
		for i, r := range all {
			if r.Namespace == "" && !r.Hidden && len(home) > 0 {
				all[i].Namespace = home[0]
				r = all[i]
			}
			if len(home) > 0 && !slices.Contains(home, r.Namespace) {
				for _, t := range edgeTags(r.Tags) {
					reasons[t] = fmt.Sprintf("the service belongs to namespace %s, and an instance of namespace %s has the tag", home[0], cmp.Or(r.Namespace, "(unknown)"))
				}
				continue
			}
			instances = append(instances, r)
		}
		tags, others := agreed(in.Kind, service, instances, in.Settings)
		for t, reason := range others {
			reasons[t] = reason
		}
		for _, t := range slices.Sorted(maps.Keys(reasons)) {
			if !slices.Contains(tags, t) {
				refuse(service, t, "%s", reasons[t])
			}
		}
		if asks {
			for _, r := range instances {
				key := authenticator + service
				if asked[[2]string{service, key}] = append(asked[[2]string{service, key}], r); len(asked[[2]string{service, key}]) == 1 || in.First {
					candidates = append(candidates, candidate{Claim{Route: key, Service: service, Namespace: r.Namespace, Job: r.Job, Since: in.Now}, "", r.Index})
				}
			}
		}
		if asks || slices.ContainsFunc(all, func(r Registration) bool { return len(edgeTags(r.Tags)) > 0 }) {
			own(service, service, home)
		}
		if !in.Settings.Takes(tags) {
			continue
		}
		for _, r := range instances {
			for _, t := range edgeTags(r.Tags) {
				if target := canaryService(t); target != "" {
					own(service+".service."+target, target, home)
				}
			}
		}
		for _, r := range instances {
			for _, t := range edgeTags(r.Tags) {
				if key := routeKey(t); key != "" {
					asked[[2]string{service, key}] = append(asked[[2]string{service, key}], r)
				}
			}
		}
		routes, _ := Parse(in.Kind, service, tags, in.Settings)
		for _, r := range routes {
			key := routeKey(Prefix + string(r.Kind) + "=" + r.From)
			for _, o := range instances {
				tag := tagFor(o.Tags, key)
				if tag == "" || slices.ContainsFunc(candidates, func(c candidate) bool {
					return c.Service == service && c.Route == key && c.Namespace == o.Namespace
				}) {
					continue
				}
				candidates = append(candidates, candidate{Claim{Route: key, Service: service, Namespace: o.Namespace, Job: o.Job, Since: in.Now}, tag, o.Index})
			}
		}
	}

	byRoute := map[string][]Claim{}
	byHost := map[string][]Claim{}
	grant := func(c Claim) {
		d.Claims = append(d.Claims, c)
		byRoute[c.Route] = append(byRoute[c.Route], c)
		if h := c.host(); h != "" {
			byHost[h] = append(byHost[h], c)
		}
	}
	for _, c := range before {
		by := asked[[2]string{c.Service, c.Route}]
		i := slices.IndexFunc(by, func(r Registration) bool { return r.Namespace == c.Namespace || c.Namespace == "" })
		switch {
		case i >= 0:
			c.Missing, c.Namespace, c.Job = time.Time{}, by[i].Namespace, cmp.Or(by[i].Job, c.Job)
		case slices.ContainsFunc(byService[c.Service], func(r Registration) bool { return r.Namespace == c.Namespace }):
			continue // it runs and asks for it no longer
		case slices.ContainsFunc(candidates, func(n candidate) bool {
			return n.Route == c.Route && n.Job != "" && n.Job == c.Job && n.Namespace == c.Namespace
		}):
			continue // another service of the same job
		case c.Missing.IsZero():
			c.Missing = in.Now
		}
		grant(c)
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		if in.First { // as an edge without decisions
			return strings.Compare(a.Service, b.Service)
		}
		return cmp.Or(cmp.Compare(a.index, b.index), strings.Compare(a.Service, b.Service))
	})
	for _, c := range candidates {
		has := func(o Claim) bool { return o.Service == c.Service && o.Namespace == c.Namespace }
		if slices.ContainsFunc(byRoute[c.Route], has) {
			continue
		}
		if i := slices.IndexFunc(byRoute[c.Route], func(o Claim) bool { return o.Service != c.Service }); i >= 0 {
			refuse(c.Service, c.tag, "%s belongs to %s", from(c.Route), byRoute[c.Route][i].holder(in.Several))
			continue
		}
		if d.Strict && !in.First {
			if o, taken := foreignHost(byHost, c.Claim); taken {
				refuse(c.Service, c.tag, "the host %s belongs to %s", o.host(), o.holder(true))
				continue
			}
		}
		grant(c.Claim)
	}
	slices.SortFunc(d.Claims, func(a, b Claim) int {
		return cmp.Or(strings.Compare(a.Route, b.Route), strings.Compare(a.Service, b.Service), strings.Compare(a.Namespace, b.Namespace))
	})
	slices.SortStableFunc(d.Refused, func(a, b RefusedTag) int { return strings.Compare(a.Service, b.Service) })
	if d.Strict {
		for host, claims := range byHost {
			var namespaces []string
			for _, c := range claims {
				namespaces = append(namespaces, cmp.Or(c.Namespace, "(unknown)"))
			}
			slices.Sort(namespaces)
			if namespaces = slices.Compact(namespaces); len(namespaces) > 1 {
				d.Shared[host] = namespaces
			}
		}
	}
	return d
}

// canaryService returns the service that a tag sends a part of the requests to, "" for
// none.
func canaryService(tag string) string {
	if !strings.HasPrefix(tag, Prefix+"weight=") && !strings.HasPrefix(tag, Prefix+"canary=") {
		return ""
	}
	f := strings.Fields(tag)
	if len(f) < 3 || f[len(f)-2] != "service" {
		return ""
	}
	return f[len(f)-1]
}

// Others are the services without tags of their own whose instances get requests by the
// tags or settings of an edge: targets of canaries and authenticators, sorted.
func Others(settings []*Setting, tags ...string) []string {
	var out []string
	for _, s := range settings {
		out = append(out, s.Settings.Authenticators...)
	}
	for _, t := range tags {
		if target := canaryService(t); target != "" {
			out = append(out, target)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// over reports whether a claim has ended because its job has.
func (in *Claimants) over(c Claim, all []Registration) bool {
	if slices.ContainsFunc(all, func(r Registration) bool { return r.Namespace == c.Namespace || r.Namespace == "" || c.Namespace == "" }) {
		return false
	}
	ended, known := false, false
	if c.Job != "" && in.Ended != nil {
		ended, known = in.Ended(c)
	}
	return known && ended || !known && !c.Missing.IsZero() && in.Now.Sub(c.Missing) > claimGrace
}

// foreignHost returns a claim of another namespace on the host of c, unless the
// namespace of c has one there too.
func foreignHost(byHost map[string][]Claim, c Claim) (Claim, bool) {
	var foreign *Claim
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		if c.host() == "" || !overlap(host, c.host()) {
			continue
		}
		for _, o := range byHost[host] {
			switch {
			case o.Namespace != c.Namespace && foreign == nil:
				foreign = &o
			case o.Namespace == c.Namespace && host == c.host():
				return Claim{}, false
			}
		}
	}
	if foreign == nil {
		return Claim{}, false
	}
	return *foreign, true
}

// overlap reports whether two hosts, which may be wildcards, have names in common.
func overlap(a, b string) bool {
	covers := func(wild, host string) bool {
		below, is := strings.CutPrefix(wild, "*")
		return is && strings.HasSuffix(host, below)
	}
	return a == b || covers(a, b) || covers(b, a)
}

// agreed returns the tags of the edge that count of the instances of a service, and
// for the others why they do not. Of the instances of one version the tags count that
// all of them have. A version with an invalid option does not count if there is a
// valid one. A tag that restricts who reaches the service always counts, unless its
// version does not.
func agreed(kind Kind, service string, all []Registration, settings *Settings) (tags []string, reasons map[string]string) {
	versions := map[string][]Registration{}
	for _, r := range all {
		key := r.Namespace + "\x00" + r.Job + "\x00" + r.Version
		versions[key] = append(versions[key], r)
	}
	type version struct {
		tags, lost []string
		bad        string // the option that is not valid
	}
	var found []version
	good := false
	for _, key := range slices.Sorted(maps.Keys(versions)) {
		var v version
		times := map[string]int{}
		for _, r := range versions[key] {
			for _, t := range edgeTags(r.Tags) {
				times[t]++
			}
		}
		for _, t := range slices.Sorted(maps.Keys(times)) {
			if times[t] == len(versions[key]) || isWeighty(t) {
				v.tags = append(v.tags, t)
			} else {
				v.lost = append(v.lost, t)
			}
		}
		// Those that not all have, too: a tag that is misspelt may restrict the service.
		_, problems := Parse(kind, service, slices.Sorted(maps.Keys(times)), settings)
		for _, p := range problems {
			if p.Costs == CostsService {
				v.bad = cmp.Or(p.Tag, p.Message)
			}
		}
		good = good || v.bad == "" && len(v.tags) > 0
		found = append(found, v)
	}
	reasons = map[string]string{}
	for _, v := range found {
		if v.bad != "" && good {
			for _, t := range slices.Concat(v.tags, v.lost) {
				reasons[t] = fmt.Sprintf("only instances have it whose tag %q is not valid", v.bad)
			}
			continue
		}
		if v.bad != "" {
			v.tags, v.lost = slices.Concat(v.tags, v.lost), nil // the edge refuses the service
		}
		tags = append(tags, v.tags...)
		for _, t := range v.lost {
			reasons[t] = "not all instances of one version have it"
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags), reasons
}

func isWeighty(tag string) bool {
	key, _, _ := strings.Cut(strings.TrimPrefix(tag, Prefix), "=")
	return slices.Contains(weighty, key)
}

// edgeTags returns the tags that are the edge's, sorted.
func edgeTags(tags []string) []string {
	var out []string
	for _, t := range tags {
		if strings.HasPrefix(t, Prefix) {
			out = append(out, t)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// tagFor returns the tag that asks for a route, "" for none.
func tagFor(tags []string, key string) string {
	for _, t := range tags {
		if routeKey(t) == key {
			return t
		}
	}
	return ""
}

// from is the route without its kind.
func from(route string) string {
	kind, rest, _ := strings.Cut(route, " ")
	if kind == string(TCP) {
		return "port " + rest
	}
	return rest
}

// Published is a [Decision] as an edge reads it, in the items of a variable: for each
// service the routes that it has, one in a line, at the name of the service; its
// refused tags at its name with ! before it, as "DIGEST REASON"; strictItem; sharedItem, the
// hosts in [Decision.Shared], as "HOST NAMESPACE NAMESPACE"; and the lists of
// [Decision.Own] at their key with ownItem before it, - for an empty one.
type Published map[string]string

const (
	strictItem = "_strict"
	sharedItem = "_shared"
	ownItem    = "_own/"
	// publishedLimit is what the variable may hold, in bytes.
	publishedLimit = 56 << 10
)

// Publish is the form that edges read. partial is true if there are so many
// routes that only those are in it that several services ask for.
func (d Decision) Publish() (p Published, partial bool) {
	refused := map[string]bool{}
	p = Published{}
	add := func(item, line string) {
		if p[item] != "" {
			line = p[item] + "\n" + line
		}
		p[item] = line
	}
	for _, r := range d.Refused {
		refused[routeKey(r.Tag)] = true
		add("!"+r.Service, tagDigest(r.Tag)+" "+strings.Join(strings.Fields(r.Message), " "))
	}
	size := 0
	for _, c := range d.Claims {
		size += len(c.Route) + len(c.Service) + 2
	}
	partial = size > publishedLimit/2
	seen := map[string]bool{}
	for _, c := range d.Claims {
		if strings.HasPrefix(c.Route, authenticator) {
			continue
		}
		if id := c.Route + "\x00" + c.Service; !seen[id] && (!partial || refused[c.Route]) {
			seen[id] = true
			add(c.Service, c.Route)
		}
	}
	if d.Strict && !partial {
		p[strictItem] = "1"
	}
	for _, host := range slices.Sorted(maps.Keys(d.Shared)) {
		add(sharedItem, host+" "+strings.Join(d.Shared[host], " "))
	}
	for key, ids := range d.Own {
		p[ownItem+key] = cmp.Or(strings.Join(ids, "\n"), "-")
	}
	return p, partial
}

// owns reports whether an instance of a service gets requests.
func (p Published) owns(service, id string) bool {
	ids, contested := p[ownItem+service]
	return !contested || slices.Contains(strings.Split(ids, "\n"), tagDigest(id))
}

// tagDigest stands for a tag, whatever characters it has.
func tagDigest(tag string) string {
	sum := sha256.Sum256([]byte(tag))
	return hex.EncodeToString(sum[:8])
}

// Filter removes the tags that do not count from the services of Consul's catalog, as
// the job files do, and says which.
func (p Published) Filter(services map[string][]string) (map[string][]string, []Problem) {
	owners := map[string][]string{}
	for item, text := range p {
		if !strings.HasPrefix(item, "_") && !strings.HasPrefix(item, "!") {
			for route := range strings.SplitSeq(text, "\n") {
				owners[route] = append(owners[route], item)
			}
		}
	}
	out := make(map[string][]string, len(services))
	var problems []Problem
	for _, service := range slices.Sorted(maps.Keys(services)) {
		reasons := map[string]string{}
		for line := range strings.SplitSeq(p["!"+service], "\n") {
			digest, reason, _ := strings.Cut(line, " ")
			reasons[digest] = reason
		}
		for _, t := range services[service] {
			reason := ""
			if strings.HasPrefix(t, Prefix) {
				key := routeKey(t)
				owner := owners[key]
				switch r, refused := reasons[tagDigest(t)]; {
				case refused:
					reason = r
				case key == "":
				case len(owner) > 0 && !slices.Contains(owner, service):
					reason = from(key) + " belongs to service " + owner[0]
				case len(owner) == 0 && p[strictItem] != "":
					reason = "the controller has not allowed it yet"
				}
			}
			if reason == "" {
				out[service] = append(out[service], t)
				continue
			}
			remedy := "Let the tag have another host, path or port, or stop the job that has it."
			switch {
			case strings.Contains(reason, "the host "):
				remedy = "Use a host of the namespace, or write down what each namespace may claim in the variable tenants of the stack of the edge (docs/reference/tenancy.md)."
			case strings.Contains(reason, "instances"), strings.Contains(reason, "instance of"):
				remedy = "Give all instances of the service the same tags, or call one of the services otherwise."
			case strings.Contains(reason, "yet"):
				remedy = "It takes a second. If it stays, look at the log of the controller: drover logs drover."
			}
			if first, _, _ := strings.Cut(reason, " "); !strings.Contains(first, ".") { // no host
				reason = strings.ToUpper(reason[:1]) + reason[1:]
			}
			problems = append(problems, Problem{service, t, reason, remedy, CostsTag})
		}
		if _, there := out[service]; !there {
			out[service] = []string{}
		}
		if _, contested := p[ownItem+service]; contested {
			problems = append(problems, Problem{service, "", "Instances of another namespace have this name too, and get no requests", "Call one of the services otherwise, or restrict the names of services (docs/reference/tenancy.md).", CostsNothing})
		}
	}
	return out, problems
}
