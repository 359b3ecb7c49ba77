package record

import (
	"fmt"
	"testing"

	"github.com/hashicorp/nomad/api"
)

func TestIndexes_NewestReleaseAndSchedules(t *testing.T) {
	t.Parallel()
	var list []*api.VariableMetadata
	for i, path := range []string{
		"shop/prod/lock", "shop/prod/blobs/abc", "shop/prod/secrets",
		"shop/prod/releases/000009/00", // of an older release, and written last
		"shop/prod/releases/000010", "shop/prod/releases/000010/00", "shop/prod/releases/000010/01",
		"shop/prod/schedules/night", "shop/prod/schedules/at~20noon",
		"a~2fb/dev/releases/000001",
		"idle/dev/schedules/weekly",
		"idle/dev/releases/new", // no number
	} {
		index := uint64(100 + i)
		if i == 3 {
			index = 999
		}
		list = append(list, &api.VariableMetadata{Path: stacksFolder + path, ModifyIndex: index})
	}
	got := fmt.Sprint(indexesOf(list))
	want := "[{a/b dev 1 109 map[]} {idle dev 0 0 map[weekly:110]} {shop prod 10 106 map[at noon:108 night:107]}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
