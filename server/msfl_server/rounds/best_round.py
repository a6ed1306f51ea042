"""Which round's model is handed out: the last one's, or the best by a metric of the validation patients.

The best of many rounds on the same few patients is good there by chance, too (Cawley and Talbot, JMLR 2010): whoever
shows its figures says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from msfl_common.config.classification import DeepModel
from msfl_common.config.stages import chosen_by
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, RunError
from msfl_common.feature_models import first_state
from msfl_common.messages.records import ValidationMetrics
from msfl_common.metrics.intervals import Estimate, pool
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.models.weights import Weights
from msfl_common.secure_aggregation.layout import POOLED
from msfl_server.rounds.checkpoint import BestRound, read_checkpoint


def best_after(
    study: StudyConfig,
    best: BestRound | None,
    number: int,
    validation: Mapping[str, ValidationMetrics],
    is_set_back: bool = False,
) -> BestRound | None:
    """The best round, once `number` is validated.

    Two rounds are held against each other over the sites that told the metric of both, as sites differ by more than
    rounds do; where those are not more than half of the sites of the best one, or a sum under masks is of fewer sites
    than its, the rounds are not compared, and nobody waited. A round that came apart is never the best.

    Args:
        study: of the stage.
        best: so far.
        number: the round that was validated.
        validation: what its sites told.
        is_set_back: whether the model came apart, and has earlier weights again.
    """
    name = chosen_by(study)
    told = _told(name, validation) if name is not None else {}
    if name is None or not told:
        return best
    if best is None:
        return None if is_set_back else _of(name, number, validation)
    before = _told(name, best.validation)
    both = before.keys() & told.keys()
    if 2 * len(both) <= len(before) or any(_num_sites(told, one) < _num_sites(before, one) for one in both):
        return best
    was, now = (_pooled(name, {site: one[site] for site in sorted(both)}) for one in (before, told))
    if not is_set_back and (now > was if ALL_METRICS[name].higher_is_better else now < was):
        return _of(name, number, validation)
    return best.model_copy(update={"waited": best.waited + 1})


def has_waited(study: StudyConfig, best: BestRound | None) -> bool:
    """Whether the rounds are over, as none was better for as many validations as the study waits."""
    patience = study.validation.patience
    return patience is not None and best is not None and best.waited >= patience


def handed_out(out: Path, study: StudyConfig, best: BestRound | None, number: int, last: Weights) -> Weights:
    """The shared weights of the model that is handed out, once round `number` is over and has left `last`.

    Raises:
        RunError: the best round's checkpoint cannot be read.
    """
    if best is None or best.round == number:
        return last
    settings = study.classification
    # A model of features may have grown since, a network has not; to ask a network would load PyTorch.
    grows = settings is not None and not isinstance(settings.model, DeepModel)
    expected = first_state(settings, 0) if settings is not None and grows else last
    try:
        return read_checkpoint(out, best.round, study, expected).weights
    except InputError as error:
        raise RunError(
            f"round {best.round} is the best by {study.validation.best_by}, and its model cannot be read: {error}; "
            "restore it from a backup"
        ) from None


def _of(name: str, number: int, validation: Mapping[str, ValidationMetrics]) -> BestRound:
    value = _pooled(name, _told(name, validation))
    return BestRound(round=number, value=value, waited=0, validation=dict(validation))


def _told(name: str, validation: Mapping[str, ValidationMetrics]) -> dict[str, Estimate]:
    estimates = {site: one.estimates[name] for site, one in validation.items() if name in one.estimates}
    return {site: one for site, one in estimates.items() if one.num_cases and math.isfinite(one.mean)}


def _pooled(name: str, estimates: Mapping[str, Estimate]) -> float:
    return pool(estimates, ALL_METRICS[name].spread, ALL_METRICS[name].interval_range).mean


def _num_sites(estimates: Mapping[str, Estimate], site: str) -> int:
    """How many sites told a figure: of a sum under masks, those in it."""
    return (estimates[site].num_sites or 1) if site == POOLED else 1
