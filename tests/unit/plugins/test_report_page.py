# Copyright (c) 2026, the dataplane.calico_bpf contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page: one file, well formed, and everything that others wrote is text in it."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from ansible_collections.dataplane.calico_bpf.plugins.module_utils.report.summary import summarize
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.recorder import document
from ansible_collections.dataplane.calico_bpf.plugins.plugin_utils.report_page import page
from ansible_collections.dataplane.calico_bpf.tests.support.report.rollout import (
    PHASES,
    RUN,
    Rollout,
    endpoint,
    parity,
    result_of,
)

VOID = {"meta"}
EVIL = "</p><script>alert(1)</script>\"' onload='x' &amp; {{ 7 * 7 }} \x1b[2J\u202e"


class Page(HTMLParser):
    """A page taken apart, with what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[object] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        attributes = dict(attrs)
        self.wrong += [name for name in attributes if name.startswith("on")]
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag in ("p", "ul", "ol", "pre", "table", "dl", "article") and "p" in self.open:
            self.wrong.append((tag, "in p", self.getpos()))
        if tag == "th" and "scope" not in attributes:
            self.wrong.append(("th without scope", self.getpos()))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def large(size: int = 30) -> Rollout:
    rollout = Rollout()
    nodes = [f"worker-{number}" for number in range(1, size + 1)]
    rollout.begin(*nodes, target="v3.29.5")
    rollout.phase("", "preflight")
    for position, node in enumerate(nodes, start=1):
        rollout.node(node, position=position, total=size)
        rollout.phase(node, "soak", 3)
    rollout.say("finished")
    return rollout


def failed() -> Rollout:
    rollout = Rollout()
    rollout.begin("worker-1", "worker-2", "worker-3")
    rollout.node("worker-1")
    rollout.phase("worker-2", "reattach", result=parity(endpoint("cali1", "contended")))
    rollout.say("begun", "worker-2", "verify")
    check = {"name": "dirty endpoints", "result": "bad", "seen": "cali1", "wanted": "none"}
    result = {"checks": [check], "strange": {"key": ["value"]}}
    rollout.say("failed", "worker-2", "verify", 60, message="it does not", result=result)
    rollout.say("note", message="left at OnDelete", result={"sent": 100, "lost": 1})
    rollout.say("stopped", message="nothing else was touched")
    return rollout


def running() -> Rollout:
    rollout = Rollout()
    rollout.begin("worker-1", "worker-2")
    rollout.say("begun", "worker-1", "drain", position=1, total=2)
    return rollout


def trial() -> Rollout:
    rollout = Rollout(check=True)
    rollout.begin("worker-1")
    rollout.node("worker-1")
    rollout.say("finished")
    return rollout


def bare() -> Rollout:
    """An event that tells nothing but itself."""
    rollout = Rollout()
    rollout.say("interrupted")
    return rollout


def evil() -> Rollout:
    """Every text that an event carries is hostile."""
    rollout = Rollout(run=EVIL)
    step = {"action": EVIL, "hook": EVIL, "name": EVIL}
    found = {"code": EVIL, "hook": EVIL, "message": EVIL}
    odd = {
        **endpoint(EVIL, EVIL), "outlook": EVIL, "findings": [found], "remaining": [found, found],
        "plan": [step, EVIL], "notes": [EVIL], "felix_message": EVIL, EVIL: {EVIL: EVIL},
    }  # fmt: skip
    drain = {"evicted": [EVIL], "skipped": [{"pod": EVIL, "why": EVIL}], "remaining": [EVIL]}
    checks = [{"name": EVIL, "result": "bad", "seen": EVIL, "wanted": EVIL}]
    nodes = [{"name": EVIL, "version": EVIL}]
    rollout.say("begun", begin={"title": EVIL, "nodes": nodes, EVIL: [EVIL]}, message=EVIL)
    more = {"former": {"version": EVIL}, "pod": {"version": EVIL}, "checks": checks, EVIL: EVIL}
    rollout.phase("", EVIL, result=more, message=EVIL)
    rollout.phase(EVIL, EVIL, result={**parity(odd), **drain, **more}, message=EVIL)
    rollout.say("failed", EVIL, "verify", message=EVIL)
    rollout.say("note", EVIL, EVIL, message=EVIL, result={EVIL: EVIL})
    rollout.say("stopped", message=EVIL + " too", result={EVIL: EVIL})
    return rollout


EVERY = [large, failed, running, trial, bare, evil]


def page_of(rollout: Rollout) -> str:
    return page(summarize(rollout.events, rollout.run, rollout.check, (3,)))


@pytest.mark.parametrize("make", EVERY, ids=lambda make: make.__name__)
def test_it_is_one_well_formed_file(make: Callable[[], Rollout]) -> None:
    text = page_of(make())
    made = Page(text)
    assert (made.wrong, made.open) == ([], [])
    assert len(made.ids) == len(set(made.ids))
    assert all(link.startswith("#") and link[1:] in made.ids for link in made.links)
    assert made.tags.keys().isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    assert not re.search(r"url\(|@import|https?:|None|Undefined", text.replace(EVIL, ""))
    # No level is left out.
    assert made.headings[0] == "h1"
    levels = [int(heading[1]) for heading in made.headings]
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    assert made.headings.count("h1") == 1
    assert made.text.count("All times are UTC") == 1


def test_what_others_wrote_is_text() -> None:
    text = page_of(evil())
    made = Page(text)
    assert "script" not in made.tags
    assert made.text.count("<script>alert(1)</script>") > 40
    assert "{{ 7 * 7 }}" in made.text
    assert not {"\x1b", "\u202e"} & set(text)
    assert "\\x1b[2J\\x202e" in made.text


def test_text_that_is_no_unicode_can_be_written() -> None:
    rollout = running()
    rollout.say("note", message="\udc80 ü")
    assert "\\udc80 ü" in page_of(rollout).encode().decode()


def test_the_verdict_comes_first_then_what_to_do() -> None:
    text = Page(page_of(failed())).text
    order = [
        "Stopped at worker-2, verify: 1 of 3 nodes done", "it does not", "nothing else was touched",
        "What to do next", "Check the failed checks of worker-2 below", "Notes", "left at OnDelete",
        "Packets lost: 1 of 100", "Timeline", "Endpoints that drifted",
        "cali1 on worker-2: contended",
        "Details", "dirty endpoints", "BAD", "strange:",
    ]  # fmt: skip
    places = [text.find(words) for words in order]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (large, "Completed: 30 of 30 nodes done"),
        (running, "Not ended: running, or cut off, after 22:00:02: 0 of 2 nodes done"),
        (trial, "Completed: 1 of 1 nodes done"),
        (bare, "Interrupted: no node recorded"),
    ],
)
def test_headlines(make: Callable[[], Rollout], line: str) -> None:
    assert line in Page(page_of(make())).text


def test_check_mode_says_that_nothing_was_changed() -> None:
    assert "Check mode: nothing was changed." in page_of(trial())
    assert "<title>Check mode: completed:" in page_of(trial())
    assert "heck mode" not in page_of(large())


def test_every_phase_is_a_bar_as_long_as_it_took() -> None:
    rollout = Rollout()
    rollout.say("begun", "w", "drain", after=0)
    rollout.say("done", "w", "drain", after=30)
    rollout.say("begun", "w", "verify", after=0)
    rollout.say("failed", "w", "verify", after=70)
    text = page_of(rollout)
    assert '<rect class="odd" x="0.0" y="0" width="300.0"' in text
    assert '<rect class="bad" x="300.0" y="0" width="700.0"' in text
    assert "<title>drain: done, 30 s</title>" in text


def test_a_later_day_is_told() -> None:
    rollout = running()
    rollout.say("done", "worker-1", "drain", after=3 * 3600)
    rollout.say("begun", "worker-1", "verify")
    text = Page(page_of(rollout)).text
    assert "2026-11-24 01:00:03" in text
    assert "2026-11-23 22:00:02" not in text


def test_every_node_phase_and_endpoint_of_a_large_run_is_there() -> None:
    made = Page(page_of(large()))
    assert made.tags["article"] == 90
    for phase in PHASES:
        assert made.text.count(phase) >= 30
    assert made.text.count("worker-30") > 5


def test_a_report_costs_no_more_than_its_nodes() -> None:
    """It is made at each event; the best of some tries, for machines are noisy."""

    def seconds(size: int) -> float:
        events = large(size).events
        begin = time.process_time()
        made = summarize(events, RUN)
        assert document(made)
        assert page(made)
        return time.process_time() - begin

    few, many = (min(seconds(size) for attempt in range(5)) for size in (10, 100))
    assert many < 20 * few


def test_all_that_the_page_tells_may_be_strange() -> None:
    """Whatever type stands where a text is wanted, a report comes out, and the value is in it."""
    odd: list[Any] = [None, 0, -1.5, True, "x", [], {}, [None], {"a": None}]
    for value in odd:
        rollout = running()
        for phase in ("drain", "qdisc_parity", "node_upgrade", "verify"):
            for key in result_of(phase):
                rollout.say("done", "worker-1", phase, result={**result_of(phase), key: value})
        for key in endpoint("c"):
            rollout.say("done", "worker-1", "p", result=parity({**endpoint("c"), key: value}))
        rollout.say("note", message="m", begin={"title": value, "nodes": value, "z": value})
        assert Page(page_of(rollout)).wrong == []


def test_the_same_page_from_the_same_events() -> None:
    one, two = failed(), failed()
    two.events = [replace(e) for e in two.events]
    assert page_of(one) == page_of(two)


def test_the_report_names_the_cluster_and_its_api_server() -> None:
    made = Rollout()
    made.begin("worker-1", api={"server": "https://api:6443", "cluster": EVIL})
    report = summarize(made.events, RUN)
    assert (report.api_server, report.about) == ("https://api:6443", {})
    assert json.loads(document(report))["cluster"] == EVIL
    shown = Page(page(report))
    assert "API server https://api:6443." in shown.text
    assert shown.wrong == []
    unknown = Rollout()
    unknown.begin("worker-1")
    assert "API server" not in Page(page(summarize(unknown.events, RUN))).text
