"""The value of a sum, kept so that it is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.client.secure_aggregation.members import REQUEST, Members, members_at

from msfl_client.secure_aggregation.kept_values import FOLDER, Facts, KeptValue, delete_values, keep_value, kept_value
from msfl_client.secure_aggregation.sum_answer import SumAnswer, expect_sum
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Ring


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return members_at(tmp_path)


def value(ring: Ring, num_sites: int = 3, request: str = REQUEST) -> KeptValue:
    words = ring.encode(np.random.default_rng(0).normal(size=5), num_sites)
    facts = Facts(
        request=request,
        kind="masked_sums",
        bits=ring.bits,
        length=5,
        num_sites=num_sites,
        num_cases=9,
        num_patients=7,
    )
    return KeptValue(facts, words)


def place(members: Members) -> SumAnswer:
    return expect_sum(members["bern"], members.context(), REQUEST, "final-test")


@pytest.mark.parametrize("ring", [UPDATES, SUMS], ids=["updates", "sums"])
def test_a_value_is_read_as_it_was_kept(members: Members, ring: Ring) -> None:
    here, made = place(members), value(ring)
    here.claim(made, here.hide(made))
    kept = here.kept()
    assert kept is not None
    assert kept.facts == made.facts
    assert ring.pack(kept.words) == ring.pack(made.words)
    assert here.hide(kept).hidden.payload == here.hide(made).hidden.payload
    path = members["bern"].folder / FOLDER / "final-test"
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept_value(members["bern"].folder, "final-test", "cd" * 32) is None
    assert kept_value(members["bern"].folder, "final-validation", REQUEST) is None
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert here.kept() is None
    delete_values(members["bern"].folder)
    assert here.kept() is None


def test_a_value_for_a_sum_of_fewer_sites_is_made_anew(members: Members) -> None:
    """Its numbers could run over in a sum of more."""
    keep_value(members["bern"].folder, "final-test", value(SUMS, num_sites=2))
    assert place(members).kept() is None
    keep_value(members["bern"].folder, "final-test", value(SUMS, num_sites=4))
    assert place(members).kept() is not None
