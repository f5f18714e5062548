# Bare `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := .ci/requirements.lock
# One more than there are cores: some tests wait for a disk, an emulator or a daemon.
WORKERS ?= $(shell expr 1 + $$(getconf _NPROCESSORS_ONLN))
PYTEST ?= $(BIN)/pytest -q -n $(WORKERS) --dist worksteal
BOOT ?= tests/boot tests/image tests/device
COVERED ?= tests/unit tests/image tests/device tests/fuzz
FUZZ_LOCK := .ci/fuzz.lock
DOCS_LOCK := .ci/docs.lock
SECONDS ?= 60
SLOW ?= 1
.DEFAULT_GOAL := help
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.stamp: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV) || { echo "hint: Debian splits it off: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install -qq --require-hashes -r $(LOCK)
	$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	touch $@

venv: $(VENV)/.stamp ## make the environment

demo: $(VENV)/.stamp ## build pi-03 from the embedded sample and show what was set
	$(BIN)/python tests/demo.py

tour: $(VENV)/.stamp ## boot pi-03 in QEMU, on a tiny image of Debian's kernel and busybox (two minutes)
	$(BIN)/python -m tests.tour

lock: ## renew the lock: the newest of everything that pyproject.toml allows
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install -qq uv
	build/lock/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --extra dev \
	    --generate-hashes --no-annotate --custom-compile-command 'make lock' -o $(LOCK) pyproject.toml
	build/lock/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --group fuzz \
	    --generate-hashes --no-annotate --custom-compile-command 'make lock' -o $(FUZZ_LOCK)
	build/lock/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --group docs \
	    --generate-hashes --no-annotate --custom-compile-command 'make lock' -o $(DOCS_LOCK)

pythons: $(VENV)/.stamp ## run the unit tests on the other Pythons here; for one that is not, look up its wheels
	PYTHON=$(PYTHON) VENV=$(VENV) LOCK=$(LOCK) .ci/pythons

newest: ## run the unit tests with the newest of everything, not the lock
	$(PYTHON) -m venv --clear build/newest
	build/newest/bin/pip install -qq -e '.[dev]'
	build/newest/bin/pytest -q -n auto tests/unit

audit: ## compare the locked packages with public advisories; needs the network
	$(PYTHON) -m venv --clear build/audit
	build/audit/bin/pip install -qq pip-audit
	build/audit/bin/pip-audit --disable-pip --require-hashes -r $(LOCK)

tools: ## install the Debian packages that the tests check against
	sh tests/install-tools tests/packages.txt

tools-boot: tools ## install what booting needs, too
	sh tests/install-tools tests/boot/packages.txt

test: $(VENV)/.stamp tools ## run every test that takes minutes
	$(PYTEST) -m 'not long' tests/unit tests/image tests/device tests/fuzz

coverage: export COVERAGE_FILE := $(CURDIR)/build/coverage/data
coverage: $(VENV)/.stamp tools ## run what `make test` runs and show by room what it reaches
	rm -rf build/coverage
	mkdir -p build/coverage
	$(BIN)/coverage run -m $(PYTEST:$(BIN)/%=%) -m 'not long' $(COVERED) || touch build/coverage/failed
	$(BIN)/coverage combine -q
	$(BIN)/coverage json -q -o build/coverage/coverage.json
	$(BIN)/python tests/coverage_by_room.py build/coverage/coverage.json
	test ! -e build/coverage/failed

test-boot: $(VENV)/.stamp tools-boot ## boot what was built, and other long tests (tens of minutes); SLOW=3: at a third of the speed
	RPI_IMAGE_TEST_SLOW=$(SLOW) $(BIN)/pytest -q -n 2 --dist worksteal -m 'boot or long' $(BOOT)

test-boot-all: $(VENV)/.stamp tools-boot ## boot every case (hours); goes on where it was stopped
	RPI_IMAGE_TEST_SLOW=$(SLOW) $(BIN)/pytest -q -n 2 --dist worksteal --every-case --go-on -m 'boot or long' $(BOOT) || [ $$? = 5 ]

# Not in the lock of all: there are wheels of atheris for some systems only.
fuzz: $(VENV)/.stamp tools ## try hostile inputs, guided by coverage: SECONDS=60, TARGETS="zip fat"
	$(BIN)/pip install -qq --require-hashes --only-binary=:all: -r $(FUZZ_LOCK) || echo "no atheris here: by chance"
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

check: $(VENV)/.stamp ## lint, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.stamp ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.stamp tools ## measure, side by side with what a user would run instead
	for bench in tests/benchmarks/bench_*.py; do PYTHONPATH=. $(BIN)/python $$bench || exit 1; done

golden: $(VENV)/.stamp ## write the golden files anew; review the diff
	$(BIN)/python -m tests.lib.make_golden
	$(BIN)/python -m tests.lib.budgets
	$(BIN)/python -m tests.lib.warning_words
	$(BIN)/python -m tests.lib.docker_table
	$(BIN)/python -m tests.lib.command_reference
	$(BIN)/python -m tests.lib.man_pages
	git diff --stat -- tests/unit/golden docs man

build/docs/.stamp: $(DOCS_LOCK)
	$(PYTHON) -m venv --clear build/docs
	build/docs/bin/pip install -qq --require-hashes -r $(DOCS_LOCK)
	touch $@

docs: build/docs/.stamp ## build the documentation as a site into build/site, and check its links
	rm -rf build/site
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build -q --strict
	$(PYTHON) -m tests.site_links build/site

pictures: $(VENV)/.stamp ## record the pictures of the README again, from real runs
	$(BIN)/python -m tests.pictures
	$(BIN)/python -m tests.pictures_teacher

snapshot: $(VENV)/.stamp ## write the published list of images to profiles/published.json (needs a network)
	rm -rf build/snapshot
	RPI_IMAGE_CACHE=build/snapshot $(BIN)/rpi-image images --json --quiet > /dev/null
	cp build/snapshot/lists/*.json profiles/published.json

# Without hints and rules for shaping, which paper does not need.
LETTERS := U+0020-007E,U+00A0-024F,U+0259,U+02BB-02BC,U+02C6-02C7,U+02D8-02DD,U+0370-03FF,U+0400-052F,U+1E00-1FFF,U+2010-2015,U+2018-201E,U+2020-2022,U+2026,U+2030,U+2032-2033,U+2039-203A,U+20AC,U+2116,U+2122,U+2212
fonts: $(VENV)/.stamp tools ## make the fonts of the labels anew, from fonts-dejavu-core
	for font in DejaVuSans DejaVuSans-Bold; do $(BIN)/pyftsubset /usr/share/fonts/truetype/dejavu/$$font.ttf \
	    --unicodes=$(LETTERS) --no-hinting --layout-features= --drop-tables+=FFTM \
	    --output-file=imagebuilder/shack/sheets/fonts/$$font.ttf || exit 1; done

sample: ## make the embedded sample image anew
	profiles/sample/make-sample

wheel: $(VENV)/.stamp ## build the wheel into dist/
	$(BIN)/pip wheel -q --no-deps --no-build-isolation -w dist .

dist: $(VENV)/.stamp ## build sdist and wheel into dist/, the same bytes each time, and check them
	rm -rf dist
	$(BIN)/hatchling build -t sdist -t wheel -d dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

dist-install: dist ## install the wheel by pip, pipx and uv with the oldest and newest dependencies (minutes)
	PYTHON=$(PYTHON) .ci/install-dist dist build/dist-install

deb: $(VENV)/.stamp ## build the Debian packages for bookworm and trixie into dist/
	rm -rf build/deb
	$(BIN)/hatchling build -t wheel -d build/deb
	for suite in bookworm trixie; do .ci/make-deb build/deb/*.whl $$suite dist || exit 1; done

clean: ## remove what the targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help venv demo tour lock pythons newest audit tools tools-boot test coverage test-boot test-boot-all fuzz check format bench golden docs pictures snapshot fonts sample wheel dist dist-install deb clean
