# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a preamble of Calico jumps to, decoded from its constants. Pure.

Felix loads one preamble for each hook of an interface and gives it constants of its own: struct
cali_tc_preamble_globals in felix/bpf-gpl/globals.h, one struct cali_tc_global_data for IPv4 and one
for IPv6 (3.27 loads a preamble for each, with one struct cali_tc_globals). From 3.27.0 to 3.32.1
``iface_name[16]``, ``log_filter_jmp`` and ``jumps[40]`` follow each other; what is before and after
them differs between releases. Since the interface is known, its name finds the rest.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

#: ConfigureProgram in felix/bpf/tc/attach.go: the name is padded with dashes.
_NAME_LENGTH = 15
_JUMPS = struct.Struct("=I40I")  # log_filter_jmp, jumps
_NONE = 0xFFFFFFFF
#: enum cali_jump_index in felix/bpf-gpl/jump.h.
_MAIN, _POLICY = 0, 1


class Jumps(NamedTuple):
    """Indices of the programs that one IP version needs.

    ``main`` and ``others`` are in cali_progs, ``policy`` is in cali_jump. None: there is none.
    """

    main: int | None
    policy: int | None
    others: tuple[int, ...]


def decode(constants: bytes, interface: str) -> tuple[Jumps, ...]:
    """The jumps of each IP version of the constants. Empty if the layout is another one."""
    name = interface.encode(errors="surrogateescape").ljust(_NAME_LENGTH, b"-") + b"\0"
    places = [at for at in range(0, len(constants), 4) if constants.startswith(name, at)]
    size = places[1] - places[0] if len(places) == 2 else len(constants)
    fits = bool(places) and places[-1] + len(name) + _JUMPS.size <= len(constants)
    if not fits or len(places) * size != len(constants):
        return ()
    return tuple(_jumps(constants, place + len(name)) for place in places)


def _jumps(constants: bytes, at: int) -> Jumps:
    _log_filter, *jumps = _JUMPS.unpack_from(constants, at)
    present = [None if index == _NONE else index for index in jumps]
    return Jumps(
        main=present[_MAIN],
        policy=present[_POLICY],
        others=tuple(index for index in present[_POLICY + 1 :] if index is not None),
    )
