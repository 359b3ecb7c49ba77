//go:build unix

package dns

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the end of a cancelled program end its children too.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
