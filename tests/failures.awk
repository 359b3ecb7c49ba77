# What the failed tests of `go test -v` said, test by test, from an output in
# which everything that ran side by side is mixed.
/^=== PAUSE / { next }
/^=== (RUN|NAME|CONT) / { now = $3; next }
/^ *--- FAIL: / { order[++n] = $3; now = ""; next }
/^ *--- / || /^(ok|FAIL|PASS|panic)/ { now = ""; next }
/^    devtest\.go/ { now = "" } # logs of agents, which are long
now && said[now] < 40 { said[now]++; text[now] = text[now] $0 "\n" }
END { for (i = 1; i <= n; i++) if (text[order[i]]) printf "\nFAILED %s\n%s", order[i], text[order[i]] }
