"""What is left of a model's Dice when one of five sites does harm, under each strategy that withstands it."""

from __future__ import annotations

import torch

from tests.benchmarks.evaluation.small_federation import federation, run
from tests.benchmarks.figure import Figure

SEED = 201
ATTACKED = ("labels flipped", "sign flipped", "8 times as long")
ROBUST = ("median", "trimmed-mean", "multikrum", "geometric-median", "krum")


def measure() -> list[Figure]:
    """Dice under attack, as a share of that of federated averaging without one."""
    torch.set_num_threads(1)
    of = federation(SEED, 5)
    clean = run(of, {"kind": "fedavg"}).dsc
    figures = []
    for kind in ("fedavg", *ROBUST):
        left = {attack: run(of, {"kind": kind}, attack, 1).dsc / clean for attack in ATTACKED}
        how = ", ".join(f"{attack} {share:.3f}" for attack, share in left.items()) + f"; seed {SEED}"
        target = None if kind == "fedavg" else 0.95
        figures.append(
            Figure(
                f"Dice under attack by {kind}", min(left.values()), "", target, "at_least", f"clean: {clean:.3f}", how
            )
        )
    return figures
