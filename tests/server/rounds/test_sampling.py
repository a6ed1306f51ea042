"""Rounds that ask a share of the sites: which ones, and what becomes of the others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.conftest import tiny_settings
from tests.server.rounds.test_best_round import told
from tests.server.rounds.test_loop import Killed, Recorder, equal, final_weights, sites, start

from msfl_client.rounds.site_context import open_context
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import raised_to_quorum
from msfl_common.config.study import StudyConfig
from msfl_server.research.simulation.federation import simulate
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.research.simulation.foresight import first_asked
from msfl_server.results.summary import RoundSummary, SiteFailure
from msfl_server.rounds.rollback import collapsed
from msfl_server.rounds.sampling import awaited, num_sampled, sampled
from msfl_server.rounds.stage import StageRun

__all__ = ["sites"]

NAMES = [f"site-{number:03d}" for number in range(200)]


def sampling(fraction: float, num_rounds: int = 3, quorum: int = 1) -> StudyConfig:
    study = tiny_settings()
    rounds = study.rounds.model_copy(update={"fraction": fraction, "num_rounds": num_rounds, "quorum": quorum})
    return study.model_copy(update={"rounds": rounds})


def test_as_many_are_asked_as_said_and_others_in_each_round() -> None:
    rounds = [sampled(sampling(0.05), number, NAMES) for number in range(1, 101)]
    assert {len(one) for one in rounds} == {10}
    assert rounds[0] != rounds[1]
    counts = [sum(name in one for one in rounds) for name in NAMES]
    assert max(counts) <= 16  # of 5 expected: no site has more luck than a binomial count has
    assert sum(count == 0 for count in counts) <= 6


def test_order_does_not_matter_and_who_leaves_changes_no_others_lot() -> None:
    study = sampling(0.05)
    asked = sampled(study, 1, NAMES)
    assert asked == sampled(study, 1, reversed(NAMES))
    gone = sorted(asked)[0]
    assert asked - {gone} < sampled(study, 1, [name for name in NAMES if name != gone])


def test_no_fewer_than_the_quorum_and_no_more_than_there_are() -> None:
    assert len(sampled(sampling(0.05, quorum=4), 1, NAMES[:20])) == 4
    assert sampled(sampling(0.05, quorum=4), 1, NAMES[:3]) == set(NAMES[:3])


def test_a_round_waits_for_all_but_those_that_failed_the_last_one() -> None:
    failed = SiteFailure(site="site-001", code="NOT_ONLINE")
    last = RoundSummary(
        round=1, train_loss=None, metrics={}, per_site={}, sites_ok=("site-000",), sites_failed=(failed,), seconds=1.0
    )
    assert awaited(sampling(0.5), NAMES[:3], [last]) == ("site-000", "site-002")
    assert awaited(sampling(1), NAMES[:3], [last]) == ("site-000",)
    assert awaited(sampling(0.5), NAMES[:3], []) == tuple(NAMES[:3])


def test_a_model_that_comes_apart_shows_at_other_sites_too() -> None:
    task = "lesion-segmentation"
    assert collapsed(task, told(a=0.6, b=0.5), told(c=0.01, d=0.02))
    assert not collapsed(task, told(a=0.6, b=0.5), told(c=0.3, d=0.2))
    assert not collapsed(task, told(a=0.6, b=0.6, c=0.6), told(c=0.0, d=0.6, e=0.6)), "one site alone says so"
    assert collapsed(task, told(a=0.6, b=0.6, c=0.6), told(c=0.0, d=0.0, e=0.6))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"secure_aggregation": {"method": "masks"}}, "a sum under masks is of all sites"),
        ({"validation": {"best_by": "dsc"}}, "validation.best_by holds rounds against each other"),
        ({"rounds": {"fraction": 0.5, "weighting": "inverse-variance"}}, "weighting inverse-variance needs"),
    ],
)
def test_what_needs_all_sites_is_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=rf"rounds\.fraction: {why}"):
        StudyConfig.model_validate({"name": "some", "rounds": {"fraction": 0.5}, **more})


def test_a_share_below_the_quorum_is_said() -> None:
    study = StudyConfig.model_validate({"name": "some", "rounds": {"fraction": 0.1, "quorum": 3}})
    assert num_sampled(study, 12) == 3
    assert raised_to_quorum(study, 12) == ["rounds.fraction: 0.1 of 12 sites is 1; rounds ask 3, their quorum"]
    assert (num_sampled(study, 40), raised_to_quorum(study, 40)) == (4, [])


def run(study: StudyConfig, members: list[SiteConfig], out: Path, recorder: Recorder) -> None:
    simulate(StageRun(study, start(study), out), members, "inprocess", recorder, lambda *_: None)


@pytest.mark.slow
def test_sites_are_opened_once_asked_and_all_measure_the_end(sites: list[SiteConfig], tmp_path: Path) -> None:
    study, names = sampling(0.34), [site.name for site in sites]
    setup = RunSetup(study=study, sites=tuple(sites))
    assert first_asked(setup) == sampled(study, 1, names)
    recorder = Recorder()
    run(study, sites, tmp_path / "out", recorder)
    state = recorder.states[-1]
    assert [set(record.sites_ok) for record in state.history] == [sampled(study, n, names) for n in (1, 2, 3)]
    assert [set(record.per_site["dsc"]) for record in state.history[:2]] == [sampled(study, n, names) for n in (1, 2)]
    assert set(state.validation) == set(names)
    assert len(open_context._open) == 1
    asked_first = next(who for what, who in recorder.waited if what == "facts")
    assert set(asked_first) == first_asked(setup)

    for site in sites:
        shutil.rmtree(site.state / "site-strategy", ignore_errors=True)
    with pytest.raises(Killed):
        run(study, sites, tmp_path / "killed", Recorder(die_after=1))
    run(study, sites, tmp_path / "killed", Recorder())
    assert equal(final_weights(tmp_path / "out"), final_weights(tmp_path / "killed"))
