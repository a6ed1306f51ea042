"""The ledger: what it costs a message, how long a long one takes to check, and whether random tampering is found."""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from msfl_client.egress.ledger import append, verify
from msfl_client.egress.ledger_line import Entry
from msfl_common.errors import InputError
from msfl_common.messages.ledger import take_head
from tests.attacks.ledger_parties import Parties, make_study, site_of
from tests.benchmarks.figure import Figure

NUM_LINES, NUM_TAMPERINGS = 10_000, 500
Tampering = Callable[[random.Random, bytes], bytes]


def flip(chance: random.Random, content: bytes) -> bytes:
    """One bit of one byte."""
    changed = bytearray(content)
    changed[chance.randrange(len(content) - 1)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def drop(chance: random.Random, content: bytes) -> bytes:
    """A line other than the last."""
    lines = content.splitlines(keepends=True)
    del lines[chance.randrange(len(lines) - 1)]
    return b"".join(lines)


def swap(chance: random.Random, content: bytes) -> bytes:
    """Two lines that follow one another."""
    lines = content.splitlines(keepends=True)
    first = chance.randrange(len(lines) - 1)
    lines[first : first + 2] = reversed(lines[first : first + 2])
    return b"".join(lines)


def cut(chance: random.Random, content: bytes) -> bytes:
    """The end, from within the last line but one or before it."""
    return content[: chance.randrange(content[:-1].rindex(b"\n"))]


TAMPERINGS: tuple[Tampering, ...] = (flip, drop, swap, cut)


def is_found(parties: Parties, chance: random.Random) -> bool:
    """Tamper with ledger or receipts at random, check, and put them back; swapped receipts prove the same."""
    file = chance.choice([parties.ledger, parties.receipts.path])
    tamper = chance.choice([one for one in TAMPERINGS if file == parties.ledger or one is not swap])
    content = file.read_bytes()
    file.write_bytes(tamper(chance, content))
    try:
        parties.verify()
    except InputError:
        return True
    finally:
        file.write_bytes(content)
    return False


def measure() -> list[Figure]:
    """All figures."""
    folder = Path(tempfile.mkdtemp(prefix="ledger-"))
    try:
        study = make_study(folder, "here")
        parties = Parties(site_of(folder, "here", folder / "state"), study)
        parties.play(12)
        chance = random.Random(0)
        found = sum(is_found(parties, chance) for _ in range(NUM_TAMPERINGS))
        return [
            Figure(
                "random tampering with ledger and receipts that is found",
                found / NUM_TAMPERINGS,
                "",
                1.0,
                "at_least",
                "",
                f"{NUM_TAMPERINGS} flips, drops, swaps and cuts",
            ),
            *_costs(folder, parties),
        ]
    finally:
        shutil.rmtree(folder)


def _costs(folder: Path, parties: Parties) -> list[Figure]:
    entry = Entry(
        kind="model_update", study="pilot", round=1, arrays={"w": [2]}, numbers=["num-examples"], num_bytes=8,
        sha256="0" * 64, num_cases=9, version="0",
    )  # fmt: skip
    signed, plain, long = (folder / name / "ledger.jsonl" for name in ("signed", "plain", "long"))
    times = [(_ms(lambda: append(signed, entry, parties.signer)), _ms(lambda: append(plain, entry))) for _ in range(60)]
    added = statistics.median(one for one, _ in times) - statistics.median(one for _, one in times)
    heads = [take_head(parties.answer()) for _ in range(60)]
    noted = statistics.median(_ms(lambda head=head: parties.notary.note("here", head)) for head in heads)
    _write_long(long, entry, parties)
    start = time.perf_counter()
    verify(long, parties.signer.owner)
    seconds = time.perf_counter() - start
    each = "median of 60, P-384"
    return [
        Figure("a signature, on top of a line", added, "ms", 20, "at_most", "", each),
        Figure("a head checked, written down and countersigned", noted, "ms", 20, "at_most", "", each),
        Figure(f"{NUM_LINES} signed lines verified", seconds, "s", 30, "at_most", "", "every signature"),
    ]


def _write_long(path: Path, entry: Entry, parties: Parties) -> None:
    path.parent.mkdir()
    parties.site = parties.site.model_copy(update={"state": path.parent})
    signer = parties.signer
    parties.write([entry] * NUM_LINES, signer)


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)
