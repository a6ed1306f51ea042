"""Attacks on the ledger: by a local account, and by a site that has its own key."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from msfl_client.egress.ledger import append
from msfl_client.egress.ledger_line import Line, hash_of
from msfl_common.config.study import Rounds
from msfl_common.errors import RefusedError
from msfl_common.messages.ledger import HEAD, RECEIPT, take_head
from msfl_common.messages.records import unpack_update
from msfl_common.trust.receipts import Signer
from msfl_common.trust.signatures import canonical
from msfl_server.cli.main import main as server_main
from msfl_server.rounds.exchange import Question, ask
from msfl_server.study.ledger_heads import compare
from tests.attacks.ledger_parties import Parties, caught, site_of
from tests.benchmarks.boundary.ledger import is_found
from tests.commands import run_main


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


def test_the_ledger_of_another_site_in_its_place(parties: Parties, ledger_base: Path, tmp_path: Path) -> None:
    there = Parties(site_of(ledger_base, "there", tmp_path / "there"), parties.study)
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
