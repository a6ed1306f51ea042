"""What a ledger shows of masked sums, and how it contradicts a site that used a mask twice."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.client.egress.test_ledger import entry

from msfl_client.cli.ledger_view import COLUMNS, CSV_START, export_csv
from msfl_client.egress.answers import forget, may_answer
from msfl_client.egress.ledger import LEDGER_FILE, append
from msfl_client.egress.ledger_facts import gather_facts
from msfl_client.egress.ledger_line import FORMAT, InSum, Line
from msfl_client.egress.ledger_page import write_page
from msfl_client.egress.ledger_proof import Proof
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.messages.records import RoundTask, pack_task
from msfl_common.trust.signatures import canonical

NAMES = ("bern", "graz", "oslo")


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return SiteConfig(name="bern", data=(tmp_path,), state=tmp_path / "state", kit=tmp_path / "kit")


def write(site: SiteConfig, kind: str, context: str = "", digest: str = "", request: str = "") -> None:
    about = InSum(roster="r" * 64, sites=NAMES, least=3, context=context, request=request or context, digest=digest)
    append(site.state / LEDGER_FILE, entry(1).model_copy(update={"kind": kind, "in_sum": about}))


def lines(site: SiteConfig) -> list[Line]:
    return list(Proof.of(site).lines())


def test_values_that_left_only_in_sums_are_told_with_their_sites(site: SiteConfig, tmp_path: Path) -> None:
    write(site, "roster_confirmed")
    for context in ("a", "a", "b"):
        write(site, "masked_update", context, f"value {context}")
    write(site, "unmask_shares", "a", "opening a")
    proof = Proof.of(site)
    document = gather_facts(site, proof).document
    sums = document["studies"][0]["masked_sums"]
    assert (sums["values"], sums["sums"], sums["least_sites"], sums["opened"]) == (3, 2, 3, 1)
    assert sums["sites"] == list(NAMES)
    assert list(sums["rosters"].values()) != [""]
    expected = (
        "3 values left under masks, for 2 sums that can be opened with those of at least 3 sites alone, of bern, graz, "
        "oslo; this site helped to open 1 sum"
    )
    assert sums["sentence"] == expected
    assert proof.sentences[-1].startswith(f"Study pilot: {expected}; no mask served two values")
    write_page(tmp_path / "page.html", gather_facts(site, proof))
    page = (tmp_path / "page.html").read_text()
    assert expected in page
    assert "roster confirmed" in page
    assert "rrrrrrrr" in page


def test_two_values_under_one_mask_are_found(site: SiteConfig) -> None:
    write(site, "masked_update", "a", "one")
    write(site, "masked_sums", "b", "other")
    assert len(lines(site)) == 2
    write(site, "masked_update", "a", "two")
    with pytest.raises(InputError, match="line 3 has another value than line 1 under the same masks"):
        lines(site)


def test_a_request_that_was_opened_twice_is_found_unless_a_person_let_it(site: SiteConfig) -> None:
    write(site, "unmask_shares", "a", "of three", request="q")
    write(site, "unmask_shares", "a", "of three", request="q")
    assert len(lines(site)) == 2
    task = RoundTask(StudyConfig(name="pilot"), 1)
    may_answer(site.state, "train", task, pack_task(task), 9)()
    forget(site, "pilot")
    write(site, "unmask_shares", "b", "of two", request="q")
    assert len(lines(site)) == 4
    write(site, "unmask_shares", "c", "of three", request="q")
    with pytest.raises(InputError, match="line 5 opens a request that line 4 opened with other sites"):
        lines(site)


def test_lines_of_earlier_versions_are_read_as_they_were_written(site: SiteConfig) -> None:
    path = site.state / LEDGER_FILE
    line = append(path, entry(1))
    assert line.format == FORMAT == 3
    earlier = {name: value for name, value in line.model_dump().items() if name not in ("in_sum", "hash", "signature")}
    earlier["format"] = 2
    from msfl_client.egress.ledger_line import hash_of

    path.write_bytes(canonical({**earlier, "hash": hash_of(earlier), "signature": ""}) + b"\n")
    path.with_suffix(".head").unlink()
    append(path, entry(2))
    assert [(line.number, line.in_sum) for line in lines(site)] == [(1, None), (2, None)]


def test_an_export_has_the_sum_and_replaces_one_of_an_earlier_version(site: SiteConfig, tmp_path: Path) -> None:
    write(site, "masked_update", "a", "value")
    append(site.state / LEDGER_FILE, entry(2))
    export_csv(tmp_path / "ledger.csv", lines(site))
    with (tmp_path / "ledger.csv").open() as stream:
        first, second = csv.DictReader(stream)
    assert '"sites": ["bern", "graz", "oslo"]' in first["in_sum"]
    assert second["in_sum"] == ""
    assert ",".join(COLUMNS).startswith(CSV_START)
    assert CSV_START.endswith("signature")
