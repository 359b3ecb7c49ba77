// Command drover deploys applications made of many Nomad jobs.
package main

import (
	"os"

	"github.com/drover-nomad/drover/cmd/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:]))
}
