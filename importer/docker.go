package importer

import "regexp"

var capability = regexp.MustCompile(`(?i)^(CAP_)?(AUDIT_WRITE|CHOWN|DAC_OVERRIDE|FOWNER|FSETID|KILL|MKNOD|NET_BIND_SERVICE|SETFCAP|SETGID|SETPCAP|SETUID|SYS_CHROOT)$`)

// AllowedCapability reports whether the docker driver allows a capability without
// allow_caps in the configuration of the client.
func AllowedCapability(name string) bool { return capability.MatchString(name) }
