"""Attacks on the ledger: by a local account, by a site that has its own key, and by its coordinator."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from msfl_client import ledger_late
from msfl_client.ledger import append
from msfl_client.ledger_content import SENT_FOLDER, open_content
from msfl_client.ledger_late import Late, late_of
from msfl_client.ledger_line import Entry, Line, hash_of
from msfl_common.config import Policy, Rounds
from msfl_common.config_ledger import KeepContent
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.messages import describe, unpack_update
from msfl_common.messages_ledger import HEAD, RECEIPT, take_head
from msfl_common.receipts import Receipt, SignedHead, Signer, canonical, countersign
from msfl_server.cli import main as server_main
from msfl_server.federation_exchange import Question, ask
from msfl_server.ledger_heads import compare, read_heads
from msfl_server.study_folder import StudyFolder, open_notary
from tests.attacks.ledger_parties import Parties, make_study, request_with, site_of
from tests.benchmarks.boundary.ledger import is_found
from tests.commands import run_main


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, "here", "there")
    return folder


@pytest.fixture
def parties(base: Path, tmp_path: Path) -> Parties:
    """Five messages, of which four are countersigned at the site."""
    (base / "pilot" / "run" / "ledger_heads.jsonl").unlink(missing_ok=True)
    made = Parties(site_of(base, "here", tmp_path / "state"), StudyFolder(base / "pilot"))
    made.play(5)
    assert made.verify().countersigned.number == 4
    return made


def caught(parties: Parties, match: str) -> None:
    with pytest.raises(InputError, match=match):
        parties.verify()


def broken(parties: Parties) -> list[str]:
    return [seen.verdict for seen in compare(parties.study.ledger_heads)[1] if seen.site == "here"]


def edited(lines: list[Line]) -> list[Line]:
    return [*lines[:2], lines[2].model_copy(update={"num_cases": 8}), *lines[3:]]


REWRITINGS: dict[str, Callable[[list[Line]], list[Line]]] = {
    "edited": edited,
    "deleted": lambda lines: [*lines[:2], *lines[3:]],
    "inserted": lambda lines: [*lines[:2], lines[0], *lines[2:]],
    "reordered": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "repeated": lambda lines: [*lines, lines[-1]],
}


@pytest.mark.parametrize("how", REWRITINGS)
def test_whoever_lacks_the_key_forges_no_line(parties: Parties, how: str) -> None:
    """The whole chain is made anew without a flaw, signed with a key of the forger's own."""
    lines, stranger = REWRITINGS[how](parties.lines()), Signer("here", ec.generate_private_key(ec.SECP384R1()))
    parties.write([*lines], stranger)
    caught(parties, "line 1 is not signed by the key of here")
    with pytest.raises(RefusedError, match="signed by another key"):
        parties.answer()


@pytest.mark.parametrize("how", REWRITINGS)
def test_a_site_that_rewrites_its_ledger_with_its_key_contradicts_the_receipts(parties: Parties, how: str) -> None:
    lines = REWRITINGS[how](parties.lines())
    parties.write([*lines], parties.signer, [line.receipt for line in lines])
    caught(parties, "the ledger was written anew|names was removed")


def test_a_site_that_rewrites_receipts_and_ledger_is_named_by_the_coordinator(parties: Parties) -> None:
    parties.write([*edited(parties.lines())], parties.signer)
    parties.receipts.path.unlink()
    assert parties.verify().num_lines == 5, "at the site alone this cannot be seen"
    parties.cut(4)
    parties.notary.note("here", take_head(parties.answer()))
    assert broken(parties) == ["another line"]


def test_signatures_stripped_off_the_whole_ledger(parties: Parties) -> None:
    parties.write([*parties.lines()], None)
    caught(parties, "written anew")
    parties.receipts.path.unlink()
    caught(parties, "no line is signed, though the site has a key")


def test_nothing_is_signed_on_top_of_a_stripped_ledger_that_has_receipts(parties: Parties) -> None:
    parties.write([*parties.lines()], None)
    with pytest.raises(RefusedError, match="is not signed, though the coordinator has given receipts"):
        parties.answer()


def test_a_line_added_without_signature(parties: Parties) -> None:
    raw, last = parties.ledger.read_bytes(), parties.lines()[-1]
    parties.write([*parties.lines(), last], None)
    forged = parties.ledger.read_bytes().splitlines(keepends=True)[-1]
    forged = forged.replace(parties.lines()[-1].previous.encode(), last.hash.encode())
    body = json.loads(forged)
    del body["hash"], body["signature"]
    parties.put(raw + canonical({**body, "hash": hash_of(body), "signature": ""}) + b"\n")
    caught(parties, "line 6 is not signed, but follows signed ones")


def test_a_signature_of_one_line_under_another(parties: Parties) -> None:
    lines = parties.lines()
    raw = parties.ledger.read_bytes().replace(lines[1].signature.encode(), lines[3].signature.encode())
    parties.put(raw)
    caught(parties, "line 2 is not signed by the key of here")


def test_the_ledger_of_another_site_in_its_place(parties: Parties, base: Path, tmp_path: Path) -> None:
    there = Parties(site_of(base, "there", tmp_path / "there"), parties.study)
    there.play(6)
    for suffix in (".jsonl", ".head"):
        parties.ledger.with_suffix(suffix).write_bytes(there.ledger.with_suffix(suffix).read_bytes())
    caught(parties, "line 1 is not signed by the key of here")
    parties.receipts.path.write_bytes(there.receipts.path.read_bytes())
    caught(parties, "forged: no line of this site's")


def test_random_tampering_is_found(parties: Parties) -> None:
    chance = random.Random(1)
    assert all(is_found(parties, chance) for _ in range(40))


def test_a_process_without_the_key_adds_nothing(parties: Parties) -> None:
    with pytest.raises(RefusedError, match="signed by another key"):
        append(parties.ledger, parties.lines()[0])


def test_the_end_cut_off_and_the_head_with_it(parties: Parties) -> None:
    parties.cut(3)
    caught(parties, "the coordinator signed line 4 on .* its end was removed")


def test_the_whole_state_set_back_to_a_backup(parties: Parties, tmp_path: Path) -> None:
    parties.snapshot(tmp_path / "backup")
    parties.play(3)
    parties.restore(tmp_path / "backup")
    parties.verify()
    parties.play(1)
    assert broken(parties) == ["another line"]
    caught(parties, "the coordinator had signed line 8; the ledger was set back to before that")


def test_a_ledger_begun_anew_is_named_and_followed_from_there(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    for file in parties.site.state.glob("ledger.*"):
        file.unlink()
    parties.play(3)
    named = broken(parties)
    assert named in (["another line"], ["set back"])  # within one second, the first line is the same again
    assert "holds line 5 of a ledger that is not here" in caplog.text, "the site notices, too"
    assert parties.verify().countersigned.number == 2
    parties.restart_coordinator()
    parties.play(1)
    assert broken(parties) == named


def test_an_old_head_shown_again(parties: Parties) -> None:
    """A site that sends without writing down what."""
    parties.notary.note("here", parties.lines()[2].signed_head)
    assert broken(parties) == ["set back"]


def test_the_coordinators_command_names_a_ledger_that_was_set_back(parties: Parties) -> None:
    shown = run_main(server_main, "ledgers", parties.study.root)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert parties.lines()[-1].hash[:20] in shown.stdout
    parties.notary.note("here", parties.lines()[2].signed_head)
    shown = run_main(server_main, "ledgers", parties.study.root)
    assert shown.returncode == 1
    assert "here, 20" in shown.stdout
    assert "line 3: it ended before a line that had been seen" in shown.stdout
    document = json.loads(run_main(server_main, "ledgers", parties.study.root, "--json").stdout)
    assert [(one["site"], one["number"], one["what"]) for one in document["broken"]] == [("here", 3, "set back")]


def test_a_head_beside_an_answer_is_no_part_of_it_in_a_simulation_either(parties: Parties) -> None:
    """A site with a key may be simulated; nobody countersigns there."""

    class Engine:
        """A grid of one node, which answers at once."""

        def push_messages(self, messages: list[Message]) -> list[str]:
            assert all(RECEIPT not in message.content for message in messages)
            return ["1" for _ in messages]

        def pull_messages(self, ids: list[str]) -> list[Message]:
            return [Message(answer, 1, "train")]

    # Flower stamps messages with who sends them.
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    answer, like = parties.answer(), {"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}
    assert HEAD in answer
    question = Question("train", RecordDict, lambda _, content: unpack_update(content, like), "BAD_UPDATE")
    found = ask(Engine(), {1: "here"}, question, 1, Rounds())  # type: ignore[arg-type]
    assert found.failures == ()
    assert found.replies[1].num_cases == 9


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


def test_a_policy_without_ledger_head_keeps_it_here(base: Path, tmp_path: Path) -> None:
    policy = Policy(allow=("model_update",))
    made = Parties(site_of(base, "here", tmp_path / "state", policy), StudyFolder(base / "pilot"))
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


# What is kept for the data protection officer.


@pytest.fixture
def officer() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def keeping(base: Path, tmp_path: Path, officer: pyrage.x25519.Identity) -> Parties:
    (tmp_path / "officer.key.pub").write_text(f"{officer.to_public()}\n")
    policy = Policy(keep_content=KeepContent(public_key=tmp_path / "officer.key.pub", max_gb=1e-5))
    made = Parties(site_of(base, "here", tmp_path / "state", policy), StudyFolder(base / "pilot"))
    for number in (1, 2, 3):
        made.answer(number)
    return made


def test_what_is_kept_is_what_left(keeping: Parties, officer: pyrage.x25519.Identity) -> None:
    opened = open_content(keeping.site.state / SENT_FOLDER, keeping.lines()[1], officer)
    assert {name: value.tolist() for name, value in opened.arrays.items()} == {
        "a": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "b": [2.0, 2.0],
    }
    assert opened.numbers["metrics"]["num-examples"] == 9


def swap(sent: Path, officer: pyrage.x25519.Identity) -> None:
    (sent / "000002.age").write_bytes((sent / "000003.age").read_bytes())


def edit(sent: Path, officer: pyrage.x25519.Identity) -> None:
    content = bytearray((sent / "000002.age").read_bytes())
    content[-20] ^= 1
    (sent / "000002.age").write_bytes(bytes(content))


def cut(sent: Path, officer: pyrage.x25519.Identity) -> None:
    (sent / "000002.age").write_bytes((sent / "000002.age").read_bytes()[:-1])


def junk(sent: Path, officer: pyrage.x25519.Identity) -> None:
    (sent / "000002.age").write_bytes(pyrage.encrypt(b"\xff" * 100, [officer.to_public()]))


def another_key(sent: Path, officer: pyrage.x25519.Identity) -> None:
    other = pyrage.x25519.Identity.generate().to_public()
    (sent / "000002.age").write_bytes(pyrage.encrypt(b"x", [other]))


def gone(sent: Path, officer: pyrage.x25519.Identity) -> None:
    (sent / "000002.age").unlink()


@pytest.mark.parametrize("how", [swap, edit, cut, junk, another_key, gone])
def test_kept_content_that_was_touched_is_not_shown(
    keeping: Parties, officer: pyrage.x25519.Identity, how: Callable[[Path, pyrage.x25519.Identity], None]
) -> None:
    sent = keeping.site.state / SENT_FOLDER
    how(sent, officer)
    with pytest.raises(InputError, match=r"000002\.age: (was exchanged|cannot be opened|not there)"):
        open_content(sent, keeping.lines()[1], officer)


def test_nothing_leaves_that_is_not_kept(keeping: Parties, tmp_path: Path) -> None:
    def until_full() -> None:
        for number in range(4, 40):
            keeping.answer(number)

    with pytest.raises(RefusedError, match=r"the message did not leave; raise policy\.keep_content\.max_gb") as refused:
        until_full()
    assert refused.value.code is Code.DISK_FULL
    left = keeping.lines()
    assert len(list((keeping.site.state / SENT_FOLDER).glob("*.age"))) == len(left)
    os.utime(keeping.site.state / SENT_FOLDER / "000001.age", (0, 0))
    keeping.answer(9)
    assert not (keeping.site.state / SENT_FOLDER / "000001.age").exists(), "what is old makes room"
    (tmp_path / "officer.key.pub").write_text("age1none\n")
    with pytest.raises(RefusedError, match="no public key of a data protection officer"):
        keeping.answer(10)
    assert len(keeping.lines()) == len(left) + 1


# A disk that is full.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("making a small file system needs root and mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    with (folder / "filler").open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"0" * 512)
    return folder / "filler"


def test_a_refusal_on_a_full_disk_gets_its_line_when_there_is_room(base: Path, small_disk: Path) -> None:
    made = Parties(site_of(base, "here", small_disk / "state"), StudyFolder(base / "pilot"))
    made.answer(1)
    # Lines that fit into the ledger's last page need no room: fill that, too.
    filler = fill(small_disk)
    while len(made.refuse()) == 2:
        pass
    first = len(made.lines())
    assert HEAD not in made.refuse()
    with pytest.raises(OSError, match="No space"):
        made.answer(2)
    assert len(made.lines()) == first, "nothing leaves before they have their lines"
    late_of.cache_clear()  # the process dies, and starts again
    assert len(late_of(made.ledger).pending()) == 2
    filler.unlink()
    made.answer(3)
    late = made.lines()[first:-1]
    assert [(line.kind, line.code, line.head_sent) for line in late] == [("refusal", "DISK_FULL", False)] * 2
    assert all(line.late and line.late[:19] <= line.time[:19] for line in late)
    assert made.lines()[-1].round == 3
    assert made.verify().num_unsigned == 0
    assert late_of(made.ledger).pending() == []


def test_a_crash_between_a_late_line_and_its_end_writes_it_once(parties: Parties) -> None:
    late = Late(parties.ledger)
    late.reserve()
    entry = parties.lines()[0].model_copy(update={"kind": "refusal", "late": datetime.now(UTC).isoformat()})
    late.add(Entry.model_validate(entry.model_dump(include=set(Entry.model_fields))))
    reserve = parties.ledger.with_suffix(".late").read_bytes()
    late.write(parties.signer)
    parties.ledger.with_suffix(".late").write_bytes(reserve)
    late_of.cache_clear()
    parties.answer()
    assert [line.kind for line in parties.lines()][5:] == ["refusal", "model_update"]


def test_more_refusals_than_can_be_kept_do_not_leave(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room on the disk, and none in memory: a refusal without any record does not leave."""
    monkeypatch.setattr(ledger_late, "MOST_IN_MEMORY", 2)
    parties.ledger.with_suffix(".late").unlink(missing_ok=True)
    parties.ledger.with_suffix(".late").mkdir()  # cannot be written
    parties.ledger.with_suffix(".head").write_text("{}x")  # as if by a full disk: no line can be added
    late_of.cache_clear()
    parties.refuse()
    parties.refuse()
    with pytest.raises(RefusedError, match="2 refusals wait for a line"):
        parties.refuse()
