"""A study that asks sites for models of their own: trained alone, measured beside the shared one, told as figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import BidsSite
from tests.server.rounds.test_classification import Recorder, grid_of

from msfl_client.egress.ledger import read
from msfl_client.personal.arms import own_of_study
from msfl_client.rounds.baseline_step import _brought, _left_out, _without, compared
from msfl_client.rounds.own_model import alone
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.trained_patients import remember_model
from msfl_client.segmentation.usable_cases import Measured
from msfl_common.config.base import validate
from msfl_common.config.baselines import BASELINE_METRICS, Baselines
from msfl_common.config.message_kinds import allowed_by_default, asked_for
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError, RefusedError, UpdateError
from msfl_common.messages.figures import Figures, pack_figures
from msfl_common.messages.records import Content
from msfl_common.models.evaluated_model import evaluation_of, load_evaluated
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.starting_weights import starting_weights
from msfl_server.report.local_baselines import local_lines
from msfl_server.report.page import write_report
from msfl_server.results.local_baselines import read_baselines
from msfl_server.rounds.evaluation import run_evaluation
from msfl_server.rounds.local_baselines import _read
from msfl_server.rounds.loop import run_rounds
from msfl_server.rounds.stage import StageRun
from msfl_server.run.summarise import summarise_run


def rows_of(**values: list[float]) -> list[dict[str, float]]:
    columns = {name: values.get(name, [0.5] * len(values["dsc"])) for name in BASELINE_METRICS}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_differences_are_paired_and_of_few_patients_withheld() -> None:
    patients = ["a", "b", "c", "c"]
    local = rows_of(dsc=[0.2, 0.4, 0.6, 0.6], tpr=[math.nan, 0.4, 0.6, 0.6], lesion_f1=[0.1, math.nan, math.nan, 0.3])
    shared = rows_of(dsc=[0.3, 0.6, 0.6, 0.8], tpr=[0.9, 0.5, 0.7, 0.7], lesion_f1=[0.2, 0.3, 0.4, math.nan])
    arrays, fewest = compared(local, shared, patients, floor=2)
    (mean, _, behind, cases), (difference, error, *_) = arrays["dsc"]
    assert (mean, behind, cases) == (pytest.approx(0.45), 3, 4)
    assert difference == pytest.approx(np.mean([0.1, 0.2, 0.0, 0.2]))
    off = np.array([0.1 - 0.125, 0.2 - 0.125, 0.2 - 0.25])  # sums about the mean, of each patient
    assert error == pytest.approx(math.sqrt(1.5 * float(off @ off)) / 4)
    assert arrays["tpr"][:, 0] == pytest.approx([np.mean([0.4, 0.6, 0.6]), 0.1])
    assert not arrays["lesion_f1"].any()  # of one patient alone
    assert fewest == 2


def test_settings_that_cannot_have_it_are_refused() -> None:
    asked: dict[str, Any] = {"name": "m", "baselines": {"local": True}}
    assert validate(StudyConfig, asked, "study").baselines.local
    assert "baselines" not in StudyConfig(name="m").model_dump_json()
    for more in (
        {"secure_aggregation": {"method": "masks"}},
        {"task": "new-lesions"},
    ):
        with pytest.raises(ConfigError, match=r"baselines\.local: "):
            validate(StudyConfig, asked | more, "study")


@pytest.mark.parametrize(
    ("local", "difference"),
    [
        ([0.5, 0.1, 2.5, 6], [0.1, 0.1, 2.5, 6]),
        ([0.5, 0.1, 6, 0], [0.1, 0.1, 6, 0]),
        ([0.5, 0.1, 6, 5], [0.1, 0.1, 6, 5]),
        ([0.5, 0.1, 6, 6], [0.1, 0.1, 7, 7]),
        ([0.5, 0.1, 4, 4], [0.1, 0.1, 4, 4]),
        ([1.5, 0.1, 6, 6], [0.1, 0.1, 6, 6]),
    ],
)
def test_counts_that_no_patients_have_are_one_sites_failure(local: list[float], difference: list[float]) -> None:
    def content(*rows: list[float]) -> Content:
        return pack_figures(Figures("local_baseline", 9, dict.fromkeys(BASELINE_METRICS, np.array(rows))))

    assert _read(5, "a", content([0.5, 0.1, 6, 6], [0.1, 0.1, 6, 6]))["dsc"].num_patients == 6
    assert _read(5, "a", content([0.0] * 4, [0.0] * 4)) == {}
    with pytest.raises(UpdateError):
        _read(5, "a", content(local, difference))


@pytest.mark.slow
def test_a_site_that_may_tells_its_own_model_beside_the_shared_one(
    make_site: Callable[..., BidsSite], tiny: StudyConfig, tmp_path: Path
) -> None:
    study = tiny.model_copy(update={"baselines": Baselines(local=True)})
    may = Policy(min_patients=1, allow=(*allowed_by_default(), "local_baseline"))
    sites = tuple(
        SiteConfig(
            name=name,
            data=(make_site(name, [f"sub-{name}{number}" for number in range(5)]).root,),
            state=tmp_path / f"state-{name}",
            policy=policy,
        )
        for name, policy in (("a", may), ("b", Policy(min_patients=1)))
    )
    out = tmp_path / "run"
    final = run_rounds(grid_of(sites, cache_answers=True), study, starting_weights(study), out, Recorder())
    told = read_baselines(out)
    assert told is not None
    assert ([*told.sites], told.silent) == (["a"], {"b": "POLICY"})
    figure = told.sites["a"]["dsc"]
    shared = final.state.validation["a"].estimates["dsc"].mean
    assert figure.local.mean + figure.difference.mean == pytest.approx(shared)
    assert [line.kind for line in read(sites[0].state / "ledger.jsonl")][-1] == "local_baseline"
    assert own_of_study(sites[0], study).num_rounds == study.rounds.num_rounds
    summary = summarise_run(study, final.state).model_copy(update={"local_baselines": told})
    page = write_report(out, summary, study).read_text()
    assert "Shared less local-only" in page
    assert "No comparison at b: POLICY" in page
    assert any(line.startswith("a, Dice similarity") for line in local_lines(summary))
    (out / "local-baselines.json").unlink()  # cut off after the last round: asked again, and answered without training
    run_rounds(grid_of(sites, cache_answers=True), study, starting_weights(study), out, Recorder())
    assert read_baselines(out) == told

    # The model measured at a third site, which has a model of its own: on those who trained neither.
    new = site_with_own_model(make_site("c", [f"sub-c{number}" for number in range(5)]).root, study, tmp_path)
    content = evaluation_of(out / "model", "measured").model_dump(mode="json")
    measures = validate(StudyConfig, content | {"baselines": {"local": True}}, "study")
    assert "local_baseline" in asked_for(measures)
    three, beside = (*sites, new), tmp_path / "measured"
    run = StageRun(measures, load_evaluated(measures, out / "model"), beside, model=out / "model")
    state = run_evaluation(grid_of(three, cache_answers=True), run, Recorder()).state
    told = read_baselines(beside)
    assert told is not None
    assert (state.test["c"].num_cases, told.sites["c"]["dsc"].num_patients) == (5, 2)
    assert told.silent == {"a": "POLICY", "b": "POLICY"}  # which name no model
    alike = told.sites["c"]["dsc"].difference  # its own model is the one that is measured
    assert (alike.mean, told.sites["c"]["dsc"].local.mean >= 0) == (0.0, True)
    remember_model(
        new.state, load_model(new.own_model or tmp_path)[0].weights_sha256, ["sub-c0", "sub-c1"]
    )  # as if of others
    (beside / "local-baselines.json").unlink()
    run_evaluation(grid_of(three, cache_answers=True), run, Recorder())
    told = read_baselines(beside)
    assert told is not None
    assert told.silent["c"] == "ANSWERED"


def site_with_own_model(data: Path, study: StudyConfig, folder: Path) -> SiteConfig:
    """A site whose own model is of three of its five patients, by the lists of its state folder."""
    trained, model = alone(study), folder / "own"
    state = folder / "state-c"
    state.mkdir(mode=0o700)
    weights = load_model(folder / "run" / "model")[1]
    card = save_model(model, trained, weights, Provenance(rounds_completed=1, sites={"c": 3}), own_of="c")
    remember_model(state, card.weights_sha256, ["sub-c0", "sub-c1", "sub-c2"])
    policy = Policy(min_patients=1, allow=(*allowed_by_default(), "local_baseline"))
    return SiteConfig(name="c", data=(data,), state=state, policy=policy, own_model=model)


def test_who_is_left_out_is_counted_with_lesions_too() -> None:
    masks = [np.ones((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8)]
    cases = tuple(NetworkInput(np.zeros((1, 2, 2, 2), np.float32), masks[number % 2], np.eye(4)) for number in range(6))
    whole = Measured(cases, ("a", "b", "c", "d", "e", "f"))
    assert _left_out(whole, _without(whole, frozenset("bd"))) == (2, 0)
    assert _left_out(whole, _without(whole, frozenset("abd"))) == (3, 1)
    assert _left_out(whole, _without(whole, frozenset())) == (0, 0)


def test_a_model_that_cannot_be_compared_is_refused_by_name(tiny: StudyConfig, tmp_path: Path) -> None:
    site = SiteConfig(name="a", data=(tmp_path,), state=tmp_path / "state")
    weights, ran = starting_weights(tiny), Provenance(rounds_completed=1, sites={"a": 3})

    def refused(own: Path | None, study: StudyConfig = tiny) -> str:
        named = site.model_copy(update={"own_model": own})
        with pytest.raises(RefusedError) as error:
            _brought(named, study)
        return error.value.why

    assert "names no model" in refused(None)
    assert "no such folder" in refused(tmp_path / "gone")
    save_model(tmp_path / "own", tiny, weights, ran)
    assert "is not written down" in refused(tmp_path / "own")
    other = tiny.model_copy(update={"inputs": tiny.inputs.model_copy(update={"spacing_mm": 3.0})})
    assert "another task, network or inputs" in refused(tmp_path / "own", other)
    elsewhere = Provenance(rounds_completed=1, sites={"elsewhere": 3})
    save_model(tmp_path / "own", tiny, weights, elsewhere)
    assert _brought(site.model_copy(update={"own_model": tmp_path / "own"}), tiny)[1] == frozenset()
