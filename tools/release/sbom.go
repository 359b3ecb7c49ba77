package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A bill of materials in CycloneDX 1.6 JSON (https://cyclonedx.org/docs/1.6/json/),
// only of what is said here.
type bom struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     bomMetadata  `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type bomMetadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Licenses   []licence  `json:"licenses,omitempty"`
	Purl       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type licence struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// sbom lists the modules in the binary, from its build information and not from go.mod.
// It does not list which module needs which other one.
func sbom(name string, binary []byte, src source, linked []module) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("build information of %s: %w", name, err)
	}
	ids := map[string][]string{}
	for _, m := range linked {
		ids[m.path+"@"+m.version] = m.ids
	}
	sum := sha256.Sum256(binary)
	main := component{
		Ref: "drover", Type: "application", Name: info.Main.Path, Version: src.version,
		Hashes:   []hash{{"SHA-256", fmt.Sprintf("%x", sum)}},
		Licenses: licences([]string{"Apache-2.0"}),
		Purl:     purl(info.Main.Path, "v"+src.version),
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "CGO_ENABLED", "GOARCH", "GOOS", "GOAMD64", "GOARM64", "-trimpath":
			main.Properties = append(main.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	main.Properties = append(main.Properties, property{"vcs:revision", src.commit})

	b := bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: bomMetadata{src.time.Format(time.RFC3339), main},
	}
	// The same binary has the same number: version and variant of RFC 9562, 5.8.
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	b.Serial = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])

	std := "v" + strings.TrimPrefix(info.GoVersion, "go")
	b.Components = append(b.Components, component{
		Ref: purl("std", std), Type: "library", Name: "std", Version: std, Licenses: licences([]string{"BSD-3-Clause"}), Purl: purl("std", std),
	})
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		known, ok := ids[d.Path+"@"+d.Version]
		if !ok {
			return nil, fmt.Errorf("%s is linked, but go list does not know it", d.Path)
		}
		c := component{
			Ref: purl(d.Path, d.Version), Type: "library", Name: d.Path, Version: d.Version,
			Licenses: licences(known), Purl: purl(d.Path, d.Version),
		}
		if d.Sum != "" {
			c.Properties = []property{{"go:sum", d.Sum}}
		}
		b.Components = append(b.Components, c)
	}
	root := dependency{Ref: "drover"}
	b.Dependencies = append(b.Dependencies, dependency{})
	for _, c := range b.Components {
		root.DependsOn = append(root.DependsOn, c.Ref)
		b.Dependencies = append(b.Dependencies, dependency{Ref: c.Ref})
	}
	b.Dependencies[0] = root
	text, err := json.MarshalIndent(b, "", "  ")
	return append(text, '\n'), err
}

func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}

func licences(ids []string) []licence {
	out := make([]licence, len(ids))
	for i, id := range ids {
		out[i].License.ID = id
	}
	return out
}
