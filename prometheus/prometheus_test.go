package prometheus

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestClient_Query(t *testing.T) {
	t.Parallel()
	vector := func(samples string) string {
		return `{"status":"success","data":{"resultType":"vector","result":[` + samples + `]}}`
	}
	for name, c := range map[string]struct {
		status  int
		body    string
		want    string // series
		err     string
		refused bool
	}{
		"one series":        {200, vector(`{"metric":{},"value":[1.5,"0.25"]}`), "[0.25]", "", false},
		"several series":    {200, vector(`{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"NaN"]},{"metric":{},"value":[1,"+Inf"]}`), "[1 NaN +Inf]", "", false},
		"no series":         {200, vector(""), "[]", "", false},
		"a scalar":          {200, `{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}`, "[3]", "", false},
		"a range":           {200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, "[]", "the source refuses the query: its result is a matrix, not a vector or a scalar", true},
		"a string":          {200, `{"status":"success","data":{"resultType":"string","result":[1,"x"]}}`, "[]", "the source refuses the query: its result is a string, not a vector or a scalar", true},
		"a histogram":       {200, vector(`{"metric":{},"histogram":[1,{}]}`), "[0]", "the source refuses the query: a series of its result is not a number", true},
		"a bad query":       {400, `{"status":"error","errorType":"bad_data","error":"parse error: unexpected )"}`, "[]", "the source refuses the query: parse error: unexpected )", true},
		"too many samples":  {422, `{"status":"error","errorType":"execution","error":"query processing would load too many samples"}`, "[]", "the source refuses the query: query processing would load too many samples", true},
		"a wrong token":     {401, "Unauthorized", "[]", "HTTP status 401", false},
		"a busy server":     {503, `{"status":"error","errorType":"timeout","error":"x"}`, "[]", "HTTP status 503", false},
		"another server":    {200, "<html>", "[]", "the answer is not one of Prometheus' HTTP API", false},
		"a partial answer":  {200, `{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`, "[]", "the answer is partial: a part of the storage is away", false},
		"a malformed value": {200, vector(`{"metric":{},"value":1}`), "[]", "the answer is not one of Prometheus' HTTP API", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked *http.Request
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer srv.Close()
			client := Client{Address: srv.URL + "/select/", HTTP: srv.Client(), Secret: "token"}
			series, err := client.Query(t.Context(), `up{job="a b"}`, time.Time{})
			if got := fmt.Sprint(series); err == nil && got != c.want {
				t.Errorf("got series %s, want %s", got, c.want)
			}
			if got := fmt.Sprint(err); err == nil && c.err != "" || err != nil && got != c.err {
				t.Errorf("got error %q, want %q", got, c.err)
			}
			var refusal *RefusedError
			if got := errors.As(err, &refusal); got != c.refused {
				t.Errorf("got refused %v, want %v", got, c.refused)
			}
			if asked.URL.Path != "/select/api/v1/query" || asked.URL.Query().Get("query") != `up{job="a b"}` || asked.Header.Get("Authorization") != "Bearer token" {
				t.Errorf("got request %s, authorization %q", asked.URL, asked.Header.Get("Authorization"))
			}
		})
	}
}

func TestClient_NoAnswer(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	client := Client{Address: srv.URL, HTTP: &http.Client{}, Username: "u", Secret: "hunter22"}
	_, err := client.Query(t.Context(), "secret_query", time.Time{})
	if err == nil || !strings.HasPrefix(err.Error(), "no answer: ") || strings.Contains(err.Error(), "secret_query") || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("got error %v, want one without query and password", err)
	}
}

func TestClient_QueryRange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ result, want, err string }{
		"two series":  {`{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"2.5"]]},{"metric":{"a":"1"},"values":[[1,"NaN"]]}]}`, "[[1 2.5] [NaN]]", ""},
		"no series":   {`{"resultType":"matrix","result":[]}`, "[]", ""},
		"a vector":    {`{"resultType":"vector","result":[]}`, "[]", "the answer is not one of Prometheus' HTTP API"},
		"a histogram": {`{"resultType":"matrix","result":[{"metric":{},"values":[[1]]}]}`, "[]", "the source refuses the query: a series of its result is not a number"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := ""
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.URL.String()
				_, _ = io.WriteString(w, `{"status":"success","data":`+c.result+`}`)
			}))
			defer srv.Close()
			series, err := Client{Address: srv.URL, HTTP: srv.Client()}.QueryRange(t.Context(), "up", time.Unix(340, 0), time.Unix(940, 5e8), 10*time.Second)
			if got := fmt.Sprint(series); err == nil && got != c.want {
				t.Errorf("got series %s, want %s", got, c.want)
			}
			if got := fmt.Sprint(err); err == nil && c.err != "" || err != nil && got != c.err {
				t.Errorf("got error %q, want %q", got, c.err)
			}
			if want := "/api/v1/query_range?end=940.500&query=up&start=340.000&step=10"; asked != want {
				t.Errorf("got request %s, want %s", asked, want)
			}
		})
	}
}
