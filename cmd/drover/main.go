// Command drover deploys applications made of many Nomad jobs.
package main

import (
	"os"
	_ "time/tzdata" // schedules name time zones, and a container has none

	"github.com/drover-nomad/drover/cmd/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:]))
}
