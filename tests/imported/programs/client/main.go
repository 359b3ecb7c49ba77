// Command client is the client of the conformance cases of the Compose specification:
// it gives its host name to the service "server", once.
package main

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	time.Sleep(time.Second) // the original waits for the server in this way
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ask := "http://server:8080/scalechecker?value=" + url.QueryEscape(os.Getenv("HOSTNAME"))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ask, nil) // #nosec G704 -- the host is fixed
	if err != nil {
		return 2
	}
	resp, err := http.DefaultClient.Do(req) // #nosec G704 -- as above
	if err != nil {
		return 2
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 2
	}
	return 0
}
