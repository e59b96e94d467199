# make demo    the main job on loopback, on a real file
# make demo-targets  one upload to a directory, S3, HTTP, YouTube and a command at once
# make test    what CI runs, but for make test-s3: vet, lint, unit, script and race tests, a bit of fuzzing
# make test-s3 the S3 sink with a real server, which is built once; part of CI
# make hostile 10,000 spoilt sessions played to each kind of daemon
# make bench   sbcast beside a bare TCP loop, mbuffer and piping-server
# make scale   what a broadcaster with 1 to 1,000 readers, or pushes at once, takes
# make install binary, systemd units, man page and completions; PREFIX and DESTDIR say where
# make dist    what a release is made of: archives, packages, checksums
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null | sed 's/^v//')
LDFLAGS  = -s -w -X main.version=$(VERSION)
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

# The race detector needs cgo. Each fuzz target runs so many inputs in make test: a
# count, for at the end of a time Go fails now and then (golang/go#75804).
FUZZTIME ?= 5000x
SEED     ?= 0

# Further flags of make bench, make scale and make latency.
BENCHFLAGS   ?=
SCALEFLAGS   ?=
LATENCYFLAGS ?=

# Where make install puts things. The units read /etc/sbcast whatever PREFIX is.
BIN        ?= bin/sbcast
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR    ?=

# A real S3 server for tests, whose version tools/go.mod says.
VERSITYGW = .cache/bin/versitygw

.PHONY: all build demo demo-targets test test-s3 vet lint race youtube-client fuzz crash hostile bench scale latency microbench memory cross install dist run_docker clean

all: build

build: ## a static binary in bin/
	$(BUILD) -o $(BIN) .

demo: build ## broadcaster and readers on loopback, a real file pushed, digests compared
	scripts/demo.sh bin/sbcast

demo-targets: build $(VERSITYGW) ## one upload to a directory, a bucket, a web server, YouTube (a stand-in) and a command
	$(GO) build -o bin/standin ./scripts/standin
	scripts/demo-targets.sh bin/sbcast bin/standin $(VERSITYGW)

test: vet lint race youtube-client fuzz memory cross

vet:
	$(GO) mod tidy -diff
	$(GO) vet ./...

lint: ## where golangci-lint is installed; .ci/run installs it
	@if command -v golangci-lint >/dev/null; then golangci-lint run; \
	else echo "lint: SKIPPED, golangci-lint is not installed (go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@latest)"; fi

race:
	CGO_ENABLED=1 $(GO) test -race -shuffle=on ./...
	@test -x $(VERSITYGW) || echo "race: SKIPPED the tests with an S3 server, which is not there (make test-s3 builds and runs it)"

$(VERSITYGW): tools/go.mod tools/go.sum
	$(GO) -C tools build -o ../$@ github.com/versity/versitygw/cmd/versitygw

test-s3: $(VERSITYGW) ## the S3 sink, with a real server on loopback
	CGO_ENABLED=1 SBCAST_VERSITYGW=$(CURDIR)/$(VERSITYGW) $(GO) test -race -count=1 -run 'TestScripts/s3_|S3' . ./daemon/sink

youtube-client: ## Google's own client against the stand-in for YouTube
	cd tools/youtube && $(GO) mod tidy -diff && $(GO) test ./...

fuzz: ## some thousand inputs to each target; FUZZTIME=10m for a real run
	GO=$(GO) scripts/fuzz.sh $(FUZZTIME)

bench: build ## against others, side by side, a quarter of an hour or more; BENCHFLAGS='-rounds 3 -size 256M' changes it
	$(GO) build -o bin/bench ./scripts/bench
	bin/bench -sbcast bin/sbcast -markdown bin/bench.md -svg bin/bench.svg $(BENCHFLAGS)

scale: build ## with up to 1,000 readers, each a process, and pushes at once: some 15 GiB; SCALEFLAGS='-readers 1,100' changes it
	$(GO) build -o bin/bench ./scripts/bench
	bin/bench scale -sbcast bin/sbcast -markdown bin/scale.md $(SCALEFLAGS)

latency: build ## round trips of a push over links that take their time; LATENCYFLAGS='-rtt 200ms' changes it
	$(GO) run ./scripts/latency -sbcast bin/sbcast $(LATENCYFLAGS)

microbench: ## benchmarks of the hot functions
	$(GO) test -run '^$$' -bench . -benchmem ./...

crash: ## kill processes at random, 600 times; SEED=n repeats a run
	$(GO) test -run '^TestCrash$$' -v -count=1 -timeout 60m . -crash.kills=600 -crash.seed=$(SEED)

hostile: ## sessions recorded, spoilt and played again, 10,000 to each kind of daemon, some 20 minutes; SEED=n repeats a run
	$(GO) test -run '^TestHostile' -v -count=1 -timeout 120m ./faults -faults.hostile=26700 -faults.seed=$(SEED)
	$(GO) test -run 'Hostile|Slow|Lying|Bombs|TooMuch|ReadsNothing' -v -count=1 -timeout 30m ./daemon -daemon.slow=9000

memory: build ## the broadcaster's peak memory does not grow with the file, nor under --memory with the pushes
	scripts/memory.sh bin/sbcast 64M 512M

cross: ## the systems that releases are built for
	for os in linux darwin windows; do for arch in amd64 arm64; do \
		GOOS=$$os GOARCH=$$arch CGO_ENABLED=0 $(GO) build -o /dev/null . || exit 1; done; done

install: build ## PREFIX=/usr/local, DESTDIR=; keeps the options in /etc/sbcast
	scripts/install.sh $(BIN) '$(DESTDIR)' '$(PREFIX)' '$(SYSCONFDIR)'

dist: ## archives, .deb, .rpm and SHA256SUMS in dist/, the same from the same commit; VERSION=1.2.3 names them
	GO=$(GO) VERSION='$(VERSION)' scripts/dist.sh

run_docker: ## a broadcaster and two readers in containers; then: bin/sbcast push FILE localhost
	@docker compose version >/dev/null 2>&1 || { echo "run_docker: needs Docker with its compose plugin"; exit 1; }
	VERSION='$(VERSION)' docker compose up --build

clean:
	rm -rf bin dist
