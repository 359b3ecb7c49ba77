package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

func volumes(f *Facts, n Needs) []Finding {
	found := unknown(f, "volumes", "")
	for _, l := range f.Lost {
		found = append(found, Finding{Severity: Error, Subject: l.Volume, Reason: "job " + l.JobID + ": " + l.String(), Mend: l.Recreate()})
	}
	for _, p := range f.CSI {
		found = append(found, Finding{Severity: Error, Subject: p.Volume, Reason: p.Error(), Mend: "nomad volume status -type csi"})
	}
	for _, v := range f.Volumes {
		if v.Missing != "" {
			found = append(found, Finding{Severity: Error, Subject: v.Name, Reason: v.Missing, Mend: "drover deploy " + n.Stack + " --create-volumes, or nomad volume create"})
		}
	}
	for _, p := range f.Probes {
		for _, name := range slices.Sorted(maps.Keys(p.Volumes)) {
			v, subject := p.Volumes[name], name+" on "+p.Node
			switch {
			case v.Err != "":
				remedy := "ls -ld " + v.Path + " there, and nomad volume status -type host " + name
				if v.Err == noDirectory {
					remedy = "mkdir -p " + v.Path + " there"
				}
				found = append(found, Finding{Severity: Error, Subject: subject, Reason: fmt.Sprintf("its directory %s cannot be used: %s", v.Path, v.Err), Mend: remedy})
				continue
			case v.XAttr == "no":
				found = append(found, Finding{
					Severity: Warning, Subject: subject,
					Reason: "the file system keeps no user.* extended attributes, in which oCIS keeps what it knows of files",
					Mend:   "put the volume on ext4, xfs or zfs with xattr=sa",
				})
			case v.XAttr == "unknown":
				found = append(found, Finding{
					Severity: Unknown, Subject: subject,
					Reason: "whether the file system keeps extended attributes could not be tried: there is neither setfattr nor python3",
					Mend:   "apt-get install attr there, or --probe-image with setfattr for the driver docker",
				})
			case v.XAttr == "untried":
				found = append(found, Finding{
					Severity: Unknown, Subject: subject,
					Reason: "whether the file system keeps extended attributes could not be tried: the probe may not write there",
					Mend:   "drover doctor " + n.Stack + " --probe --probe-driver raw_exec, or docker",
				})
			}
			for _, user := range volumeUsers(n, sourceOf(f, name)) {
				if uid, err := strconv.Atoi(user); err == nil && uid != v.UID && v.Mode&0o002 == 0 {
					found = append(found, Finding{
						Severity: Error, Subject: subject,
						Reason: fmt.Sprintf("its directory %s belongs to user %d (mode %o), the task runs as %d", v.Path, v.UID, v.Mode, uid),
						Mend:   fmt.Sprintf("chown %d %s there", uid, v.Path),
					})
				}
			}
		}
	}
	seen := slices.ContainsFunc(f.Probes, func(p NodeProbe) bool { return len(p.Volumes) > 0 })
	if slices.ContainsFunc(f.Volumes, func(v Volume) bool { return v.Missing == "" }) && !seen {
		found = append(found, Finding{Severity: Unknown, Reason: "owner and extended attributes of volumes are seen on the nodes only", Mend: "drover doctor " + n.Stack + " --probe"})
	}
	if len(f.Volumes) == 0 {
		return found
	}
	return good(found, fmt.Sprintf("%d host volumes", len(f.Volumes)))
}

// sourceOf is the name that the stack gives a volume.
func sourceOf(f *Facts, volume string) string {
	for _, v := range f.Volumes {
		if v.Name == volume {
			return cmp.Or(v.Source, volume)
		}
	}
	return volume
}

// volumeUsers are the users of the tasks that mount a volume for writing.
func volumeUsers(n Needs, source string) []string {
	var users []string
	for _, j := range n.Jobs {
		for _, g := range j.Job.TaskGroups {
			for name, v := range g.Volumes {
				if v.Source != source || v.ReadOnly {
					continue
				}
				for _, t := range g.Tasks {
					for _, m := range t.VolumeMounts {
						if m.Volume != nil && *m.Volume == name && t.User != "" && !slices.Contains(users, t.User) {
							users = append(users, t.User)
						}
					}
				}
			}
		}
	}
	return users
}
