"""The model of the best round is handed out, rounds end early, and a kill changes nothing of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from tests.conftest import tiny_settings
from tests.server.rounds.test_classification import patients, play, study_of
from tests.server.rounds.test_loop import Killed, Recorder, equal, final_weights, grid_of, sites, start

from msfl_common.config.base import validate
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig, Validation
from msfl_common.errors import ConfigError, RunError
from msfl_common.messages.records import ValidationMetrics
from msfl_common.metrics.intervals import Estimate
from msfl_common.metrics.registry import TASK_METRICS
from msfl_common.metrics.segmentation import METRICS, segmentation_metrics
from msfl_common.models.model_folder import load_model, read_card
from msfl_common.strategies.fedbn import FedBN
from msfl_server.results.classification import threshold_of
from msfl_server.rounds import checkpoint
from msfl_server.rounds.best_round import best_after, has_waited
from msfl_server.rounds.checkpoint import BestRound
from msfl_server.rounds.loop import run_rounds
from msfl_server.run.summarise import summarise_run

__all__ = ["patients", "sites"]

DICE = {1: 0.3, 2: 0.6, 3: 0.5, 4: 0.4}  # of every site, by round


def choosing(study: StudyConfig, by: str = "dsc", patience: int | None = 2, num_rounds: int = 9) -> StudyConfig:
    rounds = study.rounds.model_copy(update={"num_rounds": num_rounds})
    return study.model_copy(update={"validation": Validation(best_by=by, patience=patience), "rounds": rounds})


def told(**means: float) -> dict[str, ValidationMetrics]:
    """Dice of sites with ten cases each."""
    return {
        site: ValidationMetrics({"dsc": Estimate(mean, 10, 0.1, 0.0, 1.0, 10)}, 10, 1.0) for site, mean in means.items()
    }


def played(study: StudyConfig, *rounds: Mapping[str, ValidationMetrics]) -> BestRound | None:
    best = None
    for number, validation in enumerate(rounds, start=1):
        best = best_after(study, best, number, validation)
    return best


def says(node: int, reply: Message) -> Message:
    """Metrics with the Dice of the round; those of the model that is handed out, on own grids, too, stay."""
    record = reply.content.metric_records.get("metrics")
    if record is not None and "dsc.mean" in record and "dsc_native.mean" not in record:
        record["dsc.mean"] = DICE[int(reply.metadata.group_id)] + node / 100
    return reply


@pytest.mark.parametrize(
    ("validation", "changes", "fault"),
    [
        ({"best_by": "auroc"}, {}, "'auroc' is no metric of this study; expected one of dsc, tpr, "),
        ({"best_by": "hd95_mm"}, {}, "hd95_mm is undefined where a model finds nothing"),
        ({"best_by": "dsc_native"}, {}, "dsc_native is measured once, of the model that is handed out"),
        ({"patience": 3}, {}, "validation.patience: without effect"),
    ],
)
def test_what_cannot_choose_a_model_is_refused_by_name(
    validation: dict[str, Any], changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault.replace(".", r"\.")):
        validate(StudyConfig, {"name": "s", "validation": validation, **changes}, "study.yaml")


@pytest.mark.parametrize(
    ("model", "by", "fault"),
    [
        ("logistic", "auroc", "logistic is complete when its search is over"),
        ("mlp", "dsc", "'dsc' is no metric of this study"),
        ("mlp", "prevalence", "prevalence has no better end"),
    ],
)
def test_a_classification_is_held_to_its_own_metrics_and_model(model: str, by: str, fault: str) -> None:
    content = study_of(kind=model).model_dump(mode="json", exclude_unset=True) | {"validation": {"best_by": by}}
    with pytest.raises(ConfigError, match=fault):
        validate(StudyConfig, content, "study.yaml")


def test_layers_at_the_sites_fit_no_earlier_round() -> None:
    study = tiny_settings().model_copy(update={"validation": Validation(best_by="dsc"), "strategy": FedBN()})
    with pytest.raises(ValueError, match="layers at the sites are those of the last round"):
        StudyConfig.model_validate(dict(study))


def test_a_study_that_says_nothing_is_written_as_before() -> None:
    assert "best_by" not in tiny_settings().model_dump_json()


def test_the_best_round_is_the_first_of_its_value_and_waiting_counts_validations() -> None:
    study = choosing(tiny_settings())
    best = played(study, told(a=0.3, b=0.5), told(a=0.6, b=0.4), told(a=0.4, b=0.6), told(a=0.1, b=0.2))
    assert best is not None
    assert (best.round, best.value, best.waited) == (2, pytest.approx(0.5), 2)
    assert has_waited(study, best)
    assert not has_waited(choosing(tiny_settings(), patience=None), best)
    assert played(tiny_settings(), told(a=0.3)) is None


def test_lower_is_better_where_it_is() -> None:
    def volume(value: float) -> dict[str, ValidationMetrics]:
        return {"a": ValidationMetrics({"abs_volume_difference_ml": Estimate(value, 9, 1.0, 0.0, 9.0, 9)}, 9, 1.0)}

    best = played(choosing(tiny_settings(), "abs_volume_difference_ml"), volume(5.0), volume(3.0), volume(4.0))
    assert best is not None
    assert best.round == 2


def test_rounds_are_compared_over_the_sites_that_measured_both() -> None:
    study = choosing(tiny_settings())
    hard_site_away = told(a=0.7, b=0.7), told(b=0.69)
    assert played(study, told(a=0.8, b=0.7, c=0.1), *hard_site_away[:1]).round == 1  # type: ignore[union-attr]
    assert played(study, told(a=0.6, b=0.7, c=0.1), told(a=0.7, b=0.7)).round == 2  # type: ignore[union-attr]
    only_one_of_three = played(study, told(a=0.6, b=0.7, c=0.1), told(a=0.9))
    assert only_one_of_three is not None
    assert (only_one_of_three.round, only_one_of_three.waited) == (1, 0)


def test_a_sum_of_fewer_sites_is_not_compared() -> None:
    def summed(mean: float, num_sites: int) -> dict[str, ValidationMetrics]:
        estimate = Estimate(mean, 10, 0.1, 0.0, 1.0, 10, num_sites)
        return {"pooled": ValidationMetrics({"dsc": estimate}, 10, 1.0)}

    study = choosing(tiny_settings())
    assert played(study, summed(0.5, 4), summed(0.9, 3)).round == 1  # type: ignore[union-attr]
    assert played(study, summed(0.5, 4), summed(0.6, 4)).round == 2  # type: ignore[union-attr]


def test_a_round_that_came_apart_is_never_the_best() -> None:
    study = choosing(tiny_settings(), "abs_volume_difference_ml")
    volume = {"a": ValidationMetrics({"abs_volume_difference_ml": Estimate(5.0, 9, 1.0, 0.0, 9.0, 9)}, 9, 1.0)}
    better = {"a": ValidationMetrics({"abs_volume_difference_ml": Estimate(1.0, 9, 1.0, 0.0, 9.0, 9)}, 9, 1.0)}
    first = best_after(study, None, 1, volume)
    after = best_after(study, first, 2, better, is_set_back=True)
    assert after is not None
    assert (after.round, after.waited) == (1, 1)


@pytest.mark.slow
def test_rounds_end_early_and_hand_out_the_best_through_kills_at_any_place(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path
) -> None:
    study, whole, sites = choosing(tiny_study), tmp_path / "whole", sites[:2]
    recorder = Recorder()
    state = run_rounds(grid_of(sites, says), study, start(study), whole, recorder).state
    assert state.round == 4
    assert state.best is not None
    assert (state.best.round, state.best.waited) == (2, 2)
    assert [record.round for record in state.history if record.is_best] == [1, 2]
    assert not any(state.test for state in recorder.states[:-1])
    assert all("dsc_native" in one.estimates for one in state.test.values())
    weights = checkpoint.read_checkpoint(whole, 2, study, start(study)).weights
    assert equal(final_weights(whole), weights)
    card, last = read_card(whole / "model"), load_model(whole / "last-model")
    assert card.choice is not None
    assert (card.choice.by, card.choice.of_rounds, card.provenance.rounds_completed) == ("dsc", 4, 2)
    assert last[0].choice is None
    assert last[0].provenance.rounds_completed == 4
    assert not equal(last[1], weights)
    summary = summarise_run(study, state, finished=True)
    assert summary.rounds_in_words == "ended early after round 4 of 9"
    assert summary.choice_in_words.startswith(
        "The model handed out is of round 2 of 4, the best on validation patients by Dice"
    )
    assert "so too good (optimistic). Only 2 patients chose" in summary.choice_in_words
    assert summary.metrics["dsc"].per_site["site-a"].mean == state.test["site-a"].estimates["dsc"].mean

    class DiesMeasuring(Recorder):
        """Is killed in the last round, while the model that is handed out is measured."""

        times = 0

        def on_wait(self, number: int, what: str, names: list[str], left_s: float) -> None:
            if (number, what, len(names)) == (4, "validation", 1):
                self.times += 1
                if self.times == 2:
                    raise Killed

    for dies in (Recorder(die_after=4), DiesMeasuring()):
        out = tmp_path / f"killed-{type(dies).__name__}-{dies.die_after}"
        for site in sites:  # each answers a request once
            shutil.rmtree(site.state / "answers", ignore_errors=True)
        with pytest.raises(Killed):
            run_rounds(grid_of(sites, says, cache_answers=True), study, start(study), out, dies)
        again = run_rounds(grid_of(sites, says, cache_answers=True), study, start(study), out, Recorder())
        assert not [failure for record in again.state.history for failure in record.sites_failed]
        assert again.state.best is not None
        assert (again.state.round, again.state.best.round, again.state.best.value) == (4, 2, state.best.value)
        assert set(again.state.test) == set(state.test)
        for name in ("model", "last-model"):
            assert (out / name / "model.safetensors").read_bytes() == (whole / name / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_best_round_stays_on_disk_however_long_ago_it_was(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "KEEP", 1)
    study = choosing(tiny_study, patience=None, num_rounds=4)
    run_rounds(grid_of(sites[:2], says), study, start(study), tmp_path, Recorder())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["round_0002", "round_0004"]
    (tmp_path / "checkpoints" / "round_0002" / "weights.safetensors").unlink()
    with pytest.raises(RunError, match="round 2 is the best by dsc, and its model cannot be read"):
        run_rounds(grid_of(sites[:2], says), study, start(study), tmp_path, Recorder())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "gradient-boosting"])
def test_test_patients_measure_the_best_round_at_its_own_threshold(patients: Path, tmp_path: Path, kind: str) -> None:
    study = choosing(study_of(kind=kind), "auroc", patience=2, num_rounds=12)
    state = play(study, patients, tmp_path).states[-1]
    assert state.best is not None
    assert state.best.round <= state.round - 2 or state.round == 12
    assert state.threshold == threshold_of(state.best.validation)
    assert set(state.test) == {"site-a", "site-b", "site-c"}
    card, weights = load_model(tmp_path / "model")
    assert card.threshold == state.threshold
    best = checkpoint.read_checkpoint(tmp_path, state.best.round, study, weights).weights
    assert all(np.array_equal(best[name], weights[name]) for name in best)
    summary = summarise_run(study, state, finished=True)
    assert summary.classification is not None
    assert "Figures here are of test patients, who chose nothing." in summary.choice_in_words


def test_only_what_is_undefined_without_a_find_is_said_to_be() -> None:
    truth = np.zeros((4, 4, 4), dtype=bool)
    truth[1:3, 1:3, 1:3] = True
    found = segmentation_metrics(np.zeros_like(truth), truth, (1.0, 1.0, 1.0))
    assert {name for name in METRICS if np.isnan(found[name])} - {"lesion_tpr_medium", "lesion_tpr_large"} == {
        name for name, metric in METRICS.items() if metric.of_what_is_found
    }
    assert {name for name, metric in TASK_METRICS["classification"].items() if metric.of_what_is_found} == {"precision"}
