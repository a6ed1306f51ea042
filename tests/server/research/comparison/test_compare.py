"""Two runs side by side: of the same patients, or refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.commands import run_main

from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_server.cli.main import main as server
from msfl_server.research.comparison.compare import difference
from msfl_server.research.comparison.measured import Value
from msfl_server.research.cross_validation.results import (
    PLAN_FILE,
    RESULTS_FILE,
    CrossValidation,
    Extreme,
    FoldMetric,
    FoldResult,
    OverFolds,
)
from msfl_server.research.simulation.folder import RunSetup, write_setup
from msfl_server.results.summary import MetricSummary, SiteMetric, Summary, Timing, read_summary, write_summary

OUTCOME = {
    "task": "classification",
    "classification": {"outcome": {"endpoint": "edss-worsening"}, "clinical": ["age"], "model": {"kind": "logistic"}},
}


def study_of(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate({"name": "pilot", **changes})


def made(
    out: Path,
    study: StudyConfig,
    mean: float = 0.5,
    num_cases: int = 10,
    data: str = "/data",
    deployed: bool = False,
    low: float | None = -0.1,
    sites: tuple[str, ...] = ("a", "b"),
    is_tested: bool = False,
) -> Path:
    """The folder of a finished run, simulated or a coordinator's."""
    run = out / "run" if deployed else out
    run.mkdir(parents=True)
    if deployed:
        (out / "server.yaml").write_text("")
        (run / "study.json").write_text(study.model_dump_json())
    else:
        configs = tuple(SiteConfig(name=site, data=(Path(data) / site,), state=out / site) for site in sites)
        write_setup(out, RunSetup(study=study, sites=configs))
    ends = (None, None) if low is None else (mean + low, mean - low)
    one = SiteMetric(mean=mean, ci95_low=ends[0], ci95_high=ends[1], num_cases=num_cases)
    metric = MetricSummary(mean=mean, ci95_low=ends[0], ci95_high=ends[1], per_site=dict.fromkeys(sites, one))
    write_summary(
        run,
        Summary(
            study=study.name,
            task=study.task,
            strategy="fedavg",
            seed=study.seed,
            rounds_requested=1,
            rounds_completed=1,
            sites=(),
            is_tested=is_tested,
            metrics={"dsc" if study.classification is None else "auroc": metric},
            history=(),
            timing=Timing(total_s=1, train_s=1, overhead_s=0),
            model="model",
        ),
    )
    return out


def test_settings_and_figures_stand_side_by_side(tmp_path: Path) -> None:
    first = made(tmp_path / "one", study_of())
    second = made(tmp_path / "two", study_of(strategy={"kind": "fedavgm", "momentum": 0.5}), 0.6)
    document = json.loads(run_main(server, "compare", first, second, "--json").stdout)
    assert document["settings"] == {"strategy.kind": ["fedavg", "fedavgm"], "strategy.momentum": [None, 0.5]}
    assert document["basis"] == "independent"
    for found in (document["overall"]["dsc"], document["parts"]["b"]["dsc"]):
        assert found["difference"] == pytest.approx(0.1)
        assert (found["low"], found["high"]) == pytest.approx((0.1 - 0.02**0.5, 0.1 + 0.02**0.5))
    shown = run_main(server, "compare", first, second).stdout
    assert "+0.100" in shown
    assert "-0.041 to 0.241" in shown
    assert "as if other patients had been tested" in shown


def test_a_deployed_study_is_held_against_its_simulation(tmp_path: Path) -> None:
    first = made(tmp_path / "study", study_of(), deployed=True)
    second = made(tmp_path / "two", study_of(training={"learning_rate": 1e-3}), low=None)
    document = json.loads(run_main(server, "compare", first, second, "--json").stdout)
    assert document["settings"] == {}, "the rate that a U-Net has anyway"
    assert document["overall"]["dsc"]["low"] is None


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({}, {"study": {"seed": 1}}, "other test patients (seed: 0 and 1)"),
        ({}, {"study": {"inputs": {"spacing_mm": 2.5}}}, "other grids (inputs.spacing_mm"),
        ({}, {"study": {"validation": {"fraction": 0.4}}}, "other test patients (validation.fraction"),
        ({}, {"study": {"validation": {"test_fraction": 0.2}}}, "other test patients (validation.test_fraction: None"),
        ({}, {"is_tested": True}, "one's figures are of validation patients, the other's of test patients"),
        ({}, {"study": OUTCOME}, "other tasks (task: lesion-segmentation and classification)"),
        ({}, {"num_cases": 9}, "other test patients (a: 10 and 9 cases)"),
        ({}, {"data": "/elsewhere"}, "other test patients (the data of a, b lie in other folders)"),
        ({}, {"sites": ("a", "c")}, "other sites were measured (a, b and a, c)"),
        ({}, {"sites": ()}, "of one each site's figures are known, of the other, a sum under masks"),
        (
            {"study": OUTCOME},
            {
                "study": OUTCOME
                | {"classification": OUTCOME["classification"] | {"outcome": {"endpoint": "edss-plus-1"}}}  # type: ignore[operator]
            },
            "other endpoints (classification.outcome",
        ),
    ],
)
def test_what_is_not_of_the_same_is_refused_by_name(
    one: dict[str, Any], other: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folders = [
        made(
            tmp_path / name,
            study_of(**settings.get("study", {})),
            **{k: v for k, v in settings.items() if k != "study"},
        )
        for name, settings in (("one", one), ("two", other))
    ]
    done = run_main(server, "compare", *folders)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr


def folds(out: Path, study: StudyConfig, mean: float) -> Path:
    """The folder of a cross-validation in two folds."""
    out.mkdir()
    (out / PLAN_FILE).write_text(
        json.dumps({"study": json.loads(study.model_dump_json()), "sites": [], "num_folds": 2})
    )
    one = FoldMetric(
        mean=mean, standard_error=0.05, ci95_low=mean - 0.1, ci95_high=mean + 0.1, num_cases=9, num_sites=1
    )
    results = CrossValidation(
        study=study.name,
        seed=study.seed,
        kind="own-cases",
        outcome="edss-worsening",
        folds=tuple(
            FoldResult(
                name=f"fold-{number}",
                left_out=None,
                rounds_completed=1,
                sites={"a": 9},
                withheld=(),
                metrics={"auroc": one},
            )
            for number in (1, 2)
        ),
        metrics={
            "auroc": OverFolds(
                mean=mean,
                ci95_low=mean - 0.07,
                ci95_high=mean + 0.07,
                num_folds=2,
                withheld=(),
                smallest=Extreme(fold="fold-1", value=mean),
                largest=Extreme(fold="fold-2", value=mean),
            )
        },
    )
    (out / RESULTS_FILE).write_text(results.model_dump_json())
    return out


def test_cross_validations_are_compared_fold_by_fold_and_with_no_run(tmp_path: Path) -> None:
    study = study_of(**OUTCOME)
    first, second = folds(tmp_path / "one", study, 0.6), folds(tmp_path / "two", study, 0.7)
    document = json.loads(run_main(server, "compare", first, second, "--json").stdout)
    assert document["overall"]["auroc"]["difference"] == pytest.approx(0.1)
    assert set(document["parts"]) == {"fold-1", "fold-2"}
    refused = run_main(server, "compare", first, made(tmp_path / "run", study))
    assert (refused.returncode, "one is a cross-validation, the other a run" in refused.stderr) == (2, True)


def test_a_metric_of_other_cases_in_each_run_has_no_difference(tmp_path: Path) -> None:
    study = study_of()
    folders = [made(tmp_path / name, study, mean) for name, mean in (("one", 0.5), ("two", 0.7))]
    for folder, sites in zip(folders, (("a",), ("a", "b")), strict=True):
        summary = read_summary(folder)
        recall = summary.metrics["dsc"]
        told = recall.model_copy(update={"per_site": {site: recall.per_site[site] for site in sites}})
        write_summary(folder, summary.model_copy(update={"metrics": {"dsc": recall, "lesion_tpr": told}}))
    document = json.loads(run_main(server, "compare", *folders, "--json").stdout)
    found = document["overall"]["lesion_tpr"]
    assert (found["difference"], found["low"], found["second"]["mean"]) == (None, None, 0.7)
    assert document["overall"]["dsc"]["difference"] == pytest.approx(0.2)
    shown = run_main(server, "compare", *folders).stdout
    assert "10 and 20" in shown
    assert "a site withheld the figure in one run alone" in shown
    assert "withheld" not in run_main(server, "compare", folders[0], folders[0]).stdout


def test_a_run_without_figures_says_how_far_it_is(tmp_path: Path) -> None:
    finished = made(tmp_path / "finished", study_of(**OUTCOME))
    section: dict[str, Any] = {**OUTCOME["classification"], "features": ["lesion_count"]}  # type: ignore[dict-item]
    staged = {**OUTCOME, "segmentation": {}, "classification": section}
    for name, settings, told in (
        ("plain", OUTCOME, "no round is complete yet"),
        ("staged", staged, "0 of 10 rounds of segmentation are complete; figures to compare come with its last stage"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        write_setup(folder, RunSetup(study=study_of(**settings), sites=()))
        done = run_main(server, "compare", finished, folder)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert told in done.stderr


def test_figures_further_apart_than_any_number_have_no_interval() -> None:
    first, second = Value(1e308, 0.9e308, 1.7e308, 10), Value(-1e308, -1.7e308, 0.0, 10)
    found = difference(first, second)
    assert found.difference is not None
    assert math.isfinite(found.difference)
    assert found.low is found.high is None
    json.dumps(found.__dict__ | {"first": None, "second": None}, allow_nan=False)
