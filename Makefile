# The commands that matter: `make up`, `make check`, `make test` and, before a release, `make full`.
.DEFAULT_GOAL := build
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:

.PHONY: build
build: ## bin/drover
	@cli=github.com/drover-nomad/drover/cmd/cli
	commit=$$(git rev-parse HEAD 2>/dev/null || true)
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X $$cli.Commit=$$commit" -o bin/drover ./cmd/drover

.PHONY: up
up: ## a running oCIS on a local Nomad and Consul; MONITORING=1 with metrics and dashboards
	@start=$$SECONDS
	[ "$$(uname -s)" = Linux ] || { echo "make up: the dev cluster runs on Linux only; on $$(uname -s), use drover against a cluster you have (docs/how-to/deploy.md)." >&2; exit 1; }
	command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || { echo "make up: haproxy is not installed; on Debian and Ubuntu: apt-get install haproxy" >&2; exit 1; }
	$(MAKE) --no-print-directory build
	bin/drover dev up --acme --tool ocis $(if $(MONITORING),--tool victoria-metrics --tool vmalert)
	eval "$$(bin/drover dev env)"
	$(if $(MONITORING),export NOMAD_VAR_monitoring=true)
	bin/drover deploy ocis -e dev
	$(if $(MONITORING),bin/drover deploy monitoring -e dev -var node_exporter=$$(command -v prometheus-node-exporter >/dev/null && echo true || echo false))
	# Pebble has a new root at each start: what the former one signed is void.
	curl -s -o /dev/null --cacert "$$DROVER_DEV_CA" "https://$$NOMAD_VAR_domain/" || bin/drover cert renew public --force
	bin/drover check ocis -e dev --retry-for 60s
	printf '%s\n' \
	  "" \
	  "ownCloud Infinite Scale is running after $$((SECONDS - start)) s." \
	  "" \
	  "  URL        https://$$NOMAD_VAR_domain/" \
	  "  demo user  einstein, password relativity" \
	  "  try        curl --cacert $$DROVER_DEV_CA -u einstein:relativity -X PROPFIND https://$$NOMAD_VAR_domain/remote.php/webdav/" \
	  "  Nomad      $$NOMAD_ADDR" \
	  "  Consul     $$CONSUL_HTTP_ADDR" \
	  $(if $(MONITORING),"  metrics    http://$$(curl -s "$$CONSUL_HTTP_ADDR/v1/catalog/service/victoria-metrics" | sed -n 's/.*"ServiceAddress":"\([^"]*\)".*"ServicePort":\([0-9]*\).*/\1:\2/p')/vmui/") \
	  "" \
	  "make down stops it and keeps the data; bin/drover dev down --wipe removes all."

.PHONY: down
down: build ## stop what `make up` started; data is kept
	@bin/drover dev down

.PHONY: tools
tools: build ## the programs of the dev cluster, built once
	@bin/drover dev tools >/dev/null

.PHONY: pin
pin: ## another version of a program of the dev cluster: make pin TOOL=nomad GET=github.com/hashicorp/nomad@v1.11.4
	@dir=$$PWD/devcluster/pins/$(TOOL); tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT
	(cd "$$dir" && find . -name '*.txt' -exec sh -c 'mkdir -p "$$1/$$(dirname "$$2")" && cp "$$2" "$$1/$${2%.txt}"' sh "$$tmp" {} \;)
	(cd "$$tmp" && go get $(GET))
	for f in go.mod go.sum; do cp "$$tmp/$$f" "$$dir/$$f.txt"; done

.PHONY: cover
cover: ## the statements of the recovery core that tests without a server cover
	@for package in release deploy; do
	  go test -short -coverprofile=/dev/null ./$$package | awk -v p=$$package '/^ok/ { print p ": " $$5 }'
	done

.PHONY: check
check: ## language, format, vet, lint and the tests that need no server; run it before each commit
	@$(MAKE) --no-print-directory -j3 -Otarget words lint hermetic

.PHONY: words
words: ## no phrase that docs/style.md rules out
	@go test ./tests/words

# Programs that a hermetic test must not start: they fail, and the cache of
# the dev cluster cannot be read. GOGC and no vet, which is a part of lint, save CPU.
SERVERS = nomad consul pebble pebble-challtestsrv ocis pdns_server named dockerd haproxy nginx

.PHONY: hermetic
hermetic: export GOGC = 400
hermetic: ## the tests that need no server, no root and no network
	@mkdir -p bin/none
	for program in $(SERVERS); do
	  printf '#!/bin/sh\necho "%s: go test -short must start no server" >&2\nexit 1\n' $$program >bin/none/$$program
	  chmod +x bin/none/$$program
	done
	GOCACHE=$$(go env GOCACHE) XDG_CACHE_HOME=/dev/null/none PATH=$$PWD/bin/none:$$PATH go test -short -vet=off $$(go list ./... | grep -v /tests/)

# Packages whose tests have no goroutines, and take seven times the CPU with the race detector.
PLAIN = /(importer/formats|stack|tools/release)$$

# The packages whose tests keep two cores busy: one after the other.
BUSY = ./tests/e2e ./cmd/cli ./tests/imported

# The packages whose tests take longest of the others: two at a time, these first.
LONGEST = ./tests/rollout ./tests/acceptance ./tests/security ./tests/chaos ./tests/model

# Tests of busy packages and of others: how each test ends, and at the end what the failed
# ones said. bin/TARGET.log has all of it. devtest.WaitCalm decides how many clusters run at
# a time.
define tests
	@mkdir -p bin
	tests() { go test -count=1 -vet=off -timeout 60m -v -parallel 4 "$$@" 2>&1; }
	{ failed=0; tests -p 1 $(1) || failed=1; tests -p 2 $(2) || failed=1; exit $$failed; } | tee bin/$@.log |
	  grep --line-buffered -E '^(ok|FAIL|panic|--- |    --- FAIL)' || { awk -f tests/failures.awk bin/$@.log; exit 1; }
endef

.PHONY: test
test: lint vuln tools ## the tests; `make full` has more of them, and `make race` repeats those of packages with the race detector
	@$(MAKE) --no-print-directory -o tools most
	$(MAKE) --no-print-directory -o tools operate

.PHONY: full
full: export DROVER_TEST_FULL = 1
full: test ## all tests; before a release, and each night

# GOGC reaches the agents of Nomad and Consul too, and saves a sixth of the CPU.
.PHONY: most e2e unit commands race
most e2e unit commands race: export GOGC = 400
most e2e unit commands race: export DROVER_TEST_PLAIN = $(CURDIR)/bin/drover
most: tools ## the tests but those of `make operate`
	$(call tests,$(BUSY),$(LONGEST) $$(go list ./... | grep -vE '/tests/(words|ui|autoscale|e2e|imported)$$|/cmd/cli$$'))

e2e: export DROVER_TEST_FULL = 1
e2e: tools ## all of real Nomad, Consul and oCIS, end to end
	$(call tests,$(filter ./tests/%,$(BUSY)),$(LONGEST) $$(go list ./tests/... | grep -vE '/(words|ui|autoscale|e2e|imported)$$'))

commands: tools ## the command line
	@go test -vet=off -timeout 20m -parallel 6 ./cmd/cli

unit: tools ## the other packages
	@go test -vet=off -timeout 20m -parallel 6 $$(go list ./... | grep -vE '/tests/|/cmd/cli$$')

race: tools ## the tests of packages with the race detector, but for commands of cmd/cli that tests repeat; RACE=-short for those that need no server
	@go test -race -vet=off $(RACE) -timeout 40m -p 2 -parallel 6 ./cmd/cli $$(go list ./... | grep -v /tests/ | grep -vE '$(PLAIN)')

.PHONY: kill
kill: tools ## drover killed, Nomad unwell, and the answer lost, after every write; `make commands` does some
	@DROVER_TEST_EVERY_WRITE=1 go test -count=1 -timeout 60m -run 'TestReleasesOnCluster/(killed|busy)|TestLostAnswersOnCluster' ./cmd/cli

# Not beside the rest: Chromium takes both cores, and autoscaling needs an even load.
OPERATE = ./tests/ui ./tests/autoscale

.PHONY: operate
operate: export DROVER_TEST_PLAIN = $(CURDIR)/bin/drover
operate: export GOGC = 400
operate: tools ## the web page in Chromium, and autoscaling under load
	@go test -count=1 -vet=off -timeout 20m -p 1 $(OPERATE)

.PHONY: autoscaler
autoscaler: export DROVER_TEST_AUTOSCALER = 1
autoscaler: tools ## the stack of HashiCorp's nomad-autoscaler, which takes some minutes to build
	go test -count=1 -timeout 40m -v -run TestNomadAutoscaler ./tests/autoscale

.PHONY: load
load: tools ## every service of oCIS killed, rolled, and settings changed under load, and the edge; renews the tables in docs/reliability.md
	@DROVER_TEST_FULL=1 DROVER_TEST_LOAD=all go test -count=1 -timeout 60m -v -parallel 1 -run 'UnderLoad|TestOCIS|TestEdge' ./tests/e2e -write-load ../../docs/reliability.md

SOAK ?= 1h

.PHONY: soak
soak: tools ## oCIS redeployed every five minutes for SOAK while a client works: does the controller grow? Renews its table
	@DROVER_TEST_SOAK=$(SOAK) go test -count=1 -timeout 3h -v -run TestSoak ./tests/e2e -write-load ../../docs/reliability.md

.PHONY: chaos
chaos: tools ## releases struck by faults, rows of docs/chaos.ndjson; CHAOS='-seed N' repeats one run, CHAOS='-from 0 -runs 198' makes many, CHAOS='-ocis 5' strikes oCIS
	@go test -count=1 -timeout 3h -parallel 6 -v -run 'TestChaos|TestOCIS' ./tests/chaos $(if $(CHAOS),$(CHAOS),-from 0 -runs 66) -rows $$PWD/docs/chaos.ndjson

.PHONY: model
model: tools ## operations in random order beside a model of them, rows of docs/model.ndjson; MODEL='-seed N' repeats one sequence, MODEL='-from 0 -runs 200' makes many
	@go test -count=1 -timeout 3h -v -run TestModel ./tests/model -steps 15 $(if $(MODEL),$(MODEL),-from 1 -runs 20) -rows $$PWD/docs/model.ndjson
	go run ./tests/model/report

.PHONY: e2e-secure
e2e-secure: export DROVER_TEST_SECURE = 1
e2e-secure: e2e ## the same on clusters with ACLs and mutual TLS, by the policies of a deployer

FUZZTIME ?= 30s

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME, one on each core; what is found is kept in testdata/fuzz and tried by `make unit` from then on
	@one() {
	  # A worker that is busy when the time is over is no finding (go.dev/issue/75804).
	  out=$$(go test "$$1" -run '^$$' -fuzz "^$$2\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s -parallel 1 </dev/null 2>&1) ||
	    { grep -q 'context deadline exceeded' <<<"$$out" && ! grep -q 'Failing input' <<<"$$out"; } || {
	      grep -v 'fuzz: elapsed' <<<"$$out"
	      file=$$(sed -n 's/.*Failing input written to //p' <<<"$$out")
	      [ -z "$$file" ] || head -c 4000 "$$1/$$file"
	      exit 1
	    }
	  echo "fuzz: $$1 $$2 for $(FUZZTIME): $$(grep -o 'execs: [0-9]*' <<<"$$out" | tail -1)"
	}
	export -f one
	grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' . | sort | sed -E 's|/[^/]*:func | |' |
	  xargs -P "$$(getconf _NPROCESSORS_ONLN)" -L 1 bash -c 'one "$$@"' one

.PHONY: bench
bench: tools ## drover against nomad in a loop and against floors, as a table; BENCH='-write docs' renews docs/benchmarks.md
	@go run ./tests/bench/compare $(BENCH)
	go test -run '^$$' -bench . -benchtime 3x -timeout 30m ./tests/bench/

.PHONY: lint
lint: ## golangci-lint with all checks of go vet, built from the pinned module
	@cd tools/lint && go build -o ../../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint && cd ../..
	bin/golangci-lint run ./...

.PHONY: vuln
vuln: ## known vulnerabilities in what drover calls; says so when the database cannot be reached
	@cd tools/vuln && go build -o ../../bin/govulncheck golang.org/x/vuln/cmd/govulncheck && cd ../..
	code=0
	out=$$(bin/govulncheck ./cmd/drover 2>&1) || code=$$?
	case "$$code $$out" in
	  0*) echo "govulncheck: nothing known" ;;
	  *"fetching vulnerabilities"*) echo "govulncheck: NOT CHECKED, the database cannot be reached: $${out##*vulnerabilities: }" ;;
	  *) echo "$$out" >&2; exit 1 ;;
	esac

.PHONY: docs
docs: ## docs/reference/cli from the commands
	@go run ./tools/release -docs docs/reference/cli

.PHONY: release
release: bin/nfpm ## dist/: static binaries, archives, packages, bills of materials, checksums
	@go run ./tools/release -out dist
	cat dist/SHA256SUMS

.PHONY: release-check
release-check: release ## the release again, in another directory with an empty build cache: the same bytes?
	@tmp=$$(mktemp -d); trap 'chmod -R u+w "$$tmp"; rm -rf "$$tmp"' EXIT
	git clone -q . "$$tmp/elsewhere"
	git -C "$$tmp/elsewhere" checkout -q "$$(git rev-parse HEAD)"
	git diff --quiet HEAD || { echo "release-check: commit your changes first" >&2; exit 1; }
	nfpm=$$PWD/bin/nfpm; dist=$$PWD/dist
	(cd "$$tmp/elsewhere" && GOCACHE=$$tmp/cache go run ./tools/release -nfpm "$$nfpm" -out out/there)
	diff dist/SHA256SUMS "$$tmp/elsewhere/out/there/SHA256SUMS"
	echo "release-check: the same bytes"

bin/nfpm: tools/nfpm/go.mod
	@cd tools/nfpm && CGO_ENABLED=0 go build -o ../../bin/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm

.PHONY: image
image: release ## the container image drover:dev from dist/
	@docker build -q -t drover:dev -f Containerfile dist
