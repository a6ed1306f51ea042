"""Who takes part in sums under masks: the roster of the sites' keys, made, handed out, and confirmed by their people.

It lies in the folder of the run, `roster.json`, before any site has it. A site that comes late, or has
lost its keys, makes another one, with another digest, which the people at all sites have to confirm again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from msfl_common.config.message_kinds import MASK_KEY, ROSTER
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError, InputError, RunError, UpdateError
from msfl_common.messages.masks import pack_roster_task, unpack_mask_key
from msfl_common.messages.records import Content, RoundTask, pack_task, unpack_facts
from msfl_common.secure_aggregation.roster import (
    FEWEST_SITES,
    Entry,
    entry_fault,
    make_roster,
    sharers,
    threshold_fault,
)
from msfl_common.secure_aggregation.roster import Roster as MaskRoster
from msfl_common.system.files import write_text
from msfl_common.system.reading import MOST_SETTINGS, parse_record
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.exchange import Grid, Question, ask, gather, presence
from msfl_server.rounds.failures import BAD_FACTS, BAD_KEY, UNCONFIRMED, meaning_of
from msfl_server.rounds.listener import Listener
from msfl_server.rounds.roster import Roster

ROSTER_FILE = "roster.json"
KEYS = "keys for masks"
CONFIRMING = "confirmation of the roster"  # what a run waits for while people compare digests

log = logging.getLogger(__name__)


@dataclass
class Masks:
    """What a run knows of the sites' keys.

    Attributes:
        grid: how the sites are reached.
        folder: of the run, all stages of it.
        out: of the stage, where its sums are kept.
        nodes: the nodes that have told their site's name.
        listener: told for whom it waits.
        roster: who takes part; None before it is made.
        keyed: sites that this process has asked for their key, and that have taken a roster with it.
        ready: sites that have confirmed the roster.
        waited_for: sites that a whole deadline was spent on, and that are only asked from then on.
    """

    grid: Grid
    folder: Path
    out: Path
    nodes: Roster
    listener: Listener
    roster: MaskRoster | None = None
    keyed: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    waited_for: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.roster = read_roster(self.folder)

    def prepare(self, task: RoundTask, may_change: bool) -> tuple[MaskRoster, tuple[SiteFailure, ...]]:
        """The roster, in the hands of every site that is there, and the sites that have not confirmed it.

        Args:
            task: of the round.
            may_change: whether it may become another one: not once anything was added up in this round.

        Raises:
            InputError: the study's threshold holds for no roster of these sites.
            RunError: too few sites have given their key.
        """
        present, failures = self.nodes.present(self.grid), []
        if may_change or self.roster is None:
            unknown = {node: name for node, name in present.items() if name not in self.keyed}
            failures += self._take_keys(task, unknown)
        assert self.roster is not None
        return self.roster, (*failures, *self._hand_out(task, present))

    def forget(self, sites: set[str]) -> None:
        """Ask sites for their key anew: they have lost what they had confirmed."""
        self.keyed -= sites
        self.ready -= sites

    def _take_keys(self, task: RoundTask, unknown: Mapping[int, str]) -> list[SiteFailure]:
        """Ask sites for their keys, and bring the roster up to what they answer."""
        failures: list[SiteFailure] = []
        entries = {entry.site: entry for entry in self.roster.sites} if self.roster else {}
        if unknown:
            question = Question(
                f"query.{MASK_KEY}", lambda: pack_task(task), partial(_entry, self.grid, task.study.name), BAD_KEY
            )
            answers = ask(self.grid, unknown, question, task.round, task.settings.rounds, self._on_wait(task, KEYS))
            failures = list(answers.failures)
            given = {entry.site: entry for entry in answers.replies.values() if entries.get(entry.site) != entry}
            twice = sharers([*(entry for site, entry in entries.items() if site not in given), *given.values()])
            failures += [SiteFailure(site=site, code=BAD_KEY) for site in sorted(twice & set(given))]
            entries |= {site: entry for site, entry in given.items() if site not in twice}
            self.keyed |= {entry.site for entry in answers.replies.values()}
        made = _roster_of(task.study, entries, failures)
        if self.roster is None or made.digest != self.roster.digest:
            write_text(self.folder / ROSTER_FILE, made.model_dump_json(indent=1) + "\n")
            log.info("roster of %s: %s; people at each site confirm it", ", ".join(made.names), made.digest)
            self.roster, self.ready, self.waited_for = made, set(), set()
        return failures

    def _hand_out(self, task: RoundTask, present: Mapping[int, str]) -> list[SiteFailure]:
        """Give the roster to those who have not confirmed it, and wait for their people, once."""
        assert self.roster is not None
        roster, left = self.roster, {*self.roster.names} - self.ready
        failures: list[SiteFailure] = []
        waited_for = left & self.waited_for
        for names, again in ((left - waited_for, frozenset({UNCONFIRMED})), (waited_for, frozenset[str]())):
            asked = {node: name for node, name in present.items() if name in names}
            question = Question(
                f"query.{ROSTER}",
                lambda: pack_roster_task(task, roster),
                lambda _, content: unpack_facts(content),
                BAD_FACTS,
                again=again,
            )
            if not asked:
                continue
            rounds, on_wait = task.settings.rounds, self._on_wait(task, CONFIRMING)
            answers = ask(self.grid, asked, question, task.round, rounds, on_wait)
            self.ready |= {asked[node] for node in answers.replies}
            self.waited_for |= {failure.site for failure in answers.failures}
            self.keyed -= {failure.site for failure in answers.failures if failure.code != UNCONFIRMED}
            failures += answers.failures
        return failures

    def _on_wait(self, task: RoundTask, what: str) -> Callable[[list[str], float], None]:
        return partial(self.listener.on_wait, task.round, what)


def open_masks(
    grid: Grid, study: StudyConfig, out: Path, stage: str, nodes: Roster, listener: Listener
) -> Masks | None:
    """What a stage's rounds need for sums under masks; None where the study has none.

    Before there is a roster, all expected sites are waited for as long as a round waits: each that comes later makes
    people everywhere confirm another.

    Raises:
        InputError: the run's roster is damaged.
    """
    if study.secure_aggregation.method != "masks":
        return None
    masks = Masks(grid, out if stage == "final" else out.parent, out, nodes, listener)
    if masks.roster is None and presence(grid) is not None:
        rounds = study.rounds.model_copy(update={"patience_s": study.rounds.deadline_s})
        gather(grid, nodes.expected, rounds, partial(listener.on_wait, 1, "coming online"))
    return masks


def read_roster(folder: Path) -> MaskRoster | None:
    """The roster of a run; None before it is made.

    Raises:
        InputError: it is damaged.
    """
    path = folder / ROSTER_FILE
    try:
        return parse_record(MaskRoster, path.read_bytes(), str(path), MOST_SETTINGS)
    except FileNotFoundError:
        return None
    except (OSError, ConfigError) as error:
        raise InputError(
            f"{path}: damaged ({' '.join(str(error).split())[:200]}); restore it from a backup, or take it away: then "
            "the people at all sites confirm another"
        ) from None


def _entry(grid: Grid, study: str, site: str, content: Content) -> Entry:
    """A site's key, signed by the key that the site was authorised with, where sites are.

    Raises:
        UpdateError: it is another's, or another key has signed it.
    """
    entry = unpack_mask_key(content)
    if entry.site != site:
        raise UpdateError("the key is another site's")
    if fault := entry_fault(study, entry):
        raise UpdateError(fault)
    registered_key = getattr(grid, "registered_key", None)
    if registered_key is not None and registered_key(site).split()[:2] != entry.site_key.split()[:2]:
        raise UpdateError("its key for masks is not of the key that the site was authorised with")
    return entry


def _roster_of(study: StudyConfig, entries: Mapping[str, Entry], failures: Sequence[SiteFailure]) -> MaskRoster:
    """The roster of these.

    Raises:
        InputError: the study's threshold holds for no roster of so many sites.
        RunError: they are too few.
    """
    settings, num_sites = study.secure_aggregation, len(entries)
    if num_sites < (needed := fewest_of(settings)):
        why = "; ".join(f"{failure.site}: {failure.code} ({meaning_of(failure.code)})" for failure in failures)
        raise RunError(
            f"secure_aggregation: {num_sites} sites have given their key, at least {needed} are needed; "
            f"{why or 'no other site is connected'}"
        )
    if fault := masks_fault(settings, num_sites):
        raise InputError(fault)
    return make_roster(study.name, list(entries.values()), settings.threshold_of(num_sites), settings.min_sites)


def fewest_of(settings: SecureAggregation) -> int:
    """Fewest sites of a roster."""
    return max(FEWEST_SITES, settings.min_sites, settings.threshold or 0)


def masks_fault(settings: SecureAggregation, num_sites: int) -> str | None:
    """Why there can be no sums under masks of so many sites; None where there can."""
    if num_sites < (needed := fewest_of(settings)):
        why = "" if needed > FEWEST_SITES else " (of two, each would learn the other's value)"
        return f"secure_aggregation: sums under masks need {needed} sites or more{why}, and {num_sites} take part"
    fault = threshold_fault(num_sites, settings.threshold_of(num_sites), settings.min_sites)
    return f"secure_aggregation.{fault}" if fault else None
