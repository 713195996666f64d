# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One interface looked up by its name, as the dump of all lists it."""

from __future__ import annotations

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.namespace import entered
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.netlink import TcSocket
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.kernel.snapshot import Reader
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import Qdisc
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


def test_the_qdisc_of_one_interface(lab: Lab) -> None:
    lab.endpoint("cali1")
    lab.endpoint("cali2", clsact=False)
    lab.endpoint("cali3")
    lab.tc("qdisc", "del", "dev", "cali3", "clsact")
    lab.endpoint("cali4", clsact=False)
    lab.tc("qdisc", "add", "dev", "cali4", "ingress")
    with entered(lab.netns), TcSocket() as tc:
        found = [tc.clsact_qdisc(lab.ifindex(f"cali{n}")) for n in range(1, 5)]
        assert tc.clsact_qdisc(99999) is Qdisc.NONE
    assert found == [Qdisc.CLSACT, Qdisc.NONE, Qdisc.NONE, Qdisc.INGRESS]


def test_a_qdisc_that_a_dump_lacks_is_read_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel continues a dump by counting: it skips one for each link that was deleted."""
    lab.endpoint("cali1")
    with entered(lab.netns), TcSocket() as tc:
        monkeypatch.setattr(tc, "clsact_qdiscs", dict)
        (endpoint,) = Reader(tc).read(["cali*"]).endpoints
    assert endpoint.qdisc is Qdisc.CLSACT
