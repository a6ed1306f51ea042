"""What a person sees of a run: one bar for the rounds and one for each site at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID
from rich.text import Text

from msfl_common.config.stages import Stage
from msfl_common.metrics.registry import HEADLINE
from msfl_common.system.progress import alert, console, progress_bars
from msfl_server.results.summary import RoundSummary
from msfl_server.rounds.checkpoint import RunState

ONLINE = "coming online"  # what a round waits for before it begins
_WORDS = {
    "facts": "looking through the cases of",
    "training": "training at",
    "validation": "validation at",
    "test": "test at",
    "keys for masks": "keys for masks of",
    "shares": "opening the sum with",
    "checking": "reading {total} cases",
    "preparing": "caching {total} cases for the network",
    "features": "measuring features of {total} cases",
}


class SiteDisplay:
    """A bar for each site at work; where stderr is no terminal, a line for each thing that one begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._sites: dict[str, TaskID] = {}
        self._told: set[tuple[str, str]] = set()
        self._begun: set[str] = set()

    def on_progress(self, site: str, what: str, done: int, total: int, note: str) -> None:
        """A site at work; see `msfl_client.rounds.site_context.OnProgress`."""
        if what in ("checked", "refused") and (site, note) not in self._told:
            self._told.add((site, note))  # what is so in every round is told in the first
            (alert if what == "refused" else console.print)(f"{site}: {note}")
        elif what in _WORDS and "{total}" in _WORDS[what] and total:
            self._word(f"{site}: {_WORDS[what].format(total=total)}")
        if site not in self._sites:
            self._sites[site] = self._progress.add_task("", note="")
        self._progress.update(self._sites[site], description=f"  {site} {what}", completed=done, total=total, note=note)

    def say(self, sentence: str | None) -> None:
        """A line for people, if there is one."""
        if sentence is not None:
            console.print(sentence, soft_wrap=True)

    def _word(self, line: str) -> None:
        """What is begun, once, where no bar shows it."""
        if self._progress.disable and line not in self._begun:
            self._begun.add(line)
            self.say(line)


class RunDisplay(SiteDisplay):
    """Progress of one run; draws nothing where stderr is no terminal."""

    def __init__(self, progress: Progress, num_rounds: int) -> None:
        super().__init__(progress)
        self._rounds = progress.add_task("rounds", total=num_rounds, note="")
        self._is_first, self._waits_for = True, ""
        self._is_staged = False

    def doing(self, what: str) -> None:
        """What is being done before the rounds, that no site does."""
        self._word(what)
        self._progress.update(self._rounds, note=what)

    def on_stage(self, stage: Stage, num_rounds: int) -> None:
        """A stage of the run: its name, and the bar from the start; a line, where a run has several."""
        what = "rounds" if stage == "final" else f"rounds of {stage}"
        if stage != "final" or self._is_staged:
            self.say(f"rounds of {'the outcome' if stage == 'final' else stage}, at most {num_rounds}")
            self._is_staged = True
        self._progress.reset(self._rounds, total=num_rounds, description=what, note="")

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:  # noqa: ARG002
        """Name whom the round waits for."""
        named = ", ".join(sites)
        note = f"waiting for {named} to come online" if what == ONLINE else f"waiting for {what} of {named}"
        self._progress.update(self._rounds, note=note if sites else "")
        if sites and self._is_first and what not in (ONLINE, self._waits_for):
            self._word(f"round {number}: {_WORDS.get(what, f'{what} at')} {named}")
        self._waits_for = what

    def on_round(self, state: RunState) -> None:
        """A completed round."""
        self.show(state.history[-1])

    def show(self, record: RoundSummary) -> None:
        """Move the bar, and leave a line: what was learned, and how many of the sites that were expected answered."""
        figures = [f"loss {record.train_loss:.3f}"] if record.train_loss is not None else []
        figures += [
            f"{title} {record.metrics[name]:.3f}"
            for titles in HEADLINE.values()
            for name, title in titles.items()
            if name in record.metrics
        ]
        num_expected = len({*record.sites_ok, *(failure.site for failure in record.sites_failed)})
        sites = f"{len(record.sites_ok)} of {num_expected} sites"
        codes = dict.fromkeys(f"  {failure.site}: {failure.code}" for failure in record.sites_failed)
        back = f"  came apart, set back to round {record.set_back_to}" if record.set_back_to else ""
        best = "  best so far" if record.is_best else ""
        odd = "".join(f"  {site}: its update stands out ({why})" for site, why in record.odd.items())
        told = f"round {record.round:3d}  {'  '.join(figures)}  {sites}  {record.seconds:.1f} s{best}"
        console.print(Text.assemble(told, ("".join(codes), "yellow"), (odd, "yellow"), (back, "red")), soft_wrap=True)
        self._progress.update(self._rounds, completed=record.round)
        self._is_first = False


@contextmanager
def run_display(num_rounds: int) -> Iterator[RunDisplay]:
    """A display for one run."""
    with progress_bars() as progress:
        yield RunDisplay(progress, num_rounds)


@contextmanager
def site_display() -> Iterator[SiteDisplay]:
    """A display for sites that look through their cases, before a run."""
    with progress_bars() as progress:
        yield SiteDisplay(progress)
