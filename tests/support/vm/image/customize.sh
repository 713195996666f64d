#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes the tree that mmdebstrap has filled a node: customize.sh TREE PUBLIC_KEY
set -euo pipefail
tree=$1 key=$2
cd "$(dirname "$0")"

# What only costs time in a guest that is emulated and thrown away.
masked=(
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
    e2scrub_reap.service fstrim.timer systemd-timesyncd.service
    systemd-networkd-wait-online.service getty.target getty@tty1.service
    serial-getty@ttyS0.service systemd-random-seed.service systemd-update-utmp.service
    systemd-update-utmp-runlevel.service systemd-logind.service modprobe@drm.service
    modprobe@dm_mod.service modprobe@loop.service modprobe@fuse.service systemd-binfmt.service
    proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount
    systemd-journal-flush.service systemd-sysusers.service systemd-update-done.service
    ldconfig.service systemd-firstboot.service
)

# The kernel that has TCX, beside Debian 12's own, whose headers BCC finds.
chroot "$tree" apt-get install -qy -t bookworm-backports linux-image-cloud-amd64

cp -r etc "$tree/"
chmod 0440 "$tree/etc/sudoers.d/ansible"
for unit in "${masked[@]}"; do
    ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done
chroot "$tree" systemctl enable -q systemd-networkd lab-sshd
# One that is empty has the first boot do more.
echo 0123456789abcdef0123456789abcdef >"$tree/etc/machine-id"
: >"$tree/etc/fstab"
: >"$tree/etc/resolv.conf"
rm "$tree/etc/hostname"

# Ansible logs in as a user that may become root, the lab's kubelet as root.
chroot "$tree" useradd --create-home --shell /bin/bash ansible
for home in root home/ansible; do
    install -d -m 0700 "$tree/$home/.ssh"
    install -m 0600 "$key" "$tree/$home/.ssh/authorized_keys"
done
chroot "$tree" chown -R ansible: /home/ansible
