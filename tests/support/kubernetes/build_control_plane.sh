#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds kube-apiserver and kube-controller-manager from Debian 12's source package and keeps them,
# with Debian's etcd, in a cache folder. Everything comes through the machine's own apt sources, yet
# nothing is installed: packages are unpacked beside the sources, and only the three binaries stay.
# So root is not needed, no service starts, and the machine's apt does not change.
set -euo pipefail

version=1.20.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dataplane-calico-bpf
made=$cache/control-plane-$version
work=$cache/control-plane.building
kube=k8s.io/kubernetes

say() {
    echo "control plane: $*"
}

die() {
    say "$*" >&2
    exit 1
}

# Run a command and say how long it took.
step() {
    local start=$SECONDS
    say "$1 ..."
    "${@:2}"
    say "$1: $((SECONDS - start)) s"
}

# Have apt use a copy of the machine's sources, with source packages, and lists of its own.
private_apt() {
    local file
    mkdir -p apt/{sources,lists/partial,archives/partial}
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
        [[ -f $file ]] || continue
        sed -E '/^\s*deb-src\s/d; s/^\s*deb(\s.*)/deb\1\ndeb-src\1/
            s/^types:.*/Types: deb deb-src/I' "$file" >"apt/sources/${file##*/}"
    done
    cat >apt/config <<END
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$PWD/apt/sources";
Dir::State::Lists "$PWD/apt/lists";
Dir::Cache "$PWD/apt";
APT::Sandbox::User "";
END
    export APT_CONFIG=$PWD/apt/config
}

download() {
    local archive
    apt-get update -q
    if ! apt-get source -q --download-only kubernetes ||
        ! archive=$(compgen -G "kubernetes_*$version.orig.tar.*"); then
        die "apt has no source of Kubernetes $version, which is Debian 12's; instead of building," \
            "name a folder with kube-apiserver and etcd in CALICO_BPF_CONTROL_PLANE"
    fi
    apt-get download -q etcd-server golang-1.19-go golang-1.19-src \
        golang-github-modern-go-reflect2-dev
    mkdir -p "go/src/$kube"
    tar -xf "$archive" -C "go/src/$kube" --strip-components=1
    for archive in *.deb; do
        dpkg-deb -x "$archive" root
    done
}

# Have Go build in this folder only, without a network, and with a reflect2 that works: 1.0.1, the
# vendored one, crashes on the first map encoded as JSON when built by Go 1.18 or newer.
private_go() {
    local reflect2=github.com/modern-go/reflect2
    export GOROOT=$PWD/root/usr/lib/go-1.19 GOPATH=$PWD/go GOCACHE=$PWD/go/cache GOENV=off GOFLAGS=
    export GO111MODULE=off GOPROXY=off CGO_ENABLED=0
    export PATH=$GOROOT/bin:$PATH
    rm -r "go/src/$kube/vendor/$reflect2"
    cp -r "root/usr/share/gocode/src/$reflect2" "go/src/$kube/vendor/$reflect2"
}

# The one generated package that is not in the tarball.
generate_openapi() (
    go build -o "$GOPATH/bin/" "$kube/vendor/k8s.io/kube-openapi/cmd/openapi-gen"
    cd "go/src/$kube" # the generator finds vendored packages from here only
    packages=$(grep -rl --include='*.go' '^// *+k8s:openapi-gen=' pkg staging/src |
        grep -Ev '/(_examples|sample-apiserver)/' | xargs -n1 dirname | sort -u |
        sed "s|^staging/src/|vendor/|; s|^|$kube/|" | paste -sd,)
    "$GOPATH/bin/openapi-gen" --input-dirs "$packages" --output-base "$GOPATH/src" \
        --output-package "$kube/pkg/generated/openapi" --output-file-base zz_generated.openapi \
        --go-header-file vendor/k8s.io/code-generator/hack/boilerplate.go.txt \
        --report-filename "$GOPATH/violations"
)

# Both in one call, so that no core waits for the other. Without the tag, the SDKs of the clouds
# take longer to compile than everything else.
compile() {
    local minor=${version#*.} flags=(-s -w) package
    for package in component-base/version client-go/pkg/version; do
        package=$kube/vendor/k8s.io/$package
        flags+=(-X "$package.gitVersion=v$version" -X "$package.gitMajor=${version%%.*}"
            -X "$package.gitMinor=${minor%.*}")
    done
    go build -o made/ -tags providerless -ldflags "${flags[*]}" \
        "$kube/cmd/kube-apiserver" "$kube/cmd/kube-controller-manager"
}

mkdir -p "$cache"
exec {lock}>"$cache/control-plane.lock"
flock --nonblock "$lock" || { say "waiting for another build" && flock "$lock"; }
if [[ ! -d $made ]]; then
    trap 'rm -rf "$work"' EXIT
    rm -rf "$work" # of a build that was killed
    mkdir -p "$work/made"
    cd "$work"
    private_apt
    step "download and unpack" download
    private_go
    step "generate the OpenAPI package" generate_openapi
    step "compile (several minutes)" compile
    cp root/usr/bin/etcd made/
    mv made "$made"
fi
say "$made"
