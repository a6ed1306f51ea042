"""What masks cost, and that they change no bit: sums of 3 to 30 sites, with none, one and all tolerated sites lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flwr.common.serde import recorddict_to_proto

from msfl_common.config.study import StudyConfig
from msfl_common.messages.masks import (
    pack_hidden,
    pack_opening_task,
    pack_shares,
    unpack_hidden,
    unpack_opening,
    unpack_shares,
)
from msfl_common.messages.records import Content, ModelUpdate, RoundTask, pack_update, unpack_update
from msfl_common.secure_aggregation.coordinator import MaskedSum
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Ring
from msfl_common.secure_aggregation.site import Shares
from tests.benchmarks.figure import Figure
from tests.common.secure_aggregation.hospitals import THRESHOLDS, Hospitals, hospitals, plain_sum, values_of

LENGTH = 1_190_000  # numbers, as the default network has
_REPEATS = 3
_PIECE = 2**17  # bytes
_TASK = RoundTask(StudyConfig(name="ms-lesions"), 1)
Made = TypeVar("Made")


@dataclass
class _Cost:
    """CPU seconds and bytes of one sum: of the slowest site and the coordinator, of all that is not the value."""

    site_s: float = 0.0
    server_s: float = 0.0
    value_bytes: int = 0
    other_bytes: int = 0
    is_equal: bool = True


def measure() -> list[Figure]:
    """Equal bits, CPU seconds of a site and of the coordinator, and bytes."""
    figures = [_equality()]
    for num_sites, lost in ((3, 0), (10, 0), (10, 4), (30, 0), (30, 14)):
        runs = [_play(hospitals(num_sites), lost, UPDATES, LENGTH, seed) for seed in range(_REPEATS)]
        plain = min(_plain_read_and_add(num_sites - lost) for _ in range(_REPEATS))
        server, site = min(run.server_s for run in runs), min(run.site_s for run in runs)
        how = f"{num_sites} sites, {lost} lost, {LENGTH / 1e6:.2f} million numbers, best of {_REPEATS}"
        limit = 12.0 if lost else 6.0
        figures += [
            Figure(
                f"coordinator's CPU, {num_sites} sites, {lost} lost",
                server / plain,
                "x",
                limit,
                "at_most",
                f"{plain:.3f} s to read and add plain messages; {server:.3f} s masked",
                how,
            ),
            Figure(
                f"a site's masking, {num_sites} sites, {lost} lost",
                site / (LENGTH / 1e6),
                "s CPU per million",
                0.05,
                "at_most",
                f"{_bare_cipher(num_sites) / (LENGTH / 1e6):.3f}: AES-256 of its masks' bytes alone",
                how,
            ),
            Figure("bytes of a value", runs[0].value_bytes / (4 * LENGTH), "x", 1.55, "at_most", "float32", how),
            Figure("other traffic of a site", runs[0].other_bytes / 1000, "kB", 80.0, "at_most", "", how),
        ]
    return figures


def _equality() -> Figure:
    """Sums that differ from the plain one in any bit, in any order of arrival."""
    unequal = total = 0
    for num_sites, threshold in THRESHOLDS.items():
        for lost in sorted({0, 1, num_sites - threshold}):
            for ring in (UPDATES, SUMS):
                total += 1
                unequal += not _play(hospitals(num_sites), lost, ring, 500, total).is_equal
    how = f"{total} sums of {', '.join(map(str, THRESHOLDS))} sites, none, one and all tolerated lost, shuffled"
    return Figure("sums that differ in a bit", unequal, "", 0, "at_most", "the plain sum", how)


def _play(some: Hospitals, num_lost: int, ring: Ring, length: int, seed: int) -> _Cost:
    chance, names, cost = random.Random(seed), list(some.roster.names), _Cost()
    values = values_of(names, ring, len(names), length)
    context, arriving = some.context(), chance.sample(names, len(names) - num_lost)
    masked = MaskedSum(some.roster, context, ring, length)
    for site in arriving:
        hidden, seconds = _timed(lambda site=site: some.keys[site].hide(context, ring, values[site]))  # type: ignore[misc]
        cost.site_s = max(cost.site_s, seconds)
        content = pack_hidden(hidden)
        cost.value_bytes = len(hidden.payload)
        cost.other_bytes = _bytes_of(content) - len(hidden.payload)
        cost.server_s += _timed(lambda c=content, s=site: _take(masked, c, s, ring, length))[1]  # type: ignore[misc]
    answers: dict[str, Shares] = {}
    for site in chance.sample(arriving, some.roster.threshold):
        request = pack_opening_task(_TASK, masked.opening(site))
        answer = pack_shares(some.answer(unpack_opening(request), site))
        cost.other_bytes += (_bytes_of(request) + _bytes_of(answer)) // some.roster.threshold
        answers[site] = unpack_shares(answer, masked.opening(site))
    opened, seconds = _timed(lambda: masked.open(answers))
    cost.server_s += seconds
    cost.is_equal = bool(
        np.array_equal(ring.decode(opened.total), ring.decode(plain_sum([values[s] for s in arriving])))
    )
    return cost


def _take(masked: MaskedSum, content: Content, site: str, ring: Ring, length: int) -> None:
    masked.take(site, unpack_hidden(content, site, masked.context, length * ring.bits // 8))


def _plain_read_and_add(num_sites: int) -> float:
    """CPU seconds of what a coordinator does with plain updates at the least: read the messages, weigh, add."""
    like = {"layer": np.zeros(LENGTH, np.float32)}
    update = ModelUpdate({"layer": np.random.default_rng(0).normal(size=LENGTH).astype(np.float32)}, 20, 0.5, 1.0)
    messages = [pack_update(update) for _ in range(num_sites)]
    total = np.zeros(LENGTH)

    def add() -> None:
        for message in messages:
            np.add(total, 20.0 * unpack_update(message, like).weights["layer"], out=total)

    return _timed(add)[1]


def _bare_cipher(num_masks: int) -> float:
    """CPU seconds of the cipher for so many masks, which no site can do without: in pieces that stay in the cache."""
    zeros, buffer = memoryview(bytes(_PIECE)), bytearray(_PIECE + 16)

    def make() -> None:
        for _ in range(num_masks):
            stream = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
            for start in range(0, 8 * LENGTH, _PIECE):
                stream.update_into(zeros[: 8 * LENGTH - start], buffer)

    return min(_timed(make)[1] for _ in range(_REPEATS))


def _bytes_of(content: Content) -> int:
    """What a message takes on the wire."""
    return int(recorddict_to_proto(content).ByteSize())


def _timed(work: Callable[[], Made]) -> tuple[Made, float]:
    started = time.process_time()
    made = work()
    return made, time.process_time() - started
