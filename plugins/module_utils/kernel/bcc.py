# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile one program from C on the node, with BCC.

BCC is the distribution's python3-bpfcc (PyPI's ``bcc`` is another project), so only the
distribution's own interpreter has it. It needs the headers of the running kernel.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..errors import KernelError, ProgramRefused, Refusal
from .syscalls import calling


def load(text_or_path: str, function: str) -> int:
    """Compile C text, or the C file at an absolute path, and load ``function`` as a classifier.

    :returns: the program's fd, which the caller closes.
    :raises Refusal: BCC or the file does not exist.
    :raises ProgramRefused: the compiler or the verifier refuses the program.
    """
    bpf = _bcc()
    log_parts: list[str] = []
    try:
        with _stderr_into(log_parts):
            compiled = bpf(text=_text(text_or_path))
    except (KernelError, Refusal):
        raise
    except Exception as error:
        raise ProgramRefused(
            f"source does not compile: {error} (BCC needs the running kernel's headers, in "
            "/lib/modules/VERSION/build)",
            "".join(log_parts),
        ) from error
    try:
        with _stderr_into(log_parts):
            return os.dup(compiled.load_func(function, bpf.SCHED_CLS).fd)
    except KernelError:
        raise
    except Exception as error:
        log = "".join(log_parts)
        raise ProgramRefused(f"function {function} can't be loaded: {error}", log) from error
    finally:
        compiled.cleanup()


def _bcc() -> Any:
    """BCC's one class, imported only when needed: the import takes up to half a second."""
    try:
        from bcc import BPF
    except ImportError as error:
        raise Refusal(
            f"`source` needs BCC for {sys.executable}, the interpreter that runs this module "
            f"({error}): install the distribution's python3-bpfcc and the running kernel's "
            "headers, and set ansible_python_interpreter to /usr/bin/python3"
        ) from None
    return BPF


def _text(text_or_path: str) -> str:
    if not os.path.isabs(text_or_path):
        return text_or_path
    try:
        with open(text_or_path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise Refusal(f"source: {text_or_path}: {error.strerror}") from None


@contextmanager
def _stderr_into(log_parts: list[str]) -> Iterator[None]:
    """Keep what BCC's C++ code writes to file descriptor 2: the compiler's and verifier's log."""
    with ExitStack() as stack:
        with calling("keep the compiler's messages"):
            file = stack.enter_context(tempfile.TemporaryFile())
            kept = os.dup(2)
            os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            with calling("restore the standard error"):
                os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            log_parts.append(file.read().decode(errors="backslashreplace"))
