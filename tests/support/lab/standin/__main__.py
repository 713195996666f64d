# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Felix of one calico-node pod, in the namespaces that it is started in.

    python -m ansible_collections.dataplane.calico_bpf.tests.support.lab.standin CONFIG.json

Needs root. Shows itself as ``calico-node -felix``; a signal ends it where it stands, as the kubelet
ends a calico-node, whose grace period is 0.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from ansible_collections.dataplane.calico_bpf.tests.support.felix.maps import pin_map
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin import process, server
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.config import Config
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.endpoints import Endpoints
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.health import Health
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.loop import Loop
from ansible_collections.dataplane.calico_bpf.tests.support.lab.standin.messages import Messages


def main(config: Config) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    process.show_as("calico-node", "-felix")
    messages = Messages(config.log, config.release)
    messages.starting_up(config.version)
    pin_map()
    health = Health(messages, config.release)
    endpoints = Endpoints(config, messages)
    server.serve(messages, "Health", ("127.0.0.1", 9099), health.answer)
    if config.metrics:
        server.serve(messages, "Prometheus metrics", ("", 9091), endpoints.gauges.answer)
    Loop(config, messages, health, endpoints).run()


if __name__ == "__main__":
    main(Config.read(Path(sys.argv[1])))
