"""Attacks on the proof between a site and its coordinator: ledger heads sent, receipts handed back."""

from __future__ import annotations

import errno
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord

from msfl_client.egress.ledger_receipts import Receipts
from msfl_common.config.site import Policy
from msfl_common.messages.ledger import HEAD, RECEIPT, take_head
from msfl_common.messages.records import describe, unpack_update
from msfl_common.trust.receipts import Receipt, SignedHead, countersign
from msfl_server.study.folder import open_notary
from msfl_server.study.ledger_heads import read_heads
from msfl_server.study.paths import StudyFolder
from tests.attacks.ledger_parties import Parties, caught, make_study, request_with, site_of
from tests.attacks.test_ledger import broken


def test_receipts_thrown_away(parties: Parties) -> None:
    parties.receipts.path.unlink()
    caught(parties, "the receipt that line 2 names was removed")


def test_one_receipt_thrown_away(parties: Parties) -> None:
    kept = parties.receipts.path.read_bytes().splitlines(keepends=True)
    parties.receipts.path.write_bytes(b"".join([kept[0], *kept[2:]]))
    caught(parties, "the receipt that line 3 names was removed")


def test_a_receipt_edited(parties: Parties) -> None:
    first = next(parties.receipts.read())
    later = first.time.replace("2026", "2027") if "2026" in first.time else first.time.replace("20", "21", 1)
    parties.receipts.path.write_bytes(parties.receipts.path.read_bytes().replace(first.time.encode(), later.encode()))
    caught(parties, "names was removed or changed")


def test_receipts_of_another_study_prove_nothing(parties: Parties, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other", "here")
    notary = open_notary(other)
    lines = parties.lines()
    elsewhere = countersign(notary.key, notary.certificate, "other", "here", lines[4].signed_head, datetime.now(UTC))
    parties.take(request_with(elsewhere))
    assert parties.verify().countersigned.number == 4, "a coordinator's receipt of another study is not kept"
    with parties.receipts.path.open("ab") as stream:
        stream.write(elsewhere.line + b"\n")
    proof = parties.verify()
    assert (proof.countersigned.number, proof.countersigned.others) == (4, 1)
    assert "1 receipts are of earlier studies" in proof.sentences[2]


def forged_receipts(parties: Parties, folder: Path) -> dict[str, Receipt]:
    notary, last, now = parties.notary, parties.lines()[-1].signed_head, datetime.now(UTC)
    impostor = open_notary(make_study(folder / "impostor"))

    def made(head: SignedHead = last, time: datetime = now, site: str = "here", study: str = "my-study") -> Receipt:
        return countersign(notary.key, notary.certificate, notary.study, site, head, time)

    never = SignedHead(number=5, hash="0" * 64, signature=last.signature)
    return {
        "another authority's server": countersign(impostor.key, impostor.certificate, notary.study, "here", last, now),
        "another key under the server's certificate": countersign(
            impostor.key, notary.certificate, notary.study, "here", last, now
        ),
        "no certificate": countersign(notary.key, "none", notary.study, "here", last, now),
        "a head that never was": made(never),
        "a line yet to come": made(SignedHead(number=99, hash="1" * 64, signature=last.signature)),
        "another site": made(site="there"),
        "dated before the line": made(time=now - timedelta(days=1)),
        "dated in the future": made(time=now + timedelta(days=1)),
        "a time that is none": made().model_copy(update={"time": "yesterday"}),
        "another time under the signature": made().model_copy(update={"time": (now + timedelta(1)).isoformat()}),
        "replayed": next(parties.receipts.read()),
    }


FORGED = (
    "another authority's server", "another key under the server's certificate", "no certificate",
    "a head that never was", "a line yet to come", "another site", "dated before the line", "dated in the future",
    "a time that is none", "another time under the signature", "replayed",
)  # fmt: skip


@pytest.mark.parametrize("how", FORGED)
def test_a_coordinator_that_forges_a_receipt(parties: Parties, tmp_path: Path, how: str) -> None:
    before = parties.receipts.path.read_bytes()
    parties.take(request_with(forged_receipts(parties, tmp_path)[how]))
    assert parties.receipts.path.read_bytes() == before
    parties.verify()


@pytest.mark.parametrize(
    "record",
    [{}, {"number": "5"}, {"number": 5, "hash": [1.0] * 1000}, {"study": "x" * 10**6}, {"number": float("nan")}],
    ids=["empty", "text", "numbers", "long", "nan"],
)
def test_a_coordinator_that_sends_junk_as_receipt(parties: Parties, record: dict[str, object]) -> None:
    before, request = parties.receipts.path.read_bytes(), parties.request()
    request[RECEIPT] = ConfigRecord(record)
    parties.take(request)
    assert RECEIPT not in request
    assert parties.receipts.path.read_bytes() == before


def test_a_receipt_onto_an_edited_file_is_named_and_ends_nothing(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    with parties.receipts.path.open("ab") as stream:
        stream.write(b"{}\n")
    parties.answer()
    parties.take(parties.request())
    assert "the last line is not a receipt, or was edited" in caplog.text


def test_a_coordinator_that_withholds_receipts_is_seen(parties: Parties) -> None:
    for number in range(3):
        parties.answer(number)
    assert "up to line 4, by the coordinator" in parties.verify().sentences[2]
    assert "4 later lines have none yet" in parties.verify().sentences[2]


def test_a_coordinator_that_denies_what_it_saw(parties: Parties) -> None:
    """It throws its record away; its signature at the site stays good."""
    parties.study.ledger_heads.unlink()
    parties.restart_coordinator()
    assert parties.verify().countersigned.number == 4


def test_a_receipt_for_lines_that_the_site_has_lost_is_kept_as_proof(
    parties: Parties, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parties.snapshot(tmp_path / "backup")
    parties.play(2)
    parties.restore(tmp_path / "backup")
    parties.take(parties.request())
    assert "signed by this site, that is not here" in caplog.text
    caught(parties, "the coordinator signed line 7 on .* its end was removed")


@pytest.mark.parametrize(
    "head",
    [
        {"number": 6, "hash": "0" * 64, "signature": "AAAA"},
        {"number": -1, "hash": "0" * 64, "signature": "AAAA"},
        {"number": 10**30, "hash": "0" * 64, "signature": "AAAA"},
        {"number": 6, "hash": "0" * 64, "signature": "A" * 10**6},
        {"number": 6, "hash": "../../etc", "signature": "AAAA"},
        {"number": True, "hash": "0" * 64, "signature": "AAAA"},
    ],
    ids=["unsigned", "negative", "huge", "long", "no-hash", "bool"],
)
def test_a_site_that_sends_a_forged_head_gets_no_receipt(parties: Parties, head: dict[str, object]) -> None:
    before, answer = parties.study.ledger_heads.read_bytes(), parties.answer()
    if head["number"] != 10**30:  # Flower itself has no room for it
        answer[HEAD] = ConfigRecord(head)
    else:
        del answer[HEAD]
    parties.notary.note("here", take_head(answer))
    assert parties.study.ledger_heads.read_bytes() == before
    unpack_update(answer, {"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)})


def test_a_site_that_poses_as_another(parties: Parties) -> None:
    before = parties.study.ledger_heads.read_bytes()
    parties.notary.note("there", parties.lines()[-1].signed_head)
    assert parties.study.ledger_heads.read_bytes() == before


def test_a_site_that_hides_its_head_is_named(parties: Parties, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        parties.notary.note("here", None)
    assert "here: the end of its ledger is not countersigned: it sent none" in caplog.text


def test_head_and_receipt_change_no_digest_and_hold_nothing_else(parties: Parties) -> None:
    request, bare = parties.request(), parties.request()
    del bare[RECEIPT]
    assert describe(request) == describe(bare)
    answer = parties.answer()
    assert set(answer[HEAD]) == {"number", "hash", "signature"}
    assert take_head(answer) == parties.lines()[-1].signed_head
    assert describe(answer).sha256 == parties.lines()[-1].sha256
    assert parties.lines()[-1].head_sent


def test_a_policy_without_ledger_head_keeps_it_here(ledger_base: Path, tmp_path: Path) -> None:
    policy = Policy(allow=("model_update",))
    made = Parties(site_of(ledger_base, "here", tmp_path / "state", policy), StudyFolder(ledger_base / "pilot"))
    assert HEAD not in made.answer()
    assert not made.lines()[0].head_sent


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_receipt_cut_short_by_a_crash_comes_again(parties: Parties, cut: int) -> None:
    whole = parties.receipts.path.read_bytes()
    parties.take(parties.request())
    new = parties.receipts.path.read_bytes()
    parties.receipts.path.write_bytes(new[: len(whole) + cut])
    assert parties.verify().countersigned.number == 4
    parties.take(parties.request())
    assert parties.receipts.path.read_bytes() == new
    parties.take(parties.request())
    assert parties.receipts.path.read_bytes() == new, "once is enough"


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_coordinator_killed_as_it_writes_a_head_goes_on(parties: Parties, cut: int) -> None:
    file, before = parties.study.ledger_heads, parties.study.ledger_heads.read_bytes()
    parties.notary.note("here", take_head(parties.answer()))
    file.write_bytes(file.read_bytes()[: len(before) + cut])
    parties.restart_coordinator()
    parties.play(2)
    assert broken(parties) == []
    assert [seen.receipt.number for seen in read_heads(file)] == [1, 2, 3, 4, 5, 7, 8]
    assert parties.verify().countersigned.newest is not None


def test_a_lost_answer_and_a_lost_request_leave_no_doubt(parties: Parties) -> None:
    parties.answer()  # never arrives
    parties.request()  # never arrives
    parties.restart_coordinator()
    parties.play(2)
    assert broken(parties) == []
    newest = parties.verify().countersigned.newest
    assert newest is not None
    assert newest.number == 7


def test_a_receipt_that_finds_no_room_comes_again(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = parties.receipts.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Receipts, "keep", full)
        parties.take(parties.request())
    assert "could not be kept: No space left" in caplog.text
    assert parties.receipts.path.read_bytes() == before
    parties.take(parties.request())
    assert len(parties.receipts.path.read_bytes()) > len(before)
