# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of interfaces and filters that are not UTF-8, or would write on the reader's terminal.

Anyone who may create an interface or attach a filter chooses them.
"""

from __future__ import annotations

import json

from ansible_collections.dataplane.calico_bpf.tests.support.netns.lab import Lab

#: Bytes that are not UTF-8, as Python gives them to a command.
RAW = "cali\udcff\udcfe"


def test_an_interface_whose_name_is_not_utf_8_blinds_nobody(lab: Lab) -> None:
    lab.endpoint(RAW)
    lab.endpoint("cali1")
    for interface in (RAW, "cali1"):
        lab.attach(interface, "ingress", 2)
        lab.attach(interface, "egress", 1)
    audited = lab.module("qdisc_consistency", settle=0)
    assert {e["interface"]: e["outlook"] for e in audited["endpoints"]} == {
        "cali1": "stuck",
        "cali\\udcff\\udcfe": "stuck",
    }
    repaired = lab.module("qdisc_consistency", state="consistent", settle=0)
    assert {e["verdict"] for e in repaired["endpoints"]} == {"repaired"}
    for interface in (RAW, "cali1"):
        ingress, egress = lab.slots(interface)
        assert ingress == egress


def test_a_filter_keeps_its_name_byte_for_byte(lab: Lab) -> None:
    name = "cali_tc_preambl\udcff\x1b[2J"
    lab.endpoint("cali1")
    lab.attach("cali1", "ingress", 1, name=name)
    lab.attach("cali1", "egress", 2, name=name)
    repaired = lab.module("qdisc_consistency", state="consistent", settle=0, diff=True)
    assert repaired["endpoints"][0]["verdict"] == "repaired"
    assert "cali_tc_preambl\\udcff\\x1b[2J" in json.dumps(repaired).replace("\\\\", "\\")
    assert "\x1b" not in json.dumps(repaired, ensure_ascii=False)
    for hook in ("ingress", "egress"):
        shown = lab.exec("tc", "filter", "show", "dev", "cali1", hook)
        assert f"{name}:" in shown or name in shown
