# The two commands that matter: `make up` and `make test`.
.DEFAULT_GOAL := build
SHELL := /bin/bash

.PHONY: build
build: ## bin/drover
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/drover ./cmd/drover

.PHONY: lint
lint: ## go vet and golangci-lint, built from the pinned module
	go vet ./...
	cd tools/lint && go build -o ../../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint run ./...
