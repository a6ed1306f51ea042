"""A deployed site whose features are harmonized: its study is answered whole, and its sums tell of no one who left."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msfl_client.rounds.site_context import open_context
from msfl_common.config.message_kinds import allowed_by_default
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.harmonization import Residuals, column_names, make_reference, solve_slopes
from msfl_common.messages.harmonization import (
    pack_reference_task,
    pack_slopes_task,
    unpack_moments,
    unpack_residuals,
)
from msfl_common.messages.records import RoundTask, pack_task
from tests.attacks.deployed_site import UNBOUNDED, Deployed, study_of
from tests.clinical_site import Tables

BPF = np.round(0.8 + 0.02 * np.random.default_rng(0).normal(size=200), 5)
ALLOWED = {"allow": tuple(dict.fromkeys((*allowed_by_default(), "harmonization_sums")))}
COLUMNS = ("participant_id", "age", "sex", "course", "scanner")


def study(name: str, method: str = "none", **changes: Any) -> StudyConfig:
    """Of one feature, harmonized or not."""
    harmonization = {} if method == "none" else {"harmonization": {"method": method, "features": ["bpf"]}}
    return study_of(name, "lda", classification={"features": ["bpf"], "clinical": []}, **harmonization, **changes)


def write(folder: Path, gone: Collection[int] = (), few: int = 0) -> None:
    """Patients of one scanner, the last `few` of another."""
    kept = [number for number in range(len(BPF)) if number not in gone]
    people = [
        (f"sub-{at:03d}", 20 + at * 7 % 40, "FM"[at % 2], f"c{at // 2 % 2}", f"s{int(at >= len(BPF) - few)}")
        for at in kept
    ]
    features = [(line[0], "n/a", line[4], BPF[at]) for line, at in zip(people, kept, strict=True)]
    Tables(folder).participants(COLUMNS, *people)
    Tables(folder).write("features/features.tsv", ("participant_id", "session_id", "scanner", "bpf"), *features)
    open_context.cache_clear()


def harmonize(site: Deployed, slopes: float | None = None) -> Residuals:
    """Both sums and the reference; with slopes that the coordinator picks, the sums alone."""
    task, columns = RoundTask(site.study, 1), column_names(site.study.harmonization)
    moments = unpack_moments(site._send("query.moments", pack_task(task)), len(columns), 1)
    slopes_QP = solve_slopes([moments]) if slopes is None else np.full((len(columns), 1), slopes)
    residuals = unpack_residuals(site._send("query.residuals", pack_slopes_task(task, slopes_QP)), 1)
    if slopes is None:
        reference = make_reference(site.study.name, site.study.harmonization, [moments], [residuals], slopes_QP)
        site._send("query.reference", pack_reference_task(task, reference))
    return residuals


@pytest.mark.slow
def test_a_harmonized_study_is_answered_whole_and_again(tmp_path: Path) -> None:
    """Few patients of a second scanner are in neither sums; as many more are out of the harmonization's alone."""
    write(tmp_path / "bids", few=6)
    for name in ("first", "again"):
        site = Deployed(tmp_path / "bids", study(name, "combat"), ALLOWED)
        harmonize(site)
        assert len(site.play()[1]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("is_held", [False, True])
def test_sums_of_a_harmonization_less_those_of_a_model_are_no_patient(tmp_path: Path, is_held: bool) -> None:
    policy, floor = (ALLOWED, {}) if is_held else ({**ALLOWED, **UNBOUNDED, "min_patients": 1}, {"min_patients": 1})
    write(tmp_path / "bids")
    first = Deployed(tmp_path / "bids", study("first", "combat", **floor), policy)
    second = Deployed(tmp_path / "bids", study("second", **floor), policy)
    gone = int(open_context(second.site, second.study, print).learner.train_patients[0][-3:])
    sums = harmonize(first, slopes=0.0).intercepts_P
    write(tmp_path / "bids", [gone])
    if not is_held:
        assert np.isclose(sums - second.play()[1][0]["sums"].sum(axis=0), BPF[gone], atol=1e-9), "the bare sums tell"
        return
    with pytest.raises(RefusedError, match="differ from those of study first by 1 patient,") as error:
        second.play()
    assert error.value.code is Code.BUDGET_SPENT
