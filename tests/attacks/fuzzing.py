"""Thousands of changed replies through the coordinator's own exchange, checks and aggregation."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError

from msfl_common.errors import MsflError
from msfl_common.models.weights import Weights
from msfl_server.flower import grid
from msfl_server.flower.object_folder import ObjectFolder
from msfl_server.rounds.failures import NO_ANSWER
from tests.attacks.mutated_replies import copy_of, mutate
from tests.attacks.recorded import ATTACKER, Recording, Reply, absent, learned, meet, play, same

NAME = "site-d"  # the attacker's
RESIDUALS = "query.residuals"


@dataclass
class Tally:
    """What became of the changed replies.

    Attributes:
        sent: how many.
        ended: what would have ended the run, one line each.
        changed: rounds that the attacker had no part in, whose weights are nevertheless others.
        logged: lines of the log that hold a traceback or are very long.
        outcomes: failure codes, and `taken` for replies that passed as right.
    """

    sent: int = 0
    ended: list[str] = field(default_factory=list)
    changed: int = 0
    logged: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class _Watch(logging.Handler):
    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def emit(self, record: logging.LogRecord) -> None:
        self._tally.logged += record.exc_info is not None or len(record.getMessage()) > 500


@contextmanager
def watched(tally: Tally) -> Iterator[None]:
    """Count what the log should not hold."""
    handler, root = _Watch(tally), logging.getLogger("msfl_server")
    root.addHandler(handler)
    root.propagate = False
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.propagate = True


class Attack:
    """Changes each reply that passes, and counts them."""

    def __init__(self, tally: Tally, rng: np.random.Generator, others: Sequence[RecordDict]) -> None:
        self._tally, self._rng, self._others = tally, rng, others

    def __call__(self, _: str, reply: RecordDict) -> Reply:
        self._tally.sent += 1
        draw = self._rng.random()
        if draw < 0.02:
            return Error(code=int(self._rng.choice([0, 1, 2, 7001, 2**31, -5])), reason="x" * 1000)
        if draw < 0.08:
            return mutate(self._others[int(self._rng.integers(len(self._others)))], self._rng)
        return mutate(reply, self._rng)


def others_of(recordings: Sequence[Recording]) -> list[RecordDict]:
    """The attacker's replies of every kind, to send where another is expected."""
    rounds = [one for recording in recordings for one in recording.rounds.values()]
    replies = [
        reply for one in rounds for (_, node), found in one.replies.items() if node == ATTACKER for reply in found
    ]
    return replies + [recording.facts[ATTACKER] for recording in recordings]


def fuzz(recordings: Sequence[Recording], num_plays: int, out: Path, seed: int) -> Tally:
    """Play recorded rounds, each time with other changes: two or more replies a round.

    Args:
        recordings: studies of all kinds.
        num_plays: rounds to play.
        out: a folder for the rounds.
        seed: of all draws.
    """
    tally, rng = Tally(), np.random.default_rng(seed)
    rounds = [(recording, number) for recording in recordings for number in recording.rounds]
    without: dict[tuple[str, int], Weights] = {}
    for recording, number in rounds:
        without[recording.kind, number] = play(recording, number, absent, out).weights
    attack = Attack(tally, rng, others_of(recordings))
    with watched(tally):
        for turn in range(num_plays):
            recording, number = rounds[turn % len(rounds)]
            state = rng.bit_generator.state["state"]["state"]
            try:
                after = play(recording, number, attack, out)
            except Exception as error:
                tally.ended.append(f"{recording.kind}, round {number}, {state}: {type(error).__name__}: {error}")
                continue
            last = after.state.history[-1]
            tally.outcomes.update(failure.code for failure in last.sites_failed)
            tally.outcomes["taken"] += NAME in last.sites_ok
            if NAME not in last.sites_ok:
                tally.changed += not same(after.weights, without[recording.kind, number])
            elif not all(np.isfinite(value).all() for value in after.weights.values()):
                tally.ended.append(f"{recording.kind}, round {number}, {state}: weights that are not finite")
    return tally


def fuzz_facts(recordings: Sequence[Recording], number: int, seed: int) -> Tally:
    """Change the attacker's facts so often."""

    def once(tally: Tally, attack: Attack, turn: int) -> None:
        roster = meet(recordings[turn % len(recordings)], attack)
        tally.outcomes.update(failure.code for failure in roster.absent)
        tally.changed += not {"site-a", "site-b", "site-c"} <= set(roster.names.values())

    return _often(once, others_of(recordings), number, seed)


def fuzz_sums(recordings: Sequence[Recording], number: int, seed: int) -> Tally:
    """Change the attacker's sums of a harmonization so often: by turns the first ones and the second."""
    without = [learned(absent), learned(lambda kind, sums: absent(kind, sums) if kind == RESIDUALS else sums)]

    def once(tally: Tally, attack: Attack, turn: int) -> None:
        asked: list[str] = []

        def change(kind: str, sums: RecordDict) -> Reply:
            asked.append(kind)
            return attack(kind, sums) if (kind == RESIDUALS) == turn % 2 else sums

        reference = learned(change)
        tally.outcomes["taken"] += reference.num_sites == 4
        # First sums that pass stay in the slopes, whatever becomes of the second.
        if reference.num_sites < 4 and (turn % 2 or RESIDUALS not in asked):
            tally.changed += reference != without[turn % 2]

    return _often(once, others_of(recordings), number, seed)


def fuzz_bytes(recordings: Sequence[Recording], number: int, folder: Path, seed: int) -> Tally:
    """Tear the objects that a reply travels as, so often; each is a message, or said to be none."""
    draw = random.Random(seed)
    replies = others_of(recordings)

    def once(tally: Tally, _: Attack, turn: int) -> None:
        message = Message(copy_of(replies[turn % len(replies)]), 1, "train")
        parts = grid._Parts(ObjectFolder(folder), "reply")
        parts.update({key: part.deflate() for key, part in get_all_nested_objects(message).items()})
        key = draw.choice(sorted(parts))
        torn = bytearray(parts[key])
        for _ in range(draw.randint(1, 6)):
            match draw.randrange(3):
                case 0 if torn:
                    torn[draw.randrange(len(torn))] = draw.randrange(256)
                case 1:
                    del torn[draw.randrange(len(torn) + 1) :]
                case _:
                    torn += draw.randbytes(draw.randint(1, 50))
        parts[key] = bytes(torn)
        tally.sent += 1
        try:
            grid.read_message(grid._Arriving("", get_object_tree(message), parts))
            tally.outcomes["a message"] += 1
        except grid.UnreadableError:
            tally.outcomes["no message"] += 1
        except ObjectPullError:
            tally.outcomes["a part is gone"] += 1

    return _often(once, replies, number, seed)


def _often(once: Callable[[Tally, Attack, int], None], others: Sequence[RecordDict], number: int, seed: int) -> Tally:
    tally = Tally()
    attack = Attack(tally, np.random.default_rng(seed), others)
    with watched(tally):
        for turn in range(number):
            try:
                once(tally, attack, turn)
            except Exception as error:
                kind = "refused" if isinstance(error, MsflError) else "traceback"
                tally.ended.append(f"{turn}: {kind}: {type(error).__name__}: {error}")
    assert NO_ANSWER not in tally.outcomes
    return tally
