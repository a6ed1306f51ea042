"""What each site told of a model of its own, trained there alone, beside the shared one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name
from msfl_common.config.baselines import BASELINE_METRICS
from msfl_common.errors import ConfigError, InputError
from msfl_common.messages.figures import Figures
from msfl_common.metrics.intervals import Bounds, mean_interval
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.system.files import write_text
from msfl_common.system.reading import read_record

BASELINES_FILE = "local-baselines.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PairedFigure(_Frozen):
    """A mean over cases, with Student's t over patients."""

    mean: float = Field(description="in the metric's unit")
    ci95_low: float | None = Field(description="low end of the 95% interval; null where patients are too few for one")
    ci95_high: float | None = Field(description="high end of the 95% interval; null where patients are too few for one")


class LocalFigure(_Frozen):
    """A metric of a site's own model, and how the shared one differs from it in the same cases."""

    local: PairedFigure = Field(description="of the model trained at the site alone")
    difference: PairedFigure = Field(description="shared less local-only, paired by case: above 0 the shared is higher")
    num_patients: int = Field(ge=1, description="patients behind both")
    num_cases: int = Field(ge=1, description="cases in which the metric is defined with both")


class LocalBaselines(_Frozen):
    """What all sites told."""

    sites: dict[Name, dict[str, LocalFigure]] = Field(
        description="site to metric to figure; of too few patients absent"
    )
    silent: dict[Name, str] = Field({}, description="sites that told nothing, and the code of why")


def local_figures(figures: Figures) -> dict[str, LocalFigure]:
    """A site's figures out of its message."""
    return {name: _figure(name, figures.arrays[name]) for name in BASELINE_METRICS if figures.arrays[name][0, 2] > 0}


def write_baselines(out: Path, told: LocalBaselines) -> None:
    """Keep what was told in a run's folder."""
    write_text(out / BASELINES_FILE, told.model_dump_json(indent=1) + "\n")


def read_baselines(out: Path) -> LocalBaselines | None:
    """What was told in a run; None where nothing was asked yet.

    Raises:
        InputError: the file is damaged.
    """
    path = out / BASELINES_FILE
    if not path.exists():
        return None
    try:
        return read_record(LocalBaselines, path)
    except ConfigError as error:
        raise InputError(f"{error}; delete it, and the sites are asked again") from None


def _figure(name: str, array_24: NDArray[np.float64]) -> LocalFigure:
    metric = ALL_METRICS[name]
    local, difference = array_24.tolist()
    return LocalFigure(
        local=_paired(local, metric.interval_range, metric.fewest),
        difference=_paired(difference, (-math.inf, math.inf), metric.fewest),
        num_patients=int(local[2]),
        num_cases=int(local[3]),
    )


def _paired(row: list[float], bounds: Bounds, fewest: int) -> PairedFigure:
    mean, error, num_patients, _ = row
    has_interval = error > 0 and num_patients >= max(fewest, 2)
    low, high = mean_interval(mean, error, num_patients - 1, bounds) if has_interval else (math.nan, math.nan)
    is_known = math.isfinite(low) and math.isfinite(high)
    return PairedFigure(mean=mean, ci95_low=low if is_known else None, ci95_high=high if is_known else None)
