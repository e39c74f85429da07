# Thin on purpose: the logic is in the programs and in scripts/.
.PHONY: help demo test lint build images bench chaos fuzz clean

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: ## install what is missing, build, and run examples/hello.yml in a virtual machine
	scripts/demo.sh

test: ## install what is missing, and run every test
	scripts/test.sh

lint: ## formatting, clippy, licences, other systems
	scripts/lint.sh

build: ## the two programs, for use
	scripts/build.sh release

images: build ## the images that are built from Debian's packages
	$(or $(CARGO_TARGET_DIR),target)/release/solstice image build tiny debian-12 debian-12-node debian-12-podman

bench: ## measure (ONLY=name for one figure); writes target/bench/report.json
	scripts/bench.sh $(ONLY)

chaos: ## the tests of faults and of the service, many times over (TIMES=20)
	scripts/chaos.sh $(TIMES)

fuzz: ## fuzz each entry of untrusted text, then the property tests (FOR=60 seconds each, CASES=20000)
	scripts/fuzz.sh $(or $(FOR),60) $(CASES)

clean: ## everything that was built, images included
	rm -rf target
