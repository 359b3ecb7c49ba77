// Command drover deploys applications made of many Nomad jobs.
package main

import (
	"os"
	_ "time/tzdata" // schedules name time zones, and a container has none

	// In an image without a file of trusted CAs, those of Mozilla.
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/drover-nomad/drover/cmd/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:]))
}
