"""The figures of a run in one form: of a simulation, a deployed study or a cross-validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from msfl_common.config.classification import Split
from msfl_common.config.optimisation import written_out
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.system.reading import parse_json, read_text
from msfl_server.research.cross_validation.results import PLAN_FILE, RESULTS_FILE, CrossValidation
from msfl_server.research.simulation.folder import RUN_FILE
from msfl_server.results.summary import SUMMARY_FILE, Summary, read_summary
from msfl_server.run.found import DEPLOYED_FILE, FoundRun, find_run

Folders = Mapping[str, tuple[str, ...]]  # site to its BIDS folders


@dataclass(frozen=True)
class Value:
    """A figure, with its 95% interval where it has one."""

    mean: float
    low: float | None
    high: float | None
    num_cases: int


@dataclass(frozen=True)
class MeasuredRun:
    """A run as it is compared.

    Attributes:
        folder: as it was named.
        kind: what it is.
        study: its settings, defaults written out.
        data: site to its BIDS folders, where they are this machine's own.
        overall: each metric over all that was measured.
        parts: the same of each site, or of each fold.
        split: whose figures they are.
    """

    folder: Path
    kind: Literal["run", "cross-validation"]
    study: StudyConfig
    data: Folders | None
    overall: Mapping[str, Value]
    parts: Mapping[str, Mapping[str, Value]]
    split: Split = "test"


def read_measured(folder: Path) -> MeasuredRun:
    """The figures of a run's folder, or of a deployed study's.

    Raises:
        InputError: it holds none.
    """
    out = folder / "run" if (folder / "server.yaml").is_file() else folder
    if (out / PLAN_FILE).is_file():
        study, data = _setup(out / PLAN_FILE)
        return _of_folds(folder, study, data, _read_folds(out / RESULTS_FILE))
    if not (out / SUMMARY_FILE).is_file():
        raise InputError(f"{folder}: {_without_figures(find_run(out))}")
    summary = read_summary(out)
    simulated = (out / RUN_FILE).is_file()
    study, data = _setup(out / RUN_FILE if simulated else out / DEPLOYED_FILE)
    return _of_sites(folder, study, data, summary)


def _without_figures(found: FoundRun) -> str:
    """Why a run that has begun has nothing to compare."""
    if found.stage == "final":
        return "no round is complete yet; compare it when one is"
    done = f"{found.summary.rounds_completed} of {found.summary.rounds_requested} rounds of {found.stage}"
    return f"{done} are complete; figures to compare come with its last stage, after these"


def _of_sites(folder: Path, study: StudyConfig, data: Folders | None, run: Summary) -> MeasuredRun:
    parts: dict[str, dict[str, Value]] = {}
    overall = {}
    for name, metric in run.metrics.items():
        for site, one in metric.per_site.items():
            parts.setdefault(site, {})[name] = Value(one.mean, one.ci95_low, one.ci95_high, one.num_cases)
        overall[name] = Value(metric.mean, metric.ci95_low, metric.ci95_high, metric.num_cases)
    return MeasuredRun(folder, "run", study, data, overall, parts, run.split)


def _of_folds(folder: Path, study: StudyConfig, data: Folders | None, found: CrossValidation) -> MeasuredRun:
    parts = {
        fold.name: {
            name: Value(one.mean, one.ci95_low, one.ci95_high, one.num_cases) for name, one in fold.metrics.items()
        }
        for fold in found.folds
    }
    overall = {
        name: Value(
            one.mean,
            one.ci95_low,
            one.ci95_high,
            sum(values[name].num_cases for values in parts.values() if name in values),
        )
        for name, one in found.metrics.items()
    }
    return MeasuredRun(folder, "cross-validation", study, data, overall, parts)


def _read_folds(path: Path) -> CrossValidation:
    try:
        return CrossValidation.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the same `msfl-server cross-validate` to its end") from None
    except (OSError, ValidationError):
        raise InputError(f"{path}: cannot be read, or is of another version") from None


def _setup(path: Path) -> tuple[StudyConfig, Folders | None]:
    """The study, and where the data of simulated sites lie."""
    content: Any = parse_json(read_text(path), str(path))
    try:
        is_simulated = path.name != DEPLOYED_FILE
        study = StudyConfig.model_validate_json(json.dumps(content["study"] if is_simulated else content))
        data = {site["name"]: tuple(map(str, site["data"])) for site in content["sites"]} if is_simulated else None
    except (ValidationError, KeyError, TypeError):
        raise InputError(f"{path}: damaged, or of another version") from None
    return written_out(study), data
