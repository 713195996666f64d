#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds the disk that all virtual nodes are overlays of, with Debian 12's kernel and the one of its
# backports, from packages of the machine's own mirror. It is kept in a cache folder named by what it
# is made from; its path is the last line that is printed. Needs root, as mmdebstrap does.
set -euo pipefail
cd "$(dirname "$0")"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/dataplane-calico-bpf
key=$(find build_image.sh image -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
made=$cache/vm-${key:0:12}
work=$cache/vm.building

# What a node has anyway, and what the modules and the Felix stand-in need.
packages=(
    ca-certificates dbus initramfs-tools iproute2 kmod libnss-myhostname linux-image-cloud-amd64
    openssh-server procps python3 sudo systemd-sysv udev zstd
    bpftool libbpf1 python3-bpfcc python3-prometheus-client python3-pyroute2 linux-headers-cloud-amd64
)
say() {
    echo "image: $*" >&2
}

# Run a command and say how long it took.
step() {
    local start=$SECONDS
    say "$1 ..."
    "${@:2}"
    say "$1: $((SECONDS - start)) s"
}

# The address of a suite in the machine's own apt sources.
mirror() {
    local found
    found=$(apt-get indextargets --format "\$(REPO_URI)" "Codename: $1" "Created-By: Packages")
    [[ $found ]] || { say "apt has no $1: the image is built from the packages of Debian 12"; exit 1; }
    head -n 1 <<<"$found"
}

# Whoever builds works alone; what a killed build left is removed.
prepare() {
    local tool
    for tool in mmdebstrap qemu-img mkfs.ext4 ssh-keygen; do
        command -v "$tool" >/dev/null || { say "$tool is missing"; exit 1; }
    done
    mkdir -p "$cache"
    exec {lock}>"$cache/vm.lock"
    flock "$lock"
    rm -rf --one-file-system "$work"
}

tree() {
    local debian security
    debian=$(mirror bookworm)
    security=$(mirror bookworm-security)
    # No boot loader, no initrd: QEMU is given the kernel, which has ext4 and NVMe built in.
    INITRD=No mmdebstrap --quiet --variant=apt --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --include="$(IFS=, && echo "${packages[*]}")" \
        --customize-hook="$PWD/image/customize.sh \"\$1\" $work/key.pub >&2" \
        bookworm "$work/tree" \
        "deb $debian bookworm main" "deb $debian bookworm-updates main" \
        "deb $security bookworm-security main" "deb $debian bookworm-backports main" >&2
}

disk() {
    truncate -s 4G "$work/base.raw"
    mkfs.ext4 -q -L root -O ^metadata_csum -d "$work/tree" "$work/base.raw"
}

# The newest kernel of each series, under the name of the series, and the host key as ssh wants it.
beside_the_disk() {
    local series
    for series in 6.1 6.12; do
        cp "$(compgen -G "$work/tree/boot/vmlinuz-$series.*" | sort -V | tail -n 1)" \
            "$work/vmlinuz-$series"
    done
    sed 's/^/node /' "$work/tree/etc/ssh/ssh_host_ed25519_key.pub" >"$work/known_hosts"
    rm -rf "$work/tree"
}

build() {
    mkdir "$work"
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$work/key"
    step "packages" tree
    step "disk" disk
    beside_the_disk
    mv "$work" "$made"
}

[[ -e $made ]] || prepare
[[ -e $made ]] || step "all" build
echo "$made"
