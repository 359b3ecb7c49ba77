package devcluster

import (
	"io/fs"
	"regexp"
	"strings"
)

// The programs that Tools.Path knows.
const (
	Nomad              = "nomad"
	Consul             = "consul"
	OCIS               = "ocis"
	Pebble             = "pebble"
	PebbleChallTestSrv = "pebble-challtestsrv"
	OAuth2Proxy        = "oauth2-proxy"
	OIDCServer         = "oidc-server" // a provider of OpenID Connect
	S3Server           = "s3-server"   // object storage with the API of Amazon S3
	VictoriaMetrics    = "victoria-metrics"
	VMAlert            = "vmalert"
	NomadAutoscaler    = "nomad-autoscaler"
)

// PowerDNS is the program that Options.DNS asks for. It is not built: it must
// be installed.
const PowerDNS = "powerdns"

// Tools finds the programs that a dev cluster and its tasks run. It takes a
// program from PATH if its version fits, and otherwise builds it, once, from
// the module that pins it. The zero Tools is ready to use.
type Tools struct {
	// Pins has one Go module per program, in the form of package pins, whose
	// modules are the default.
	Pins fs.FS
	// CacheDir is where builds are kept: by default
	// ${XDG_CACHE_HOME:-~/.cache}/drover/tools.
	CacheDir string
	// BuildFlags are given to go build; what was built with others, or stands
	// on PATH, is then not taken.
	BuildFlags []string
	// Programs are paths of programs that are taken as they are, by name.
	Programs map[string]string
	// Events receives progress; it may be nil.
	Events func(Event)
}

// tool is how to recognize and build one program.
type tool struct {
	name   string
	module string // directory in Tools.Pins
	main   string // package to build
	wants  string // the version that fits, for a person
	fits   *regexp.Regexp
	// ask is true if `<tool> version` prints the version. The version of the
	// others is read from the build information in the binary: `ocis version`
	// contacts the service registry, and pebble has no such command.
	ask  bool
	path string // main module, for those that are not asked
	// cgo leaves cgo as it is: Nomad needs it for what it knows of users and
	// groups, oCIS for libcrypt.
	cgo bool
}

// tools are built without Nomad's "release" tag, so that mock_driver is there.
func lookupTool(name string) (tool, error) {
	all := []tool{
		{name: Nomad, module: "nomad", main: "github.com/hashicorp/nomad", wants: "1.11 or 2.0", ask: true, cgo: true,
			fits: regexp.MustCompile(`^Nomad v(1\.11|2\.0)\.\d+(\s|$)`)},
		{name: Consul, module: "consul", main: "github.com/hashicorp/consul", wants: "1.20", ask: true,
			fits: regexp.MustCompile(`^Consul v1\.20\.\d+(\s|$)`)},
		{name: OCIS, module: "ocis", main: "github.com/owncloud/ocis/v2/ocis/cmd/ocis", wants: "2.0.0", cgo: true,
			fits: regexp.MustCompile(`^v?2\.0\.0$`), path: "github.com/owncloud/ocis/v2"},
		{name: Pebble, module: "pebble", main: "github.com/letsencrypt/pebble/v2/cmd/pebble", wants: "2",
			fits: regexp.MustCompile(`^v2\.\d+\.\d+$`), path: "github.com/letsencrypt/pebble/v2"},
		{name: PebbleChallTestSrv, module: "pebble", main: "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv", wants: "2",
			fits: regexp.MustCompile(`^v2\.\d+\.\d+$`), path: "github.com/letsencrypt/pebble/v2"},
		{name: OAuth2Proxy, module: "oauth2-proxy", main: "github.com/oauth2-proxy/oauth2-proxy/v7", wants: "7",
			fits: regexp.MustCompile(`^v7\.\d+\.\d+$`), path: "github.com/oauth2-proxy/oauth2-proxy/v7"},
		{name: OIDCServer, module: "oauth2-proxy", main: "github.com/zitadel/oidc/v3/example/server", wants: "3",
			fits: regexp.MustCompile(`^v3\.\d+\.\d+$`), path: "github.com/zitadel/oidc/v3"},
		{name: S3Server, module: "gofakes3", main: "github.com/johannesboyne/gofakes3/cmd/gofakes3", wants: "1.2",
			fits: regexp.MustCompile(`^v1\.[2-9]\.\d+$`), path: "github.com/johannesboyne/gofakes3"},
		{name: VictoriaMetrics, module: "victoriametrics", main: "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics", wants: "1.151",
			fits: regexp.MustCompile(`^v1\.151\.\d+$`), path: "github.com/VictoriaMetrics/VictoriaMetrics"},
		{name: VMAlert, module: "victoriametrics", main: "github.com/VictoriaMetrics/VictoriaMetrics/app/vmalert", wants: "1.151",
			fits: regexp.MustCompile(`^v1\.151\.\d+$`), path: "github.com/VictoriaMetrics/VictoriaMetrics"},
		{name: NomadAutoscaler, module: "nomad-autoscaler", main: "github.com/hashicorp/nomad-autoscaler", wants: "0.5",
			fits: regexp.MustCompile(`^v0\.5\.\d+$`), path: "github.com/hashicorp/nomad-autoscaler"},
	}
	var names []string
	for _, t := range all {
		if t.name == name {
			return t, nil
		}
		names = append(names, t.name)
	}
	return tool{}, invalidf("%q is no tool that drover knows: there are %s", name, strings.Join(names, ", "))
}

func (t Tools) flags() []string {
	return append([]string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w"}, t.BuildFlags...)
}
