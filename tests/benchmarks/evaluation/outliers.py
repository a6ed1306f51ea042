"""How often an honest update is said to stand out, and whether every site that does harm is named."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tests.benchmarks.evaluation.small_federation import ATTACKS, NUM_ROUNDS, Course, Federation, federation, run
from tests.benchmarks.figure import Figure

SEEDS = (101, 102, 103)
BAD = {5: 1, 10: 3}
_HOW = (
    f"{NUM_ROUNDS} rounds of a small U-Net by fedavg; sites of 4 to 24 simulated cases, each with a scanner of its own"
)


def measure() -> list[Figure]:
    """False alarms in honest runs, then each attack."""
    torch.set_num_threads(1)
    honest: list[Course] = []
    figures = []
    for num_sites, num_bad in BAD.items():
        federations = [federation(seed, num_sites) for seed in SEEDS]
        honest += [run(of, {"kind": "fedavg"}) for of in federations]
        for attack in ATTACKS:
            figures.append(_found(attack, federations[0], num_bad))
    return [_false_alarms(honest), *figures]


def _false_alarms(courses: Iterable[Course]) -> Figure:
    named = sum(course.named.total() for course in courses)
    total = sum(course.num_updates.total() for course in courses)
    how = f"{named} of {total} updates, seeds {', '.join(map(str, SEEDS))}, 5 and 10 sites; {_HOW}"
    return Figure("honest updates that stand out", named / total, "", 0.01, "at_most", "", how)


def _found(attack: str, of: Federation, num_bad: int) -> Figure:
    """The share of the bad sites that are named in two rounds or more, where no honest one is."""
    course, sites = run(of, {"kind": "fedavg"}, attack, num_bad), [*of.sites]
    bad, rest = sites[:num_bad], sites[num_bad:]
    found = sum(course.named[site] >= 2 for site in bad) / num_bad
    wrongly = sum(course.named[site] for site in rest)
    rounds = ", ".join(str(course.named[site]) for site in bad)
    how = (
        f"named in {rounds} of {NUM_ROUNDS} rounds; honest updates named: {wrongly} of {NUM_ROUNDS * len(rest)}; seed "
        f"{of.study.seed}; Dice {course.dsc:.2f}"
    )
    return Figure(f"{attack}, {num_bad} of {len(sites)}: sites found", found, "", 1.0, "at_least", "", how)
