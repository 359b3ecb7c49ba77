// Package pins holds the Go modules from which a dev cluster builds its
// programs. They are part of drover's binary, so that an installed drover
// needs no checkout.
package pins

import "embed"

// FS has one directory for each module, such as nomad. The name of each file
// ends in ".txt", which a build strips: a directory with a go.mod would be
// another module, whose files cannot be embedded.
//
//go:embed */*.txt ocis/*/*.txt
var FS embed.FS
