package lint

import (
	"fmt"
	"slices"
)

// withoutMounts are the task drivers that mount no volumes: Nomad refuses to
// start a task with a volume_mount of a host or CSI volume.
var withoutMounts = []string{"raw_exec", "qemu", "mock_driver"}

func volumeMount(s *subject) {
	for _, g := range s.Job.Job.TaskGroups {
		for _, t := range g.Tasks {
			if len(t.VolumeMounts) > 0 && slices.Contains(withoutMounts, t.Driver) {
				s.report(s.at(group(g), "task "+t.Name, "volume_mount"),
					fmt.Sprintf("Task %q mounts volume %q, and the driver %s mounts no volumes", t.Name, name(t.VolumeMounts[0].Volume), t.Driver),
					"Use a driver that mounts volumes, such as docker or exec, or leave volume_mount out.")
			}
		}
	}
}
