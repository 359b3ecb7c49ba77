// Command pause owns the network namespace of an allocation, as the image does that
// Nomad's docker driver takes for groups in bridge mode.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	<-stop
}
