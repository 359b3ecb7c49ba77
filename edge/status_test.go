package edge

import (
	"strings"
	"testing"
)

func TestRefusal(t *testing.T) {
	t.Parallel()
	const (
		refused = "[NOTICE]   (7) : Reloading HAProxy\n[ALERT]    (7) : config : parsing [/alloc/edge/local/loaded.cfg:10] : unknown keyword 'bad'\n" +
			"[ALERT]    (7) : config : Error(s) found in configuration file : /alloc/edge/local/loaded.cfg\n[WARNING]  (7) : Loading failure!\n"
		why   = "parsing [local/loaded.cfg:10] : unknown keyword 'bad'"
		emerg = "2026/11/30 09:00:00 [notice] 7#7: signal 1 (SIGHUP) received from 9, reconfiguring\n2026/11/30 09:00:00 [emerg] 7#7: cannot load certificate \"/alloc/edge/secrets/certs/public.pem\"\n"
		whyN  = "cannot load certificate \"secrets/certs/public.pem\""
	)
	for name, c := range map[string]struct {
		kind      Kind
		log, want string
	}{
		"nothing yet":             {HAProxy, "", ""},
		"refused":                 {HAProxy, refused, why},
		"refused twice":           {HAProxy, refused + refused, why},
		"read again":              {HAProxy, refused + "[NOTICE]   (7) : Reloading HAProxy\n", why},
		"accepted after that":     {HAProxy, refused + "[NOTICE]   (7) : Reloading HAProxy\n[NOTICE]   (7) : New worker (9) forked\n[NOTICE]   (7) : Loading success.\n", ""},
		"checked, and refused":    {HAProxy, refused + "Checking whether HAProxy takes its files\n" + strings.Replace(strings.SplitN(refused, "\n", 2)[1], "bad", "worse", 1), strings.Replace(why, "bad", "worse", 1)},
		"nginx: refused":          {Nginx, emerg, whyN},
		"nginx: refused twice":    {Nginx, emerg + emerg, whyN},
		"nginx: read again":       {Nginx, emerg + "2026/11/30 09:00:02 [notice] 7#7: signal 1 (SIGHUP) received from 9, reconfiguring\n", whyN},
		"nginx: accepted at last": {Nginx, emerg + "2026/11/30 09:00:02 [notice] 7#7: signal 1 (SIGHUP) received from 9, reconfiguring\n2026/11/30 09:00:02 [notice] 7#7: start worker processes\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Refusal(c.kind, c.log); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
