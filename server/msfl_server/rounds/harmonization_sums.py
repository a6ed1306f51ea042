"""The reference of a harmonization from sums under masks: first sums, slopes, second sums, of which nobody sees one.

Both sums lie in the stage's folder until a round is complete, so a run that was cut off asks for neither a second time.
A site that is lost between them is in the slopes alone, as in a plain study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np

from msfl_common.config.message_kinds import MOMENTS, RESIDUALS
from msfl_common.errors import FutileRunError, RunError, UpdateError
from msfl_common.harmonization import Reference, column_names
from msfl_common.messages.harmonization import pack_slopes_task
from msfl_common.messages.layouts import Layout, moments_layout, residuals_layout
from msfl_common.messages.records import Content, RoundTask, pack_task
from msfl_server.rounds.failures import BAD_SUMS
from msfl_server.rounds.harmonization import MIN_SITES, WITHOUT, Harmonizer, expect_cases, reference_of
from msfl_server.rounds.harmonization_checks import check_moments, finite_slopes
from msfl_server.rounds.mask_roster import Masks
from msfl_server.rounds.masked_sums import SumRequest, ask_sum

Sums = TypeVar("Sums")


def learn_from_sums(harmonizer: Harmonizer, masks: Masks, sites: Mapping[int, str]) -> Reference:
    """The reference, from two sums over `sites` (node to name).

    Raises:
        FutileRunError: a sum is none that cases give; sites open no other one.
        RunError: too few sites or cases, or covariates that do not vary; nothing has been trained.
    """
    settings = harmonizer.settings
    columns = column_names(settings)
    moments, members = _summed(harmonizer, masks, sites, MOMENTS, pack_task, moments_layout(settings))
    expect_cases(moments.num_cases - moments.num_scanners, columns)
    with _usable(members):
        slopes_QP = finite_slopes(check_moments(moments, settings), columns)
    first = {node: name for node, name in sites.items() if name in members}
    residuals, left = _summed(
        harmonizer,
        masks,
        first,
        RESIDUALS,
        lambda task: pack_slopes_task(task, slopes_QP),
        residuals_layout(settings),
    )
    with _usable(left), np.errstate(all="ignore"):
        counted = residuals.num_cases, residuals.num_scanners
        if left == members and counted != (moments.num_cases, moments.num_scanners):
            raise UpdateError("the second sums are of other cases than the first")
        return reference_of(harmonizer.study, residuals, len(left), slopes_QP)


def _summed(
    harmonizer: Harmonizer,
    masks: Masks,
    sites: Mapping[int, str],
    step: str,
    pack: Callable[[RoundTask], Content],
    layout: Layout[Sums],
) -> tuple[Sums, tuple[str, ...]]:
    """A step's sum, and the sites in it; the others are named in the log, as a study continues without them."""
    task = RoundTask(harmonizer.study, harmonizer.number)
    request = SumRequest(
        f"query.{step}",
        task,
        lambda: pack(task),
        layout.ring,
        layout.length,
        BAD_SUMS,
        MIN_SITES,
        may_change=step == MOMENTS,
    )
    on_wait = partial(harmonizer.on_wait, task.round, f"harmonization ({step})")
    summed = ask_sum(masks, sites, request, on_wait)
    harmonizer.say_failures(step, summed.failures)
    if summed.total is None:
        raise harmonizer.too_few(len({*sites.values()} - {one.site for one in summed.failures}), summed.failures)
    with _usable(summed.members), np.errstate(all="ignore"):
        return layout.decode(summed.total), summed.members


@contextmanager
def _usable(members: Sequence[str]) -> Iterator[None]:
    """What is wrong with an opened sum is said of all its sites, as nobody can say whose value it is."""
    try:
        yield
    except (UpdateError, RunError, ValueError) as error:
        raise FutileRunError(
            f"harmonization: the sum of {', '.join(members)} cannot be used: {error}; {WITHOUT}"
        ) from error
