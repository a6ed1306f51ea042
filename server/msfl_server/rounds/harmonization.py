"""Before the rounds: the reference that every scanner is brought to, from the sites' sums, and handed to all.

It is made once and kept as `harmonization.json` in the run's folder; who comes later, or comes back, is handed
the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from msfl_common.config.base import Frozen
from msfl_common.config.message_kinds import MOMENTS, REFERENCE, RESIDUALS
from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.errors import InputError, RunError, UpdateError
from msfl_common.harmonization import Floats, Moments, Reference, Residuals, column_names, make_reference
from msfl_common.messages.harmonization import pack_reference_task, pack_slopes_task, unpack_moments, unpack_residuals
from msfl_common.messages.records import Content, NodeFacts, RoundTask, pack_task, unpack_facts
from msfl_common.models.model_folder import REFERENCE_FILE, read_reference
from msfl_common.system.files import write_text
from msfl_server.aggregation.update_checks import check_count
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.culprits import combine_without_culprits
from msfl_server.rounds.exchange import Answers, Grid, Question, ask
from msfl_server.rounds.failures import BAD_FACTS, BAD_SUMS, meaning_of
from msfl_server.rounds.harmonization_checks import (
    all_moments,
    all_residuals,
    check_moments,
    finite_slopes,
    odd_moments,
    odd_residuals,
)

MIN_SITES = 3  # of two, each could take its own sums off and see the other's
CASES_PER_COLUMN = 5  # fewest cases, less one for each scanner, for each column of the covariates

WITHOUT = "set `harmonization: {method: none}` in study.yaml to train without"

_FIRST_FILE = ".harmonization_first_sums.json"  # until there is a reference

log = logging.getLogger(__name__)
T = TypeVar("T")
OnWait = Callable[[int, str, list[str], float], None]  # round, for what, from which sites, seconds left


class Counts(Frozen):
    """What a site's first sums were of."""

    num_cases: int
    num_scanners: int


class FirstSums(Frozen):
    """What the first sums of the sites came to."""

    settings: Harmonization
    sites: dict[str, Counts]
    slopes: tuple[tuple[float, ...], ...]

    @property
    def array(self) -> Floats:
        """The slopes as an array."""
        shape = len(column_names(self.settings)), len(self.settings.feature_names)
        return np.array(self.slopes, dtype=np.float64).reshape(shape)


@dataclass(frozen=True)
class Harmonizer:
    """Asks the sites for what a harmonization needs.

    Attributes:
        grid: how the sites are reached.
        study: has settings for a harmonization.
        number: the round that is about to begin.
        on_wait: told for whom it waits.
        told: site to the training cases in its facts.
    """

    grid: Grid
    study: StudyConfig
    number: int
    on_wait: OnWait
    told: Mapping[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> Harmonization:
        """What is harmonized, and how."""
        return self.study.harmonization

    def learn(self, sites: Mapping[int, str], out: Path) -> Reference:
        """The reference, from two rounds of sums of `sites` (node to name).

        The second sums must be of the same cases as the first. The slopes stay those of all first sums, though, where
        a site is lost in between, and mean and variance are those of the others: two slopes, with and without a site,
        would tell of it alone, and sites answer for one (`msfl_client.egress.answers`). So they are on disk before
        anyone is asked for second sums.

        Raises:
            RunError: too few sites or cases, or covariates that do not vary; nothing has been trained.
        """
        first = self._first_sums(sites, out)
        asked = {node: name for node, name in sites.items() if name in first.sites}
        second = self._residuals(asked, first.array)
        odd = odd_residuals(second.replies)
        failures = (*second.failures, *self._refuse(sites, odd))
        same = {asked[node]: sums for node, sums in second.replies.items() if node not in odd}
        same = {name: same[name] for name in sorted(same) if same[name].num_cases == first.sites[name].num_cases}
        if len(same) < MIN_SITES:
            raise self.too_few(len(same), failures)
        counted = [replace(sums, num_scanners=first.sites[name].num_scanners) for name, sums in same.items()]
        try:
            with np.errstate(all="ignore"):
                return reference_of(self.study, all_residuals(counted, self.settings), len(same), first.array)
        except (UpdateError, ValueError) as error:
            raise RunError(f"harmonization: {error}; {WITHOUT}") from None

    def _first_sums(self, sites: Mapping[int, str], out: Path) -> FirstSums:
        """What the first sums came to: that of a run that was cut off after them, or of sums asked for now."""
        path = out / _FIRST_FILE
        with suppress(OSError, ValidationError):
            kept = FirstSums.model_validate_json(path.read_bytes())
            if kept.settings == self.settings:
                return kept
        first = self._moments(sites)
        odd = odd_moments(first.replies)
        failures = (*first.failures, *self._refuse(sites, odd))
        moments = {node: sums for node, sums in first.replies.items() if node not in odd}
        if len(moments) < MIN_SITES:
            raise self.too_few(len(moments), failures)
        slopes_QP, culprits = solve_first(moments, self.settings)
        self._refuse(sites, culprits)
        counts = {
            sites[node]: Counts(num_cases=sums.num_cases, num_scanners=sums.num_scanners)
            for node, sums in first.replies.items()
            if node not in {*odd, *culprits}
        }
        slopes = tuple(tuple(map(float, row)) for row in slopes_QP)
        made = FirstSums(settings=self.settings, sites=counts, slopes=slopes)
        write_text(path, made.model_dump_json(indent=1) + "\n")
        return made

    def _refuse(self, sites: Mapping[int, str], nodes: Iterable[int]) -> list[SiteFailure]:
        failures = [SiteFailure(site=sites[node], code=BAD_SUMS) for node in sorted(nodes)]
        for failure in failures:
            log.warning("harmonization: %s: %s (%s)", failure.site, failure.code, meaning_of(failure.code))
        return failures

    def hand_out(self, reference: Reference, sites: Mapping[int, str]) -> Answers[NodeFacts]:
        """Give the reference to sites; each fits its own scanners to it, and tells nothing of that."""
        return self._ask(REFERENCE, sites, lambda task: pack_reference_task(task, reference), unpack_facts, BAD_FACTS)

    def _moments(self, sites: Mapping[int, str]) -> Answers[Moments]:
        shape = len(column_names(self.settings)), len(self.settings.feature_names)

        def read(content: Content) -> Moments:
            return check_moments(unpack_moments(content, *shape), self.settings)

        return self._ask(MOMENTS, sites, pack_task, read, BAD_SUMS)

    def _residuals(self, sites: Mapping[int, str], slopes_QP: Floats) -> Answers[Residuals]:
        num_features = len(self.settings.feature_names)
        return self._ask(
            RESIDUALS,
            sites,
            lambda task: pack_slopes_task(task, slopes_QP),
            lambda content: unpack_residuals(content, num_features),
            BAD_SUMS,
        )

    def _ask(
        self,
        step: str,
        sites: Mapping[int, str],
        pack: Callable[[RoundTask], Content],
        read: Callable[[Content], T],
        bad: str,
    ) -> Answers[T]:
        """Put a step to sites; those that do not answer it are named in the log, as a study continues without them."""
        task = RoundTask(self.study, self.number)

        def expected(site: str, content: Content) -> T:
            sums = read(content)
            if isinstance(sums, Moments | Residuals):
                # A classification's facts count what trains the model; scanners are fitted to more visits.
                told = self.told.get(site) if self.study.task == "lesion-segmentation" else None
                check_count(sums.num_cases, told, self.study.rounds)
            return sums

        question = Question(f"query.{step}", lambda: pack(task), expected, bad)
        on_wait = partial(self.on_wait, self.number, f"harmonization ({step})")
        answers = ask(self.grid, sites, question, self.number, self.study.rounds, on_wait)
        self.say_failures(step, answers.failures)
        return answers

    def say_failures(self, step: str, failures: Iterable[SiteFailure]) -> None:
        """Name in the log who did not answer a step."""
        for failure in failures:
            log.warning("harmonization, %s: %s: %s (%s)", step, failure.site, failure.code, meaning_of(failure.code))

    def too_few(self, num_sites: int, failures: Iterable[SiteFailure]) -> RunError:
        """The error of too few sites."""
        why = "; ".join(f"{failure.site}: {failure.code} ({meaning_of(failure.code)})" for failure in failures)
        return RunError(
            f"harmonization: {num_sites} sites gave their sums, at least {MIN_SITES} are needed; "
            f"{why or 'no other site is connected'}; {WITHOUT}"
        )


def solve_first(moments: Mapping[int, Moments], settings: Harmonization) -> tuple[Floats, tuple[int, ...]]:
    """The slopes, and the nodes that had to be left out for them.

    Raises:
        RunError: too few cases, or a covariate that does not vary by itself.
    """
    columns = column_names(settings)
    expect_cases(sum(sums.num_cases - sums.num_scanners for sums in moments.values()), columns)
    return combine_without_culprits(
        lambda parts: finite_slopes(all_moments(list(parts.values()), settings), columns), moments, MIN_SITES
    )


def expect_cases(free: int, columns: Sequence[str]) -> None:
    """Refuse fewer cases, less one for each scanner, than the covariates need.

    Raises:
        RunError: there are fewer.
    """
    needed = CASES_PER_COLUMN * len(columns)
    if free < needed:
        raise RunError(
            f"harmonization: {free} cases, one taken off for each scanner, for {len(columns)} covariates; at least "
            f"{needed} are needed; {WITHOUT}"
        )


def reference_of(study: StudyConfig, together: Residuals, num_sites: int, slopes_QP: Floats) -> Reference:
    """The reference from what the second sums of so many sites come to.

    Raises:
        ValueError: no feature varies.
    """
    return make_reference(study.name, study.harmonization, [together], [together], slopes_QP, num_sites)


def load_reference(out: Path, settings: Harmonization) -> Reference | None:
    """The run's reference, or None before it is made.

    Raises:
        InputError: the file is damaged, or was made with other settings.
    """
    path = out / REFERENCE_FILE
    if not path.exists():
        return None
    reference = read_reference(path)
    if not reference.fits(settings):
        raise InputError(f"{path}: made with other settings of `harmonization`; a reference is frozen once made")
    return reference


def save_reference(out: Path, reference: Reference) -> None:
    """Keep the reference, whole or not at all."""
    write_text(out / REFERENCE_FILE, reference.model_dump_json(indent=1) + "\n")
    (out / _FIRST_FILE).unlink(missing_ok=True)
