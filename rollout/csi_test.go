package rollout

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

func TestCheckCSIVolumes(t *testing.T) {
	t.Parallel()
	stub := func(f func(*api.CSIVolumeListStub)) *api.CSIVolumeListStub {
		v := &api.CSIVolumeListStub{ID: "data", PluginID: "disks", Schedulable: true, NodesHealthy: 1, NodesExpected: 1, AccessMode: api.CSIVolumeAccessModeSingleNodeWriter}
		f(v)
		return v
	}
	claimed := func(job, status string) *api.CSIVolume {
		return &api.CSIVolume{ID: "data", WriteAllocs: map[string]*api.Allocation{"12345678-9": nil}, Allocations: []*api.AllocationListStub{{ID: "12345678-9", JobID: job, ClientStatus: status}}}
	}
	free := stub(func(*api.CSIVolumeListStub) {})
	written := stub(func(v *api.CSIVolumeListStub) { v.CurrentWriters = 1 })
	for name, c := range map[string]struct {
		list     []*api.CSIVolumeListStub
		volume   *api.CSIVolume
		status   int // of the list, 200 when 0
		perAlloc bool
		readOnly bool
		want     string
	}{
		"there and free":            {list: []*api.CSIVolumeListStub{free}},
		"not there":                 {want: `job "web" needs CSI volume "data", which is not in namespace default`},
		"one for each instance":     {list: []*api.CSIVolumeListStub{free}, perAlloc: true, want: `needs CSI volume "data[0]", which is not in namespace default`},
		"its plugin is not healthy": {list: []*api.CSIVolumeListStub{stub(func(v *api.CSIVolumeListStub) { v.Schedulable, v.NodesHealthy = false, 0 })}, want: "its plugin disks is healthy on 0 of 1 nodes"},
		"claimed by another job":    {list: []*api.CSIVolumeListStub{written}, volume: claimed("db", "running"), want: `which allocation 12345678 of job "db" has claimed as single-node-writer`},
		"claimed by the job itself": {list: []*api.CSIVolumeListStub{written}, volume: claimed("web", "running")},
		"claimed by what has ended": {list: []*api.CSIVolumeListStub{written}, volume: claimed("db", "complete")},
		"many may write": {list: []*api.CSIVolumeListStub{stub(func(v *api.CSIVolumeListStub) {
			v.AccessMode, v.CurrentWriters = api.CSIVolumeAccessModeMultiNodeMultiWriter, 3
		})}},
		"claimed by readers": {list: []*api.CSIVolumeListStub{stub(func(v *api.CSIVolumeListStub) { v.AccessMode = api.CSIVolumeAccessModeMultiNodeReader })}, want: "mount it with read_only = true"},
		"read beside readers": {list: []*api.CSIVolumeListStub{stub(func(v *api.CSIVolumeListStub) {
			v.AccessMode, v.CurrentReaders = api.CSIVolumeAccessModeMultiNodeReader, 2
		})}, readOnly: true},
		"a token that may not look":   {status: http.StatusForbidden},
		"a server that has no answer": {status: http.StatusInternalServerError, want: "listing CSI volumes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Nomad-Index", "1")
				w.Header().Set("X-Nomad-LastContact", "0")
				switch {
				case c.status != 0:
					w.WriteHeader(c.status)
				case r.URL.Path == "/v1/volumes":
					_ = json.NewEncoder(w).Encode(c.list)
				case r.URL.Path == "/v1/volume/csi/data":
					_ = json.NewEncoder(w).Encode(c.volume)
				default:
					http.NotFound(w, r)
				}
			}))
			defer s.Close()
			client, err := nomadClient(s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			job := mockJob("web", runs())
			job.TaskGroups[0].Volumes = map[string]*api.VolumeRequest{"v": {Type: "csi", Source: "data", PerAlloc: c.perAlloc, ReadOnly: c.readOnly}}
			err = CheckCSIVolumes(t.Context(), nomad.Clients{Nomad: client}, []render.Job{service(job)})
			if got := strings.TrimSpace(errText(err)); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
