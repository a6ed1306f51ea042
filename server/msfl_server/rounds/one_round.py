"""One round, as all that happens in it sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msfl_common.config.stages import Part, is_asked_to
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import RoundTask
from msfl_server.aggregation.strategy import Strategy
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.checkpoint import Checkpoint
from msfl_server.rounds.exchange import Grid
from msfl_server.rounds.listener import Listener
from msfl_server.rounds.mask_roster import Masks
from msfl_server.rounds.roster import Roster


@dataclass(frozen=True)
class OneRound:
    """What both halves of a round need.

    Attributes:
        present: the nodes to ask, and their sites.
        masks: what sums under masks need; None where the study has none.
    """

    grid: Grid
    task: RoundTask
    strategy: Strategy
    out: Path
    roster: Roster
    before: Checkpoint
    listener: Listener
    present: Mapping[int, str]
    masks: Masks | None = None


def asked_to(part: Part, study: StudyConfig, sites: Mapping[int, str]) -> dict[int, str]:
    """Whom of `sites` (node to name) a study asks to train, or to test; see `is_asked_to`."""
    return {node: name for node, name in sites.items() if is_asked_to(part, study, name)}


def step_of(task: RoundTask) -> Literal["validation", "test"]:
    """What measuring is: where a segmentation keeps no test patients, that of its best model is validation, too."""
    return task.split if task.settings.has_test or task.study.evaluate is not None else "validation"


def at_step(
    step: Literal["training", "validation", "test"], failures: Iterable[SiteFailure]
) -> tuple[SiteFailure, ...]:
    """The failures, with what was asked."""
    return tuple(failure.model_copy(update={"step": step}) for failure in failures)


def busy(grid: Grid, seconds: Iterable[float]) -> float:
    """Wall time that sites needed: their sum where they take turns, the slowest where they work at once."""
    return (sum if getattr(grid, "sites_take_turns", False) else max)([0.0, *seconds])
