// Command embed deploys a stack with drover's Go API and prints the events.
//
//	go run ./examples/embed examples/shop
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: embed STACK")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "cannot deploy:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	lines := json.NewEncoder(os.Stdout) // one event per line, as drover deploy -o json
	d := deploy.Deploy{
		Home:   deploy.Home{Environ: os.Environ(), Holder: record.Self("embed", os.Getenv), Version: "embed"},
		Source: deploy.Source{Path: path},
		Events: func(e deploy.Event) { _ = lines.Encode(e) },
	}
	result, err := d.Run(ctx)
	if r := result.Release; r != nil {
		fmt.Fprintf(os.Stderr, "release %d is %s\n", r.Number, r.State)
	}
	return err
}
