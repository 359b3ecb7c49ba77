package e2e

import "syscall"

// kill ends a process as an operator's kill -9 does.
func kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
