"""What the training of a round, and the measuring after it, make of a sum under masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.server.rounds.masking_sites import MaskingSite, Waits, make_sites
from tests.server.rounds.test_masked_sums import masks_of, study_of

from msfl_common.config.study import StudyConfig
from msfl_common.errors import FutileRunError
from msfl_common.messages.layouts import POOLED, metrics_layout, update_layout
from msfl_common.messages.records import ModelUpdate, RoundTask
from msfl_common.secure_aggregation.ring import SUMS
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.rounds.checkpoint import Checkpoint, RunState
from msfl_server.rounds.gathering import gather_sum
from msfl_server.rounds.mask_roster import Masks
from msfl_server.rounds.one_round import OneRound
from msfl_server.rounds.pooled_metrics import pooled_metrics

BEFORE = {"w": np.array([1.0, 2.0, 3.0], np.float32)}


def round_of(masks: Masks, study: StudyConfig, out: Path) -> OneRound:
    masks.nodes.told = dict.fromkeys(masks.nodes.names.values(), 10)
    before = Checkpoint(RunState(), BEFORE)
    task, strategy = RoundTask(study, 1), strategy_of(study)
    return OneRound(masks.grid, task, strategy, out, masks.nodes, before, Waits(), masks.nodes.names, masks)


def answers(sites: list[MaskingSite], study: StudyConfig, cases: list[int]) -> None:
    """The n-th site moves each weight by n, of so many cases."""
    layout = update_layout(study, BEFORE)
    for number, (site, num_cases) in enumerate(zip(sites, cases, strict=True)):
        update = ModelUpdate({"w": BEFORE["w"] + number}, num_cases, 0.5, 2.0)
        site.words = layout.encode(update, len(sites))


def test_the_weights_are_the_mean_by_cases(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of()
    answers(sites, study, [10, 4, 6])
    sites[0].refuses = {"train"}
    masks = masks_of(sites, tmp_path, study)
    got = gather_sum(round_of(masks, study, tmp_path), masks, masks.nodes.names)
    assert got.combined is not None
    assert np.allclose(got.combined.weights["w"], BEFORE["w"] + (4 * 1 + 6 * 2) / 10, atol=1e-6)
    assert (got.cases, got.sites) == ({POOLED: 10}, ("site-01", "site-02"))
    assert [(one.site, one.code) for one in got.failures] == [("site-00", "INTERNAL")]
    assert got.combined.loss == pytest.approx(0.5)


def test_too_few_sites_combine_to_nothing(tmp_path: Path) -> None:
    sites, study = make_sites(3), study_of(min_sites=3)
    answers(sites, study, [10, 4, 6])
    sites[0].refuses = {"train"}
    masks = masks_of(sites, tmp_path, study)
    got = gather_sum(round_of(masks, study, tmp_path), masks, masks.nodes.names)
    assert (got.combined, got.cases, got.sites) == (None, {}, ())


@pytest.mark.parametrize("cases", [[10, 4, 40], None])
def test_a_sum_that_no_cases_give_ends_the_run_for_good(tmp_path: Path, cases: list[int] | None) -> None:
    """More cases than the sites have told of, or noise."""
    sites, study = make_sites(3), study_of()
    answers(sites, study, cases or [10, 4, 6])
    if cases is None:
        sites[2].words = np.full_like(sites[2].value(), 2**20 + 17)
    masks = masks_of(sites, tmp_path, study)
    with pytest.raises(FutileRunError, match="the sum of site-00, site-01, site-02 cannot be used: "):
        gather_sum(round_of(masks, study, tmp_path), masks, masks.nodes.names)


def test_metrics_that_no_cases_give_are_none(tmp_path: Path) -> None:
    sites, study = make_sites(3, SUMS), study_of()
    layout = metrics_layout(study)
    for site in sites:
        site.words = layout.ring.encode(np.full(layout.length, 0.3), 3)
    masks = masks_of(sites, tmp_path, study)
    this = round_of(masks, study, tmp_path)
    metrics, failures = pooled_metrics(this, masks, replace(this.task), BEFORE, masks.nodes.names)
    assert metrics == {}
    assert [(one.site, one.code, one.step) for one in failures] == [(POOLED, "BAD_METRICS", "validation")]
