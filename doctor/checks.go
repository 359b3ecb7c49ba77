package doctor

// Check examines one aspect of the facts.
type Check struct {
	Name string
	Asks string // what it looks at, as in docs/how-to/doctor.md
	look func(*Facts, Needs) []Finding
}

// Checks are all checks, in the order of docs/how-to/doctor.md.
func Checks() []Check {
	return []Check{
		{"version", "Nomad and Consul are new enough, and all of one version", versions},
		{"servers", "a server can fail without an outage", servers},
		{"acl", "ACLs are on, and the token may do what drover does", acl},
		{"scheduler", "jobs may be registered and are scheduled", scheduler},
		{"nodes", "nodes are there and take allocations", nodes},
		{"driver", "the task drivers that the stack uses are healthy somewhere", drivers},
		{"placement", "each job of the stack finds a node: constraints, resources, ports", placement},
		{"volume", "the host volumes are there, writable for their task, and keep extended attributes; CSI volumes can be mounted", volumes},
		{"disk", "there is space where allocations and volumes are", disks},
		{"port", "no process outside of Nomad listens on a static port of the stack", ports},
		{"mesh", "the addresses on which a mesh of the stack listens are local on each node", mesh},
		{"clock", "the clocks agree", clocks},
		{"consul", "each node has a Consul agent of its own, and Nomad's servers know Consul", consulNomad},
		{"dns", "the domains resolve, from here and inside of an allocation", names},
		{"reach", "the domains can be reached on 443 and 80, or the port that a check names, from here and inside of an allocation", reach},
		{"routes", "an edge takes each service with routes; no two services, and no two namespaces without a table, claim one route or host of it", routes},
		{"keyring", "what a lost or stolen snapshot would mean for the secrets", keyring},
		{"shutdown-delay", "stopping instances are deregistered before they stop", shutdownDelay},
	}
}

// unknown returns the finding for facts that could not be collected, nil if they were.
func unknown(f *Facts, key, remedy string) []Finding {
	if err := f.Missing[key]; err != nil {
		return []Finding{{Severity: Unknown, Reason: err.Error(), Mend: remedy}}
	}
	return nil
}

// good returns the finding of a check that found no problem.
func good(found []Finding, reason string) []Finding {
	if len(found) == 0 {
		return []Finding{{Severity: OK, Reason: reason}}
	}
	return found
}
