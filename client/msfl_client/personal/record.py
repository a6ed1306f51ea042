"""What a site found that taking part brings: figures of its models, read without what trains them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.baselines import LOCAL as LOCAL
from msfl_common.config.baselines import SHARED as SHARED
from msfl_common.config.classification import Split
from msfl_common.errors import ConfigError
from msfl_common.system.reading import read_record
from msfl_common.system.words import counted

PERSONAL, TUNED = "personal", "fine-tuned"  # models beside `SHARED` and `LOCAL`
FIGURES = "gain.json"
FEW = 10  # patients below which one is too narrow to be read as 95%, widened or not


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(_Record):
    """A mean over cases, with the 95% interval of a bootstrap over patients (`metrics.paired`); none of too few."""

    mean: float
    low: float | None
    high: float | None


class Figure(_Record):
    """A metric of a model, and its difference from that of the model of this site alone, in the same cases."""

    value: Interval
    against_local: Interval | None = Field(description="None of the model of this site alone")


class Gain(_Record):
    """What a site measured; it stays there."""

    schema_version: int = 1
    study: str
    site: str
    split: Split = Field("validation", description="whom the study kept out of training, who measure here")
    num_patients: int = Field(description="measured: patients that no model here was trained on")
    num_cases: int
    num_train_cases: int = Field(description="of this site")
    steps: int = Field(description="of each site in the study, and of the model of this site alone; 0 of no network")
    metrics: dict[str, str] = Field(description="their titles")
    models: dict[str, dict[str, Figure]] = Field(description="by the name of the model and of the metric")
    folders: dict[str, str] = Field(description="the models, to predict with")

    @property
    def sentences(self) -> list[str]:
        """The answer, a line for each model but that of this site alone, by the first metric that is defined."""
        told = []
        for name, figures in self.models.items():
            metric = next((one for one in self.metrics if one in figures), None)
            if metric is not None and (difference := figures[metric].against_local) is not None:
                words = in_words(difference, higher_is_better=is_higher_better(metric))
                told.append(f"{name}: {self.metrics[metric]} {figures[metric].value.mean:.3f}, {words}")
        return told

    @property
    def caution(self) -> str:
        """What keeps the figures from being taken at their word."""
        patients = counted(self.num_patients, "patient")
        undefined = [
            title for name, title in self.metrics.items() if not any(name in of for of in self.models.values())
        ]
        told = [f"measured on {patients}, which is few: others may say else"] if self.num_patients < FEW else []
        if undefined:
            told.append(f"{', '.join(undefined)} not defined in these {patients}")
        return "; ".join(told)


def is_higher_better(metric: str) -> bool:
    """Of a metric that is compared."""
    from msfl_common.metrics.registry import ALL_METRICS  # heavy, and not needed to read figures

    return ALL_METRICS[metric].higher_is_better is not False


def in_words(difference: Interval, against: str = "local-only", higher_is_better: bool = True) -> str:
    """A difference, and whether it is one."""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.3f} against {against}; too few patients for an interval"
    interval = f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f}) against {against}"
    if difference.low <= 0 <= difference.high:
        return f"no clear difference: {interval}"
    return f"{'better' if (difference.low > 0) is higher_is_better else 'worse'}: {interval}"


def read_gain(path: Path) -> Gain | None:
    """What was measured before; None where there is nothing that can be read."""
    try:
        return read_record(Gain, path)
    except ConfigError:
        return None
