"""A site's cases for a segmentation: those that can be used, prepared once, and their masks as they were drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from msfl_client.data.bids import Case
from msfl_client.data.checks import SiteCheck, check_site
from msfl_client.segmentation.network_input import NetworkInput, make_network_inputs
from msfl_client.segmentation.own_grid import OwnTruth, own_truth
from msfl_client.trainer import OnProgress
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import CaseError
from msfl_common.system.words import counted, reasons_in_words


@dataclass(frozen=True)
class Measured:
    """Cases that measure a model.

    Attributes:
        cases: prepared.
        patients: whose each is.
        truths: reads their masks as they were drawn; see `own_truths`.
    """

    cases: tuple[NetworkInput, ...]
    patients: tuple[str, ...]
    truths: Callable[[], tuple[OwnTruth, ...]] = tuple

    @property
    def num_patients(self) -> int:
        """How many they are."""
        return len(set(self.patients))


def usable_cases(
    site: SiteConfig, study: StudyConfig, on_progress: OnProgress
) -> tuple[list[Case], dict[str, NetworkInput], SiteCheck]:
    """The site's cases that can be trained on, by key what was prepared of them, and what was found in the BIDS folder.

    Raises:
        CohortError: the folders hold nothing usable.
    """
    num_workers = os.cpu_count() or 1

    def on_checked(done: int, total: int) -> None:
        on_progress(site.name, "checking", done, total, "")

    checked = check_site(site, study.inputs, on_checked, num_workers)
    done = 0

    def on_made() -> None:
        nonlocal done
        done += 1
        on_progress(site.name, "preparing", done, len(checked.cases), "")

    prepared = make_network_inputs(checked.cases, study.inputs, site.state / "cache", num_workers, on_made)
    usable = {case.key: ready for case, ready in zip(checked.cases, prepared, strict=True) if ready is not None}
    num_bad = len(checked.found) - len(usable)
    if num_bad:
        why = reasons_in_words(texts[0] for texts in checked.excluded.values())
        left_out = f"{num_bad} of {counted(len(checked.found), 'case')} left out{why and ': ' + why}"
        on_progress(site.name, "checked", len(checked.found), len(checked.found), left_out)
    return [case for case in checked.cases if case.key in usable], usable, checked


def own_truths(
    site: SiteConfig, cases: Sequence[Case], originals: Mapping[str, Case], on_progress: OnProgress
) -> tuple[OwnTruth, ...]:
    """The masks of cases as they were drawn; none at all, and a word to the site, where one of them cannot be had."""
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return tuple(pool.map(lambda case: own_truth(case, originals[case.key], site), cases))
    except (CaseError, OSError) as error:
        note = f"no metrics on the patients' own grids: {error}"
        on_progress(site.name, "validating", 0, len(cases), note)
        return ()
