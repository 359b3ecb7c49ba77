# What the failed tests of `go test -v` said, test by test, from an output in
# which everything that ran side by side is mixed: the last lines of each, where
# a command's error is. Then two short lines of each, for a log of which only the
# end is kept.
/^=== PAUSE / { next }
/^=== (RUN|NAME|CONT) / { now = $3; next }
/^ *--- (FAIL|PASS|SKIP): / {
  if ($2 == "FAIL:" && said[$3]) {
    text[++n] = "\nFAILED " $3
    short[n] = $3
    for (k = 0; k < said[$3]; k++) {
      if (line[$3, k] !~ /(_test|testscript)\.go:[0-9]+: /) continue
      before[n] = last[n]
      last[n] = "\n" substr(line[$3, k], 1, 240)
    }
    for (k = (said[$3] > 60 ? said[$3] - 60 : 0); k < said[$3]; k++) text[n] = text[n] "\n" line[$3, k]
  }
  said[$3] = 0 # another package may have a test of that name
  now = ""
  next
}
/^(ok|FAIL|PASS|panic)/ { now = ""; next }
/^    devtest\.go/ { now = "" } # logs of agents, which are long
now { line[now, said[now]++] = $0 }
END {
  for (i = 1; i <= n; i++) print text[i]
  print ""
  for (i = 1; i <= n; i++) print "FAILED " short[i] before[i] last[i]
}
