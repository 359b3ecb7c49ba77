# What the failed tests of `go test -v` said, test by test, from an output in
# which everything that ran side by side is mixed: the last lines of each, where
# a command's error is.
/^=== PAUSE / { next }
/^=== (RUN|NAME|CONT) / { now = $3; next }
/^ *--- FAIL: / { order[++n] = $3; now = ""; next }
/^ *--- / || /^(ok|FAIL|PASS|panic)/ { now = ""; next }
/^    devtest\.go/ { now = "" } # logs of agents, which are long
now { line[now, said[now]++] = $0 }
END {
  for (i = 1; i <= n; i++) {
    t = order[i]
    if (!said[t]) continue
    printf "\nFAILED %s\n", t
    for (k = (said[t] > 60 ? said[t] - 60 : 0); k < said[t]; k++) print line[t, k]
  }
}
