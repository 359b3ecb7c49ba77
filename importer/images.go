package importer

import (
	_ "embed" // images.txt
	"strconv"
	"strings"
	"sync"
)

// image is what is known of a public image: the ports on which it listens without
// configuration, the memory in MB that it needs, and the owner of its data.
type image struct {
	ports  []int
	memory int
	user   string // number of the user that must own its volumes
	data   []string
}

// Image is what a reader may ask about a public image.
type Image struct {
	Known bool
	User  string   // number of the user that must own its volumes; "" for root or unknown
	Data  []string // where it keeps its data
}

// KnownImage returns what is known of the image of a reference.
func KnownImage(ref string) Image {
	known := knownImage(ref)
	return Image{Known: known.memory+len(known.ports) > 0, User: known.user, Data: known.data}
}

// knownImages are by the last part of the name of the image.
func knownImage(ref string) image {
	name := imageName(ref)
	if known, ok := imageTable()[name]; ok {
		return known
	}
	base := name[strings.LastIndexByte(name, '/')+1:]
	if strings.HasPrefix(name, "bitnami/") || strings.HasPrefix(name, "bitnamilegacy/") {
		known := imageTable()[base]
		switch base {
		case "nginx":
			known.ports = []int{8080, 8443}
		case "wordpress":
			known.ports = []int{8080, 8443}
		}
		known.user = "1001"
		return known
	}
	return imageTable()[base]
}

// imageName is a reference without registry, tag and digest.
func imageName(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if at := strings.LastIndexByte(ref, ':'); at > strings.LastIndexByte(ref, '/') {
		ref = ref[:at]
	}
	first, rest, several := strings.Cut(ref, "/")
	if several && (strings.ContainsAny(first, ".:") || first == "localhost") {
		ref = rest
	}
	return strings.TrimPrefix(ref, "library/")
}

//go:embed images.txt
var imageText string

// imageTable is images.txt by the name of the image without its owner.
var imageTable = sync.OnceValue(func() map[string]image {
	table := map[string]image{}
	for _, line := range strings.Split(imageText, "\n") {
		col := strings.Fields(line)
		if len(col) != 5 || col[0] == "#" {
			continue
		}
		var known image
		for _, p := range strings.Split(col[1], ",") {
			if n, err := strconv.Atoi(p); err == nil {
				known.ports = append(known.ports, n)
			}
		}
		known.memory, _ = strconv.Atoi(col[2])
		if col[3] != "-" {
			known.user = col[3]
		}
		if col[4] != "-" {
			known.data = strings.Split(col[4], ",")
		}
		table[col[0]] = known
	}
	return table
})
