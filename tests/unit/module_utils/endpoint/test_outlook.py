# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Felix makes of endpoints: the table measured on a kernel, and the field reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain, combinations, product

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.endpoint.outlook import (
    FelixError,
    felix_pass,
    predict,
)
from ansible_collections.dataplane.calico_bpf.plugins.module_utils.model import (
    AttachType,
    Behaviour,
    Endpoint,
    Hook,
    Outlook,
    Qdisc,
)
from ansible_collections.dataplane.calico_bpf.tests.support.endpoint.build import (
    at,
    endpoint,
    foreign,
    listed,
    ours,
    tcx,
    u32,
)

OK, HEALS, STUCK = Outlook.OK, Outlook.HEALS, Outlook.STUCK
ALTERNATES = Outlook.ALTERNATES
SUBSETS = list(chain.from_iterable(combinations((1, 2, 3), n) for n in range(4)))


def lowest_free(handles: tuple[int, ...]) -> int:
    return min({1, 2, 3, 4} - set(handles))


def test_all_64_pairs_of_handles() -> None:
    """22 ok, 10 heal, 32 stuck: counted on the kernel with libbpf and tc."""
    counted: Counter[Outlook] = Counter()
    for ingress, egress in product(SUBSETS, SUBSETS):
        seen, message = predict(
            endpoint(at(*ingress), at(*egress, program=20)), Behaviour.ADD_THEN_DELETE
        )
        i, e = lowest_free(ingress), lowest_free(egress)
        assert seen is (OK if i == e else STUCK if 1 in (i, e) else HEALS), (ingress, egress)
        assert (message is None) is (seen is not STUCK)
        counted[seen] += 1
    assert counted == {OK: 22, HEALS: 10, STUCK: 32}


def test_what_fails_at_every_second_pass_alternates() -> None:
    """On the real 3.29.1 that is every second heartbeat, and Felix says why each time."""
    state = endpoint(listed(foreign(49152, 2), ours(1)), at(1))
    message = compared("49152 2", "49152 3")
    assert predict(state, Behaviour.ADD_THEN_DELETE) == (ALTERNATES, message)
    assert [o.lasts for o in Outlook] == [False, False, True, True]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        # Ready on the real 3.28.1, and dirty for good on 3.29.1 and 3.29.7.
        (endpoint((ours(1, priority=49148),), (ours(1, priority=49149),)), OK),
        (endpoint(at(1), at(2)), OK),
        (endpoint((), at(1)), OK),
        (endpoint((foreign(32768),), at(1)), STUCK),
        (endpoint((ours(1, priority=32769),), at(1)), STUCK),
        (endpoint(at(1), (ours(2, chain=5),)), STUCK),
        (endpoint(at(1), (), Qdisc.INGRESS), STUCK),
    ],
)
def test_3_28_1_never_compares_the_hooks(state: Endpoint, expected: Outlook) -> None:
    assert predict(state, Behaviour.ADD_WITHOUT_COMPARE)[0] is expected


def test_3_28_1_takes_a_lower_priority_at_each_pass() -> None:
    filters = at(1)
    for priority in (49151, 49150, 49149):
        filters, slot = felix_pass(filters, Behaviour.ADD_WITHOUT_COMPARE, Hook.EGRESS)
        assert ([f.slot for f in filters], slot) == ([slot], (priority, 1))


FAILED = "Failed to apply policy to endpoint, leaving it dirty error="


def compared(ingress: str, egress: str) -> str:
    return (
        f"{FAILED}ingress qdisc info ({{true {ingress}}}) does not equal "
        f'egress qdisc info ({{true {egress}}}) name="cali0123456789a"'
    )


@pytest.mark.parametrize(
    ("handles", "behaviour", "message"),
    [
        # calico #10143, and its mirror image #10376: add_then_delete swaps the two at each retry.
        # Felix's "ingress" is the egress hook of the host's veth.
        ((2, 1), Behaviour.ADD_THEN_DELETE, compared("49152 2", "49152 1")),
        ((1, 2), Behaviour.ADD_THEN_DELETE, compared("49152 1", "49152 2")),
        # What the reporter of #10376 saw after going to 3.29.5: frozen as it was.
        ((2, 1), Behaviour.REPLACE_AND_COMPARE, compared("49152 1", "49152 2")),
        ((1, 2), Behaviour.REPLACE_AND_COMPARE, compared("49152 2", "49152 1")),
    ],
)
def test_field_reports(handles: tuple[int, int], behaviour: Behaviour, message: str) -> None:
    reported = endpoint(at(handles[0]), at(handles[1], program=20))
    assert predict(reported, behaviour) == (STUCK, message)


def test_the_message_names_the_endpoint() -> None:
    """The outlook is worked out once for all endpoints of one shape."""
    one = endpoint(at(1), at(2))
    for name in ("calia", "calib"):
        message = predict(replace(one, interface=name), Behaviour.ADD_THEN_DELETE)[1]
        assert message is not None
        assert message.endswith(f'name="{name}"')


ATTACH_FAILED = f'{FAILED}error attaching tc program invalid argument name="cali0123456789a"'


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(endpoint((), ()), "OOO", id="bare"),
        pytest.param(endpoint((), (), Qdisc.NONE), "OOO", id="no clsact"),
        pytest.param(endpoint(at(1), at(1)), "OOO", id="both at 1"),
        pytest.param(endpoint(at(2), at(2)), "OOO", id="both at 2"),
        pytest.param(endpoint(at(1), at(2)), "SSO", id="one step apart"),
        pytest.param(endpoint(at(1), at(1, 2)), "HSO", id="a duplicate"),
        pytest.param(endpoint(at(1, 2), at(1, 2)), "OOO", id="duplicates at both"),
        pytest.param(endpoint((), at(1)), "SOO", id="bare v 1"),
        pytest.param(endpoint((), at(2)), "OSO", id="bare v 2"),
        pytest.param(endpoint(at(1), (ours(1, priority=49151),)), "SSO", id="priorities differ"),
        pytest.param(endpoint(at(1), (ours(1, priority=10),)), "SSO", id="a low priority"),
        pytest.param(
            endpoint(listed(foreign(1), foreign(100), *at(1)), at(1)),
            "OOO",
            id="foreign filters below",
        ),
        pytest.param(
            endpoint(listed(foreign(49152), ours(1, priority=49151)), at(1)),
            "SSO",
            id="a foreign filter at 49152",
        ),
        pytest.param(
            endpoint(listed(foreign(49152), ours(2)), at(2)),
            "AOO",
            id="a foreign filter at handle 1",
        ),
        pytest.param(
            endpoint(listed(foreign(49152, 2), ours(1)), at(1)),
            "AOO",
            id="a foreign filter at handle 2",
        ),
        pytest.param(endpoint((foreign(49152),), ()), "SSO", id="a foreign filter first"),
        pytest.param(endpoint((foreign(32768),), ()), "SSS", id="no auto priority left"),
        pytest.param(endpoint(at(1), (ours(1, protocol=0x0800),)), "SSS", id="wrong protocol"),
        pytest.param(endpoint(at(1), (ours(1, direct_action=False),)), "OOO", id="no verdict"),
        pytest.param(
            endpoint(at(1), (ours(1, name="calico_from_wor:[1]"),)), "OOO", id="a legacy name"
        ),
        pytest.param(endpoint((u32(49152),), at(1)), "SSO", id="u32 at 49152"),
        pytest.param(endpoint(at(1), (), Qdisc.INGRESS), "SSO", id="ingress qdisc"),
        pytest.param(endpoint((tcx(1),), (tcx(2),), Qdisc.NONE), "OOO", id="TCX"),
    ],
)
def test_states(state: Endpoint, expected: str) -> None:
    """Each state under the behaviours B, C and D: ok, heals, alternates or stuck."""
    seen = [
        predict(state, behaviour)
        for behaviour in (
            Behaviour.ADD_THEN_DELETE,
            Behaviour.REPLACE_AND_COMPARE,
            Behaviour.REPLACE,
        )
    ]
    assert "".join(s[0].name[0] for s in seen) == expected


def test_felix_message_if_it_cannot_attach() -> None:
    wrong = endpoint(at(1), (ours(1, protocol=0x0800),))
    assert predict(wrong, Behaviour.ADD_THEN_DELETE) == (STUCK, ATTACH_FAILED)
    taken = endpoint(at(1), (), Qdisc.INGRESS)
    message = f'{FAILED}creating qdisc file exists name="cali0123456789a"'
    assert predict(taken, Behaviour.ADD_THEN_DELETE) == (STUCK, message)


def test_if_both_hooks_fail_the_error_of_the_egress_hook_is_logged() -> None:
    no_priority_left, wrong_protocol = (foreign(32768),), (ours(1, protocol=0x0800),)
    both = endpoint(no_priority_left, wrong_protocol)
    assert predict(both, Behaviour.ADD_THEN_DELETE) == (STUCK, ATTACH_FAILED)
    both = endpoint(wrong_protocol, no_priority_left)
    message = predict(both, Behaviour.ADD_THEN_DELETE)[1] or ""
    assert "no space left on device" in message


def test_in_another_chain_felix_deletes_its_own_new_filter() -> None:
    """And calls it a success, though the hook enforces nothing then."""
    aside = ours(1, chain=5)
    left, slot = felix_pass((aside,), Behaviour.ADD_THEN_DELETE, Hook.INGRESS)
    assert left == (aside,)
    assert slot == (49152, 1)
    assert predict(endpoint((aside,), (aside,)), Behaviour.ADD_THEN_DELETE) == (OK, None)


def test_a_delete_that_finds_nothing_is_an_error() -> None:
    """The chain's filter is at another handle than the new one; tc's own words."""
    aside = ours(2, chain=5)
    with pytest.raises(FelixError) as failed:
        felix_pass((aside,), Behaviour.ADD_THEN_DELETE, Hook.EGRESS)
    assert "filter del dev {interface} egress pref 49152 handle 0x2 bpf]: rc=2" in str(failed.value)
    assert "Specified filter handle not found" in str(failed.value)
    assert [f.chain for f in failed.value.filters] == [5, 0]
    message = predict(endpoint((aside,), at(1)), Behaviour.ADD_THEN_DELETE)[1] or ""
    assert "dev cali0123456789a ingress" in message


def test_era_d_knows_its_filters_by_their_own_name_only() -> None:
    """One that tc attached by hand bears the program's name where only add_then_delete looks."""
    by_hand = ours(1, name="allow.o:[tc]")
    assert len(felix_pass((by_hand,), Behaviour.ADD_THEN_DELETE, Hook.INGRESS)[0]) == 1
    assert len(felix_pass((by_hand,), Behaviour.REPLACE, Hook.INGRESS)[0]) == 2


def test_tcx_programs_are_none_of_these_eras_business() -> None:
    mixed = endpoint((tcx(1), *at(1)), at(1))
    assert mixed.ingress[0].attach_type is AttachType.TCX
    assert predict(mixed, Behaviour.ADD_THEN_DELETE) == (OK, None)
