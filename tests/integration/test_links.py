# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One interface looked up by its name, as the dump of all lists it."""

from __future__ import annotations

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab


def test_a_link_is_found_by_its_name_alone(lab: Lab) -> None:
    lab.endpoint("cali1")
    lab.ip("link", "property", "add", "dev", "cali1", "altname", "cali2")
    with entered(lab.netns), TcSocket() as tc:
        assert tc.link("cali1") == tc.links()["cali1"] == lab.ifindex("cali1")
        assert "cali2" not in tc.links()
        assert tc.link("cali2") is None
        assert tc.link("cali3") is None
        lab.ip("link", "del", "cali1")
        assert tc.link("cali1") is None
