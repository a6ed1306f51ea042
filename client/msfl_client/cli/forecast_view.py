"""A study played at a site before it starts, as a person sees it: under a bar, and in lines."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from msfl_client.features.cache import TABLE
from msfl_client.features.own_table import own_features
from msfl_client.rounds.forecast import Forecast, forecast
from msfl_client.rounds.forecast_words import budget_sentence, forecast_lines
from msfl_common.config.classification import DeepModel
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, in_brackets
from msfl_common.system.progress import progress_bars


def play_under_bar(site: SiteConfig, study: StudyConfig) -> tuple[Forecast | None, tuple[str, ...]]:
    """What the site will refuse or withhold, and who is left out; no forecast where the outcome is not measured yet."""
    settings, notes = study.classification, dict[str, None]()
    is_measured = own_features(site) is not None or (site.state / TABLE).exists()
    if settings is not None and settings.outcome.endpoint == "activity" and not is_measured:
        return None, ("activity is told by features of images, which are not measured: run `msfl-client features`",)
    with progress_bars() as bars:
        bar = bars.add_task("Playing the study", total=None, note="")

        def on_progress(_: str, what: str, done: int, total: int, note: str) -> None:
            if what == "checked" and note:
                notes[note] = None
            bars.update(bar, description=f"Playing the study: {what}", completed=done, total=total or None)

        needs_features = settings is not None and bool(settings.features) and not isinstance(settings.model, DeepModel)
        made = forecast(site, study, on_progress, has_features=needs_features and not is_measured, has_budget=True)
    return made, tuple(notes)


def print_forecast(console: Console, study: StudyConfig, made: Forecast | None, notes: tuple[str, ...]) -> None:
    """What of the study would not come about here."""
    lines = [*notes, *(forecast_lines([made]) if made is not None else ())]
    told = "by the rules that its rounds go by" if lines else "every step can be answered, and every figure told"
    console.print(Text(f"Study {study.name}, played here: {told}{':' if lines else '.'}"), soft_wrap=True)
    for line in lines:
        console.print(Text(f"  {line}", "yellow"), soft_wrap=True)
    if made is not None and made.budget is not None:
        console.print(Text(f"  {budget_sentence(made.budget)}"), soft_wrap=True)


def raise_if_hopeless(source: str, study: StudyConfig, made: Forecast | None) -> None:
    """Say in one line that nothing would come of taking part.

    Raises:
        InputError: the site would train in no round, or as the one that is left out, tell no figure.
    """
    refusal = made.hopeless(study) if made is not None else None
    if refusal is None:
        return
    says_itself = refusal.code is Code.POLICY and refusal.step == "taking part"  # `check`, of settings alone
    if not says_itself:
        why = f"{refusal.why}{in_brackets(refusal.code)}"
        raise InputError(f"{source}: nothing would come of study {study.name} here: {why}")
