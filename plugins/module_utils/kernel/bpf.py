# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bpf(2) calls that no library offers on every node, with ctypes only.

libbpf supports TCX from 1.3 on, bcc does not support it, and pyroute2 does not read program ids. An
audit must also run on a node without these libraries. Layouts: union bpf_attr, struct
bpf_prog_info, struct bpf_map_info and struct bpf_link_info of linux/bpf.h, a stable kernel ABI.

The caller closes the file descriptors that functions return.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from ..errors import KernelError
from ..model import Hook
from .syscalls import calling

BPF_PROG_TYPE_SCHED_CLS = 3
BPF_MAP_TYPE_ARRAY = 2
BPF_MAP_TYPE_PROG_ARRAY = 3

_MAP_LOOKUP_ELEM = 1
_OBJ_PIN = 6
_OBJ_GET = 7
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_MAP_GET_FD_BY_ID = 14
_OBJ_GET_INFO_BY_FD = 15
_PROG_QUERY = 16
_LINK_CREATE = 28
_LINK_UPDATE = 29
_LINK_GET_FD_BY_ID = 30
_LINK_DETACH = 34

_TCX_INGRESS, _TCX_EGRESS = 46, 47
_BPF_LINK_TYPE_TCX = 11
_BPF_F_REPLACE = 4
_BPF_FS_MAGIC = 0xCAFE4A11

#: __NR_bpf; 280 is asm-generic's.
_SYSCALL = {"x86_64": 321, "ppc64le": 361, "s390x": 351, "armv7l": 386, "i686": 357}
_NR_BPF = _SYSCALL.get(os.uname().machine, 280)
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong]

_INFO_SIZE = 256
_PROG_INFO = struct.Struct("=II8s24xQ4xI8x16s")  # type, id, tag, load time, map count, name
_MAP_INFO = struct.Struct("=II4xII4x16s")  # type, id, value size, max entries, name
_LINK_INFO = struct.Struct("=II8xI")  # type, id, the TCX link's ifindex
_MOST_IDS = 64
#: Tries of a call that a signal interrupts, as Python repeats its own calls.
_MOST_TRIES = 16


class ProgramInfo(NamedTuple):
    program_id: int
    type: int
    name: str
    tag: str
    #: Nanoseconds from boot to its load.
    loaded_at: int
    map_ids: tuple[int, ...]


class TcxLink(NamedTuple):
    link_id: int
    #: 0 if the link is dead: its interface no longer exists, or it was detached.
    ifindex: int


class MapInfo(NamedTuple):
    map_id: int
    type: int
    name: str
    max_entries: int
    #: Bytes.
    value_size: int


_ID, _FD, _BY_FD = struct.Struct("=III"), struct.Struct("=I"), struct.Struct("=IIQ")
_LOOKUP, _OBJECT, _UPDATE = struct.Struct("=IIQQQ"), struct.Struct("=QII"), struct.Struct("=IIII")
_QUERY, _ATTACH = struct.Struct("=IIIIQIIQQQQ"), struct.Struct("=IIIIIIQ")

#: One scratch area for all calls: allocating buffers costs as much as the calls themselves, and an
#: audit makes thousands. A process makes its calls one after the other.
_attr = ctypes.create_string_buffer(128)
_attr_address = ctypes.addressof(_attr)
_ids = (ctypes.c_uint32 * _MOST_IDS)()
_more_ids = (ctypes.c_uint32 * _MOST_IDS)()
_ids_address, _more_ids_address = ctypes.addressof(_ids), ctypes.addressof(_more_ids)
_info = ctypes.create_string_buffer(_INFO_SIZE)
_info_address = ctypes.addressof(_info)


def _bpf(operation: str, command: int, layout: struct.Struct, *values: int) -> int:
    for _try in range(_MOST_TRIES):
        layout.pack_into(_attr, 0, *values)
        result: int = _syscall(_NR_BPF, command, _attr_address, layout.size)
        if result >= 0:
            return result
        if ctypes.get_errno() != errno.EINTR:
            break
    raise KernelError(operation, ctypes.get_errno())


def _path(path: str) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(os.fsencode(path))


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="backslashreplace")


# --- programs and maps ----------------------------------------------------------------------------


def program_fd(program_id: int) -> int:
    """:raises KernelError: ENOENT if the program no longer exists, EPERM without CAP_SYS_ADMIN."""
    return _bpf("open a program by its id", _PROG_GET_FD_BY_ID, _ID, program_id, 0, 0)


def _read_info(fd: int) -> None:
    _bpf("read an object's info", _OBJ_GET_INFO_BY_FD, _BY_FD, fd, _INFO_SIZE, _info_address)


def program_info(fd: int) -> ProgramInfo:
    """:raises KernelError: EINVAL if ``fd`` is not a BPF object."""
    ctypes.memset(_info_address, 0, _INFO_SIZE)
    struct.pack_into("=IQ", _info, 52, _MOST_IDS, _ids_address)
    _read_info(fd)
    kind, program_id, tag, loaded_at, maps, name = _PROG_INFO.unpack_from(_info)
    return ProgramInfo(
        program_id=program_id,
        type=kind,
        name=_name(name),
        tag=tag.hex(),
        loaded_at=loaded_at,
        map_ids=tuple(_ids[: min(maps, _MOST_IDS)]),
    )


def program_info_by_id(program_id: int) -> ProgramInfo:
    fd = program_fd(program_id)
    try:
        return program_info(fd)
    finally:
        os.close(fd)


def map_fd(map_id: int) -> int:
    return _bpf("open a map by its id", _MAP_GET_FD_BY_ID, _ID, map_id, 0, 0)


def map_info(fd: int) -> MapInfo:
    ctypes.memset(_info_address, 0, _INFO_SIZE)
    _read_info(fd)
    kind, map_id, value_size, max_entries, name = _MAP_INFO.unpack_from(_info)
    return MapInfo(
        map_id=map_id,
        type=kind,
        name=_name(name),
        max_entries=max_entries,
        value_size=value_size,
    )


def first_value(fd: int, size: int) -> bytes:
    """The value at index 0 of an array map, whose values have ``size`` bytes."""
    value = ctypes.create_string_buffer(size)
    _look_up("read an array map", fd, 0, ctypes.addressof(value))
    return value.raw


def prog_array_has(fd: int, index: int) -> bool:
    """Whether a program array holds a program at ``index``; it has none beyond its end."""
    try:
        _look_up("look a program array up", fd, index, _more_ids_address)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


def _look_up(operation: str, fd: int, index: int, value: int) -> None:
    _ids[0] = index
    _bpf(operation, _MAP_LOOKUP_ELEM, _LOOKUP, fd, 0, _ids_address, value, 0)


# --- pins -----------------------------------------------------------------------------------------


def pin(fd: int, path: str) -> None:
    """:raises KernelError: EEXIST, ENOENT (no such directory), EPERM (not on a bpffs)."""
    name = _path(path)
    _bpf(f"pin at {path}", _OBJ_PIN, _OBJECT, ctypes.addressof(name), fd, 0)


def _kind(fd: int) -> str:
    """The kernel's name for the type of ``fd``: bpf-prog, bpf-map or bpf-link.

    Older kernels write bpf_link.
    """
    with calling("read the type of a BPF object"):
        target = os.readlink(f"/proc/self/fd/{fd}")
    return target.rsplit(":", 1)[-1].replace("_", "-")


def is_program(fd: int) -> bool:
    return _kind(fd) == "bpf-prog"


def unpin(path: str) -> None:
    """:raises KernelError: ENOENT, EACCES."""
    with calling("remove a pin"):
        os.unlink(path)


def duplicate(fd: int) -> int:
    """A second descriptor of the same object."""
    with calling("duplicate a file descriptor"):
        return os.dup(fd)


def move_pin(path: str, new: str) -> None:
    """Rename a pin; replace what was pinned at ``new``."""
    with calling(f"rename the pin {path} to {new}"):
        os.replace(path, new)


def is_bpffs(directory: str) -> bool:
    """Whether ``directory`` is a directory on a BPF file system."""
    about = (ctypes.c_long * 32)()
    failed = _libc.statfs(os.fsencode(directory), ctypes.byref(about))
    if failed and ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR):
        raise KernelError(f"read the file system of {directory}", ctypes.get_errno())
    return not failed and about[0] & 0xFFFFFFFF == _BPF_FS_MAGIC


def open_pin(path: str) -> int:
    """:raises KernelError: ENOENT, or EACCES if the file is not a BPF object."""
    name = _path(path)
    return _bpf(f"open the pin {path}", _OBJ_GET, _OBJECT, ctypes.addressof(name), 0, 0)


# --- TCX ------------------------------------------------------------------------------------------


def _tcx(hook: Hook) -> int:
    return _TCX_INGRESS if hook is Hook.INGRESS else _TCX_EGRESS


def tcx_programs(ifindex: int, hook: Hook) -> list[tuple[int, int]]:
    """(program id, link id or 0) of each TCX program at a hook, in the order in which they run.

    The interface is one of the caller's network namespace.

    :raises KernelError: EINVAL if the kernel has no TCX (before 6.6), EPERM without
        CAP_NET_ADMIN, ENODEV if the interface does not exist.
    """
    _bpf(
        "query TCX", _PROG_QUERY, _QUERY,
        ifindex, _tcx(hook), 0, 0, _ids_address, _MOST_IDS, 0,
        0, _more_ids_address, 0, 0,
    )  # fmt: skip
    (count,) = _FD.unpack_from(_attr, 24)
    return list(zip(_ids[:count], _more_ids[:count])) if count else []


def tcx_attach(ifindex: int, hook: Hook, fd: int, replace_fd: int = 0) -> None:
    """Attach without a link, so that it stays; or replace the program ``replace_fd`` in place."""
    flags = _BPF_F_REPLACE if replace_fd else 0
    _bpf(
        f"attach TCX at {hook.value}", _PROG_ATTACH, _ATTACH,
        ifindex, fd, _tcx(hook), flags, replace_fd, 0, 0,
    )  # fmt: skip


def tcx_detach(ifindex: int, hook: Hook, fd: int) -> None:
    """Detach a program that was attached without a link."""
    _bpf(
        f"detach TCX at {hook.value}", _PROG_DETACH, _ATTACH,
        ifindex, fd, _tcx(hook), 0, 0, 0, 0,
    )  # fmt: skip


def tcx_link(ifindex: int, hook: Hook, fd: int) -> int:
    """A new link's fd; closing it detaches unless it was pinned."""
    return _bpf(
        f"create a TCX link at {hook.value}", _LINK_CREATE, _ATTACH,
        fd, ifindex, _tcx(hook), 0, 0, 0, 0,
    )  # fmt: skip


def link_fd(link_id: int) -> int:
    return _bpf("open a link by its id", _LINK_GET_FD_BY_ID, _ID, link_id, 0, 0)


def link_update(fd: int, new_program_fd: int) -> None:
    """Replace the link's program in one step."""
    _bpf("update a link", _LINK_UPDATE, _UPDATE, fd, new_program_fd, 0, 0)


def link_detach(fd: int) -> None:
    _bpf("detach a link", _LINK_DETACH, _FD, fd)


def tcx_link_info(fd: int) -> TcxLink | None:
    """None if ``fd`` is not a TCX link."""
    if _kind(fd) != "bpf-link":
        return None
    ctypes.memset(_info_address, 0, _INFO_SIZE)
    _read_info(fd)
    kind, link_id, ifindex = _LINK_INFO.unpack_from(_info)
    return TcxLink(link_id, ifindex) if kind == _BPF_LINK_TYPE_TCX else None
