# SPDX-License-Identifier: GPL-3.0-or-later
# The tools live in .venv; what is built, and every cache, in .build.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

COLLECTIONS := .build/collections
COLLECTION := $(COLLECTIONS)/ansible_collections/dataplane/calico_bpf
READY := .venv/.ready $(COLLECTION)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/$(COLLECTIONS)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(COLLECTIONS)
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.build/hypothesis
# Said, or it warns that they are not under extensions.
export MOLECULE_GLOB := molecule/*/molecule.yml

.PHONY: help setup quick test lint format types sanity unit integration lab control-plane demo
.PHONY: demo-modules bench lab-up lab-down molecule molecule-default molecule-vms vm kernels guests
.PHONY: kubernetes kubelet docs screenshot changelog build clean

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | expand -t 15

setup: $(READY)  ## packages (apt, as root) and tools (pip), only what is missing

quick: lint types  ## the two-minute loop: style, types, unit tests
	pytest -n 2 tests/unit

test: lint types unit integration lab molecule molecule-vms vm docs sanity  ## everything that must pass
# One machine of each kernel.
test: export CALICO_BPF_VMS := 2

lint: $(READY)  ## style, YAML, shell, changelog, and no Python newer than 3.9 in the plugins
	ruff check .
	ruff format --check .
	yamllint --strict .
	shellcheck .ci/run docs/site/*.sh tests/*.sh tests/support/*/*.sh \
		tests/support/vm/image/*.sh molecule/default/files/*.sh
	antsibull-changelog lint
	vermin --no-tips --violations -t=3.9- plugins

format: $(READY)  ## let ruff put the style right
	ruff check --fix .
	ruff format .

types: $(READY)  ## mypy, strict
	mypy $(COLLECTION)/plugins
	mypy --python-version 3.11 $(COLLECTION)/tests

sanity: $(READY)  ## build, install apart, and run Ansible's own checks on that
	tests/sanity.sh

unit: $(READY)  ## tests without kernel or privilege
	pytest tests/unit

integration: $(READY)  ## tests on the running kernel, as root
	pytest -n 2 --dist worksteal tests/integration

# Four labs share what cores there are. What fails then is told, and tried once more alone: only what
# fails there too is a fault, not a busy machine.
lab: export CI := 1
lab: $(READY) control-plane  ## tests of the embedded lab: its Kubernetes API, and the real one
	pytest --cache-clear -n 4 --dist worksteal tests/system/lab || \
		pytest --last-failed --last-failed-no-failures none tests/system/lab

control-plane:  ## the real Kubernetes API for the tests, built once and cached
	tests/support/kubernetes/build_control_plane.sh

# KUBELET may name tests, or give pytest options.
kubelet: $(READY) kubernetes  ## calico-node replaced under a real kubelet, about five minutes, as root
	pytest $(or $(KUBELET),tests/system/kubelet)

kubernetes:  ## the current Kubernetes, kubelet and containerd for that, built once and cached
	tests/support/kubelet/build.sh

demo: $(READY)  ## see a cluster upgraded node by node while traffic flows, as root
	python tests/demo

demo-modules: $(READY)  ## see the fault and what the modules do about it, as root
	python tests/demo/modules.py

lab-up: $(READY)  ## a lab that stays, as root; LAB="--nodes 5 --broken 3"
	python tests/support/lab up $(LAB)

lab-down: $(READY)  ## end it
	python tests/support/lab down

bench: $(READY)  ## how long things take, on a node and in a rollout, as root
	python tests/bench
	python tests/bench/growth.py
	python tests/bench/rollout.py

molecule: $(READY) guests  ## the playbooks on labs, the prerequisites on bare trees, as root
	trap 'molecule destroy --all --exclude vms' INT TERM; molecule test --all --exclude vms

molecule-default: $(READY)  ## of these the upgrade alone
	trap 'molecule destroy' INT TERM; molecule test

molecule-vms: $(READY) guests  ## the upgrade on virtual machines with kernels of their own, as root
	trap 'molecule destroy --scenario-name vms' INT TERM; molecule test --scenario-name vms

vm: $(READY) guests  ## tests with virtual machines: nodes that are lost, labs that are ended, as root
	pytest --ignore tests/system/vm/test_kernels.py tests/system/vm

kernels: $(READY) guests  ## the core's own tests within kernels 6.1 and 6.12, about ten minutes, as root
	pytest tests/system/vm/test_kernels.py

guests:  # what makes trees and machines
	tests/install_packages.sh e2fsprogs mmdebstrap openssh-client qemu-system-x86 qemu-utils \
		util-linux

docs: $(READY)  ## the documentation as HTML, in .build/docs/html
	docs/site/build.sh

screenshot: $(READY)  ## the README's picture of a report, with Chromium, as root
	docs/site/screenshot.sh

changelog: $(READY)  ## CHANGELOG.md, from the fragments
	docs/site/changelog.sh

build: $(READY)  ## the tarball that ships
	ansible-galaxy collection build --force --output-path .build

clean:  ## all that was made here, .venv included
	rm -rf .ansible .build .venv

.venv/.ready: tests/setup.sh requirements-dev.txt
	tests/setup.sh
	touch $@

# Order-only: seen through the link, the checkout is always newer.
$(COLLECTION): | .venv/.ready
	mkdir -p $(@D)
	ln -sfn ../../../.. $@
