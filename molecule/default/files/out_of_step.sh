#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Says, as tc sees it, which endpoints do not have just one filter at each hook, both at the same slot.
set -eu

slots() {
    filters=$(tc filter show dev "$1" "$2")
    # No program there is something to tell, not a failure.
    echo "$filters" | sed -nE 's/.* pref ([0-9]+) bpf .*handle (0x[0-9a-f]+).*/\1:\2/p' | paste -sd ' '
}

found=0
for path in /sys/class/net/cali*; do
    [ -e "$path" ] || continue
    interface=${path##*/}
    ingress=$(slots "$interface" ingress)
    egress=$(slots "$interface" egress)
    found=$((found + 1))
    case $ingress in
    "" | *" "*) ;;
    "$egress") continue ;;
    esac
    echo "$interface: ingress [$ingress], egress [$egress]"
done

if [ "$found" -eq 0 ]; then
    echo 'there is no cali* interface' >&2
    exit 1
fi
