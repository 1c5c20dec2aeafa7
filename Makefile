# SPDX-License-Identifier: Apache-2.0
#
# run and test need Go, make and (for eBPF) root. What else a target needs is
# said in its help line.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

GO           ?= go
CLANG_FORMAT ?= clang-format-19
PORT         ?= 9102
FUZZTIME     ?= 60s
BENCH        ?= Cost|Scrape|AtRest|Events

BINARY  := build/security-exporter
COMMON  := github.com/prometheus/common/version
LDFLAGS := -s -w -X $(COMMON).Version=$(VERSION) -X $(COMMON).Revision=$(REVISION)

# Sources written by hand: not the generated kernel types.
C_FILES     = $(shell git ls-files --cached --others --exclude-standard -- '*.bpf.c' '*.h' '.ci/*.c' ':!internal/bpf/vmlinux/*')
SHELL_FILES = .ci/run .ci/fuzz .ci/generate tools/testkernels/init.sh $(wildcard deploy/packages/*.sh)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

.PHONY: build
build: ## build the static binary into build/
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/security-exporter

.PHONY: run
run: build ## build and start on :9102 with eBPF, as root (PORT=N for another port)
	@echo
	@echo '  metrics   http://localhost:$(PORT)/metrics'
	@echo '  ready?    http://localhost:$(PORT)/readyz'
	@echo '  try       curl -s localhost:$(PORT)/metrics | grep ^security_ebpf_process_exec_total'
	@echo '  stop      Ctrl-C'
	@echo
	@exec ./$(BINARY) --ebpf.enabled --web.listen-address=:$(PORT)

# One package at a time: tests of the kernel's counters would count each
# other's events. -count=1: what they test is outside of Go's test cache.
.PHONY: test
test: ## run all tests; as root, those of the kernel side too
	$(GO) test -count=1 -p 1 ./...
	cd deploy && $(GO) test -count=1 ./...

# Debian kernels in qemu without KVM: every test of the runtime half with every
# kind of hooks that each offers. The packages are kept in ~/.cache.
KERNEL_SUITES ?=
.PHONY: test-kernels
test-kernels: ## test on Debian kernels in qemu (KERNEL=6.1 ARCH=arm64 for one; needs qemu-system, xz-utils)
	$(GO) run ./tools/testkernels -kernel '$(KERNEL)' -arch '$(ARCH)' -suites '$(KERNEL_SUITES)'

# Life after life under load. make test runs two lives of some seconds.
SOAK ?= 20m
.PHONY: soak
soak: ## run the exporter under load, end and kill it, look for leaks, as root (SOAK=2m for short; at most 80m)
	SOAK=$(SOAK) $(GO) test -count=1 -timeout=90m -v -run Soak ./test/soak

.PHONY: generate
generate: ## rebuild the eBPF objects (needs clang-19, llvm-19, libbpf-dev)
	.ci/generate

.PHONY: docs
docs: ## rewrite docs/metrics.md and docs/flags.md from the code
	$(GO) test -count=1 ./docs -update

.PHONY: dashboards
dashboards: ## rewrite deploy/grafana/*.json from the code
	cd deploy && $(GO) test -count=1 ./grafana -update

.PHONY: chart
chart: ## rewrite what is made from deploy/helm and what the chart holds of deploy/prometheus
	cd deploy && $(GO) test -count=1 ./helm -update

.PHONY: fmt
fmt: ## format Go and C (needs clang-format-19)
	gofmt -w $$(git ls-files --cached --others --exclude-standard -- '*.go')
	$(if $(C_FILES),$(CLANG_FORMAT) -i $(C_FILES))

.PHONY: lint
lint: ## check style (needs golangci-lint, clang-format-19, shellcheck)
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard -- '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "gofmt: run make fmt for:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	cd deploy && $(GO) vet ./...
	golangci-lint run
	cd deploy && golangci-lint run
	$(if $(C_FILES),$(CLANG_FORMAT) --dry-run -Werror $(C_FILES))
	shellcheck $(SHELL_FILES)

# Not a test: it needs a quiet machine and some minutes, and prints a table.
.PHONY: bench
bench: ## measure what it costs the host, as root (amd64; BENCH=Probes for each probe alone)
	$(GO) test -count=1 -timeout=30m -run '^$$' -bench '$(BENCH)' -benchmem ./test/bench
	$(GO) test -count=1 -run '^$$' -bench Path -cpu 1 ./internal/sensor
	$(GO) test -count=1 -run '^$$' -bench Flood ./internal/sensor

.PHONY: bench-posture
bench-posture: ## measure posture against prometheus-node-exporter, as root
	$(GO) test -count=1 -run '^$$' -bench 'BenchmarkRun$$' -benchtime 10x ./internal/posture
	$(GO) test -count=1 -run '^$$' -bench BenchmarkScrapes -benchtime 200x ./test/e2e
	$(GO) test -count=1 -run '^$$' -bench BenchmarkAtRest -benchtime 1x ./test/e2e

.PHONY: bench-fleet
bench-fleet: ## measure what Prometheus needs for 100 and 1,000 hosts, as root, 7 minutes (needs prometheus)
	cd deploy && $(GO) test -count=1 -timeout=20m -run '^$$' -bench Fleet -benchtime 1x ./prometheus

.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME (60s)
	.ci/fuzz $(FUZZTIME)

# What deb, rpm, apk and semver all take as a version: X.Y.Z, or X.Y.Z-rc1 (or
# alpha, beta, pre). A build from anything but such a tag is 0.0.0-pre.
DIST           ?= build/dist
ARCHES         ?= amd64 arm64
PACKAGE_VERSION = $(or $(shell echo '$(VERSION)' | sed -nE 's/^v?([0-9]+[.][0-9]+[.][0-9]+(-(alpha|beta|pre|rc)[0-9]*)?)$$/\1/p'),0.0.0-pre)
STATIC          = CGO_ENABLED=0 GOARCH=$$arch $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(DIST)/$$arch/security-exporter ./cmd/security-exporter
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: package-version
package-version:
	@echo '$(PACKAGE_VERSION)'

.PHONY: dist
dist: ## build deb, rpm and apk for amd64 and arm64, the Helm chart, checksums and SBOM, into build/dist
	rm -rf $(DIST) && mkdir -p $(DIST)
	$(GO) run ./tools/manual $(DIST)/manual && gzip -9n $(DIST)/manual/security-exporter.1
	set -e; for arch in $(ARCHES); do \
	  $(STATIC); \
	  $(GO) run ./tools/sbom $(DIST)/$$arch/security-exporter $(PACKAGE_VERSION) >$(DIST)/security-exporter_$(PACKAGE_VERSION)_$$arch.spdx.json; \
	  for format in deb rpm apk; do \
	    ARCH=$$arch PACKAGE_VERSION=$(PACKAGE_VERSION) DIST=$(DIST) \
	      $(GO) tool -modfile=deploy/go.mod nfpm package --config deploy/packages/nfpm.yaml --packager $$format --target $(DIST)/; \
	  done; \
	done
	cd deploy && $(GO) run ./helm/pack helm/security-exporter '$(PACKAGE_VERSION)' $(abspath $(DIST))
	cd $(DIST) && sha256sum -- *.deb *.rpm *.apk *.json *.tgz >SHA256SUMS

.PHONY: image
image: ## build the container image as an OCI layout, without a daemon, into build/dist/oci
	rm -rf $(DIST)/oci && mkdir -p $(DIST)
	set -e; for arch in $(ARCHES); do $(STATIC); done
	cd deploy && $(GO) run ./ociimage '$(PACKAGE_VERSION)' '$(REVISION)' $(abspath $(DIST))/oci $(foreach arch,$(ARCHES),$(arch)=$(abspath $(DIST))/$(arch)/security-exporter)

.PHONY: clean
clean: ## remove what make build made
	rm -rf build
