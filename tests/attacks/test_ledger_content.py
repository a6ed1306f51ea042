"""Attacks on what the ledger keeps for the data protection officer, and disks that are full as it is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from msfl_client.egress import ledger_late
from msfl_client.egress.ledger_content import SENT_FOLDER, open_content
from msfl_client.egress.ledger_late import Late, late_of
from msfl_client.egress.ledger_line import Entry
from msfl_common.config.ledger import KeepContent
from msfl_common.config.site import Policy
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.messages.ledger import HEAD
from msfl_server.study.paths import StudyFolder
from tests.attacks.ledger_parties import Parties, site_of


@pytest.fixture
def officer() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def keeping(ledger_base: Path, tmp_path: Path, officer: pyrage.x25519.Identity) -> Parties:
    (tmp_path / "officer.key.pub").write_text(f"{officer.to_public()}\n")
    policy = Policy(keep_content=KeepContent(public_key=tmp_path / "officer.key.pub", max_gb=1e-5))
    made = Parties(site_of(ledger_base, "here", tmp_path / "state", policy), StudyFolder(ledger_base / "pilot"))
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


def fill(folder: Path) -> Path:
    with (folder / "filler").open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"0" * 512)
    return folder / "filler"


def test_a_refusal_on_a_full_disk_gets_its_line_when_there_is_room(
    ledger_base: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(256)
    made = Parties(site_of(ledger_base, "here", disk / "state"), StudyFolder(ledger_base / "pilot"))
    made.answer(1)
    # Lines that fit into the ledger's last page need no room: fill that, too.
    filler = fill(disk)
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
    made.refuse()  # what leaves first has its line last, a refusal too
    assert made.lines()[-1].late == ""
    made.answer(3)
    late = made.lines()[first:-2]
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


def test_a_late_refusal_cut_short_by_a_crash_takes_no_other_with_it(parties: Parties) -> None:
    late = Late(parties.ledger)
    late.reserve()
    entry = parties.lines()[0].model_copy(update={"kind": "refusal", "late": datetime.now(UTC).isoformat()})
    one = Entry.model_validate(entry.model_dump(include=set(Entry.model_fields)))
    late.add(one)
    with parties.ledger.with_suffix(".late").open("r+b") as stream:
        stream.seek(len(one.model_dump_json()) + 1)
        stream.write(one.model_dump_json().encode()[:-9])
    late.add(one.model_copy(update={"code": "INTERNAL"}))
    assert [found.code for found in Late(parties.ledger).pending()] == [one.code, "INTERNAL"]


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
