package acmetest

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends a program also when the tests are killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
