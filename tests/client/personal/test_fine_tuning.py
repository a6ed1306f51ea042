"""A finished model trained on at a site that has not trained it: measured on who was held out, kept at the site."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.client.personal.test_gain import copied, nothing
from tests.commands import run_main
from tests.conftest import tiny_settings
from tests.deep import tiny_study as outcome_study
from tests.server.rounds.test_loop import Killed, equal, sites

from msfl_client.cli.fine_tune import tuning_lines
from msfl_client.cli.main import main
from msfl_client.personal import fine_tuning
from msfl_client.personal.fine_tuning import ADAPTED, fine_tune, start_of
from msfl_client.personal.record import Interval
from msfl_client.personal.tuned_record import TUNING, Change, Tuning, read_tuning
from msfl_client.rounds import own_model
from msfl_client.rounds.site_context import SiteContext
from msfl_common.config.frozen_layers import frozen_names
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights

__all__ = ["sites"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    study = tiny_settings()
    weights = get_weights(build_network(study.model_copy(update={"seed": 5})))
    save_model(tmp_path / "model", study, weights, Provenance(rounds_completed=3, sites={"elsewhere": 9}))
    return tmp_path / "model"


@pytest.mark.slow
def test_each_patient_is_measured_by_a_model_that_was_not_trained_on_them(
    sites: list[SiteConfig], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sites[0]  # of three patients
    start = start_of(site, model, 1, ["encoder"])
    trained: list[tuple[str, frozenset[str]]] = []
    once = own_model._train_round

    def recorded(context: SiteContext, learner: object, weights: Weights, number: int, *more: object) -> Weights:
        trained.append((str(more[1]), frozenset(context.learner.train_patients)))  # type: ignore[attr-defined]
        return once(context, learner, weights, number, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(own_model, "_train_round", recorded)
    measured: list[tuple[str, tuple[str, ...]]] = []
    rows_of = fine_tuning.measured_rows

    def watched(context: SiteContext, part: object, weights: Weights, name: str) -> list[dict[str, float]]:
        measured.append((name, part.patients))  # type: ignore[attr-defined]
        if len(measured) == 4:
            raise Killed
        return rows_of(context, part, weights, name)  # type: ignore[arg-type]

    monkeypatch.setattr(fine_tuning, "measured_rows", watched)
    ledger = site.state / "ledger.jsonl"
    with pytest.raises(Killed):
        fine_tune(site, start, nothing)
    found = fine_tune(site, start, nothing)
    assert [name for name, _ in trained] == [*(f"fold-{one}-of-3" for one in (1, 2, 3)), ADAPTED]  # none twice
    people = trained[-1][1]
    assert len(people) == 3
    for (name, patients), (_, others) in zip(measured[-6::2], trained[:3], strict=True):
        assert name.endswith("before")
        assert len(patients) == 1
        assert others == people - set(patients)
    assert {patients[0] for _, patients in measured[-6:]} == people
    assert not ledger.exists()
    assert (found.num_patients, found.num_folds, found.frozen) == (3, 3, ("encoder",))
    change = found.changes["dsc_native" if "dsc_native" in found.changes else "dsc"]
    assert change.difference.low is None
    assert change.difference.mean == pytest.approx(change.after.mean - change.before.mean)
    assert "fewer than 6 say nothing of others" in found.sentence
    folder = site.state / "personal" / "tiny"
    assert read_tuning(folder / TUNING) == found
    assert (folder / TUNING).stat().st_mode & 0o077 == 0
    assert tuning_lines(site) == [f"model of study tiny, fine-tuned here: {folder / ADAPTED}", f"  {found.sentence}"]
    card, weights = load_model(folder / ADAPTED)
    assert card.own_of == site.name
    assert card.started_from is not None
    assert card.started_from.sites == ("elsewhere",)
    same = {name for name in weights if np.array_equal(weights[name], start.weights[name])}
    assert same == frozen_names(start.study, 1, weights)
    fresh = site.model_copy(update={"state": copied(site, tmp_path)})
    fine_tune(fresh, start, nothing)
    assert equal(load_model(fresh.state / "personal" / "tiny" / ADAPTED)[1], weights)  # never killed


def test_what_cannot_be_fine_tuned_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    site = SiteConfig(name="elsewhere", data=(tmp_path,), state=tmp_path / "state")
    other = site.model_copy(update={"name": "here"})
    with pytest.raises(InputError, match=r"site elsewhere has trained this model.*`msfl-client gain`"):
        start_of(site, model, None, None)
    with pytest.raises(InputError, match=r"training\.freeze: decoder: no layer"):
        start_of(other, model, None, ["decoder"])
    outcome = outcome_study("resnext")
    save_model(tmp_path / "o", outcome, starting_weights(outcome), Provenance(rounds_completed=1, sites={}))
    with pytest.raises(InputError, match="predicts an outcome"):
        start_of(other, tmp_path / "o", None, None)
    start = start_of(other, model, 7, None)
    assert (start.num_rounds, start.study.rounds.num_rounds, start.study.strategy) == (7, 7, None)
    (tmp_path / "site.yaml").write_text(json.dumps({"name": "here", "data": str(tmp_path), "state": "state"}))
    result = run_main(main, "fine-tune", tmp_path / "site.yaml", "--model", tmp_path / "none")
    assert result.returncode == 2
    assert "no such folder" in result.stderr
    (tmp_path / "bids" / "sub-1" / "anat").mkdir(parents=True)
    (tmp_path / "site.yaml").write_text(json.dumps({"name": "here", "data": "bids", "state": "state"}))
    result = run_main(main, "fine-tune", tmp_path / "site.yaml", "--model", model)
    assert result.returncode == 2
    assert "here: no case with a lesion mask can be trained on; `msfl-client check" in result.stderr


def told(num_patients: int, num_folds: int, low: float | None) -> Tuning:
    one = Interval(mean=0.5, low=None, high=None)
    change = Change(
        before=one,
        after=Interval(mean=0.6, low=None, high=None),
        difference=Interval(mean=0.1, low=low, high=None if low is None else 0.2),
        num_patients=num_patients,
        num_up=num_patients - 1,
    )
    return Tuning(
        study="s",
        site="a",
        weights_sha256="0" * 64,
        num_patients=num_patients,
        num_cases=num_patients,
        num_folds=num_folds,
        steps=30,
        frozen=(),
        metrics={"dsc": "Dice"},
        changes={"dsc": change} if num_folds else {},
        folder="f",
    )


def test_it_is_said_what_few_patients_cannot_say() -> None:
    assert "nobody is left to measure it on" in told(1, 0, None).sentence
    assert told(1, 0, None).caution == ""
    few = told(5, 5, None)
    assert few.sentence == (
        "Dice 0.500 before, 0.600 after, +0.100; it rose in 4 of 5 patients; fewer than 6 say nothing of others"
    )
    assert "on 5 patients, which is few" in few.caution
    assert "trained on all" in few.caution
    assert "better: +0.100 (+0.050 to +0.200) against before" in told(12, 5, 0.05).sentence
    assert "no clear difference" in told(12, 5, -0.05).sentence
