"""Test patients of a segmentation: they neither train nor choose, and measure once what is handed out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import BidsSite
from tests.server.rounds.test_classification import grid_of as named_grid
from tests.server.rounds.test_loop import Killed, Recorder, equal, final_weights, grid_of, sites, start

from msfl_client.data.checks import check_site
from msfl_client.data.patient_split import split_cases
from msfl_client.rounds.forecast import forecast
from msfl_client.rounds.site_context import open_context
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig, Validation
from msfl_common.errors import Code
from msfl_common.messages.records import RoundTask, pack_task, unpack_refusal
from msfl_common.models.model_folder import read_card
from msfl_common.secure_aggregation.layout import POOLED
from msfl_server.rounds.checkpoint import Checkpoint
from msfl_server.rounds.loop import run_rounds
from msfl_server.run.summarise import summarise_run

__all__ = ["sites"]


def with_test(study: StudyConfig, num_rounds: int = 2, **validation: object) -> StudyConfig:
    """Of sites of 3, 4 and 5 patients 1, 1 and 2 test."""
    settings = Validation.model_validate({"test_fraction": 0.25, "best_by": "dsc"} | validation)
    rounds = study.rounds.model_copy(update={"num_rounds": num_rounds})
    return study.model_copy(update={"validation": settings, "rounds": rounds})


def run(sites: list[SiteConfig], study: StudyConfig, out: Path) -> Checkpoint:
    return run_rounds(grid_of(sites), study, start(study), out, Recorder())


def redraw_test_masks(sites: list[SiteConfig], study: StudyConfig) -> None:
    """Other lesions in whom the study tests on, and in nobody else; masks of the same size on disk, or not."""
    for site in sites:
        cases = check_site(site, study.inputs).cases
        for case in split_cases(cases, study, site.name).test:
            assert case.mask is not None
            BidsSite.save(case.mask, BidsSite.lesions(9))
        shutil.rmtree(site.state / "cache")


@pytest.mark.slow
def test_who_tests_changes_neither_the_model_nor_the_choice_and_decides_the_figures(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study = with_test(tiny_study)
    before = run(sites, study, tmp_path / "before").state
    assert {site: told.num_cases for site, told in before.test.items()} == {"site-a": 1, "site-b": 1, "site-c": 2}
    assert {site: told.num_cases for site, told in before.measured.items()} == {"site-a": 1, "site-b": 1, "site-c": 2}
    assert [site.cases_train for site in before.sites] == [1, 2, 1]
    assert all("dsc_native" in told.estimates for told in before.test.values())
    assert not any("dsc_native" in told.estimates for told in before.measured.values())
    summary, card = summarise_run(study, before, finished=True), read_card(tmp_path / "before" / "model")
    assert (summary.split, summary.metrics["dsc"].num_cases) == ("test", 4)
    assert "Figures here are of test patients, who chose nothing" in summary.choice_in_words
    assert card.tested is not None
    assert (card.tested.num_cases, card.tested.means["dsc"]) == (4, summary.metrics["dsc"].mean)
    redraw_test_masks(sites, study)
    after = run(sites, study, tmp_path / "after").state
    assert equal(final_weights(tmp_path / "before"), final_weights(tmp_path / "after"))
    assert before.best is not None
    assert after.best is not None
    assert (after.best.round, after.best.value) == (before.best.round, before.best.value)
    told = [state.test["site-c"].estimates["abs_volume_difference_ml"].mean for state in (before, after)]
    assert told[0] != told[1]


@pytest.mark.slow
def test_a_kill_in_the_test_asks_no_site_twice_for_anything_else(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study, sites = with_test(tiny_study, num_rounds=1), sites[:2]

    class DiesTesting(Recorder):
        def on_wait(self, number: int, what: str, names: list[str], left_s: float) -> None:
            super().on_wait(number, what, names, left_s)
            if (what, len(names)) == ("test", 1):
                raise Killed

    out, again = tmp_path / "out", Recorder()
    with pytest.raises(Killed):
        run_rounds(grid_of(sites, cache_answers=True), study, start(study), out, DiesTesting())
    state = run_rounds(grid_of(sites, cache_answers=True), study, start(study), out, again).state
    assert {what for what, _ in again.waited} == {"facts", "test"}  # nothing is trained or validated again
    assert not state.history[-1].sites_failed
    assert set(state.test) == {"site-a", "site-b"}
    task = RoundTask(study, 1, split="test")
    others = {name: np.zeros_like(value) for name, value in start(study).items()}
    grid = grid_of(sites, cache_answers=True)
    (reply,) = grid.send_and_receive([grid.create_message(pack_task(task, others), "evaluate", 1, "")])
    refusal = unpack_refusal(reply.content)
    assert refusal is not None
    assert refusal.code == Code.ANSWERED  # other weights on the same test patients


@pytest.mark.slow
def test_a_site_left_out_whole_tests_alone_and_trains_nothing(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study = with_test(tiny_study, num_rounds=1, test_fraction=0.0, fold={"site": "site-c"})
    state = run(sites, study, tmp_path / "out").state
    assert (state.history[-1].sites_ok, set(state.measured)) == (("site-a", "site-b"), {"site-a", "site-b"})
    assert {site: told.num_cases for site, told in state.test.items()} == {"site-c": 5}
    assert summarise_run(study, state, finished=True).metrics["dsc"].num_cases == 5


@pytest.mark.slow
def test_under_masks_the_test_is_one_sum_of_all_sites(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    content = with_test(tiny_study, num_rounds=1, best_by=None).model_dump(mode="json")
    study = StudyConfig.model_validate(content | {"secure_aggregation": {"method": "masks"}})
    state = run_rounds(named_grid(sites, cache_answers=True), study, start(study), tmp_path / "out", Recorder()).state
    assert {site: told.num_cases for site, told in state.test.items()} == {POOLED: 4}
    assert summarise_run(study, state, finished=True).split == "test"


def test_a_site_too_small_for_a_test_says_so_before_it_starts(sites: list[SiteConfig], tiny_study: StudyConfig) -> None:
    study = with_test(tiny_study, min_test_patients=2)
    small, large = (forecast(site, study, lambda *_: None) for site in sites[1:])
    told = small.refused("test")
    assert told is not None
    assert (told.code, "0 patients" in told.why) == (Code.TOO_FEW_PATIENTS, True)
    assert large.refused("test") is None
    learner = open_context(sites[1], study, lambda *_: None).learner
    assert isinstance(learner, SegmentationLearner)
    assert (learner.num_train_patients, learner.validation.num_patients, learner.test.num_patients) == (3, 1, 0)


def test_a_sites_own_floor_withholds_a_test_that_the_study_keeps(
    sites: list[SiteConfig], tiny_study: StudyConfig
) -> None:
    site = sites[2].model_copy(update={"policy": Policy(min_patients=3)})
    told = forecast(site, with_test(tiny_study), lambda *_: None).refused("test")
    assert told is not None
    assert told.code == Code.TOO_FEW_PATIENTS
