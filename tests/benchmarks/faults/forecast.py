"""What a site forecasts that it will refuse or withhold, against what it refused and withheld in the run."""

from __future__ import annotations

import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from msfl_client.rounds.forecast import Forecast, Step
from msfl_client.rounds.site_context import open_context
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import is_asked_to
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, RunError
from msfl_common.messages.records import ValidationMetrics
from msfl_common.metrics.registry import STRATA, TASK_METRICS
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulation.federation import simulate
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.research.simulation.foresight import expect_answers, foresee_run
from msfl_server.results.summary import RoundSummary
from msfl_server.rounds.checkpoint import RunState, read_state
from msfl_server.rounds.stage import StageRun
from tests.benchmarks.faults.random_studies import random_study
from tests.benchmarks.figure import Figure
from tests.benchmarks.simulated_rounds import Silence, tell_nobody

FIRST_SEED, NUM_STUDIES, MOST_DRAWN = 93800, 30, 120


def measure() -> list[Figure]:
    """Studies whose forecast is what came about, each site, round and metric of it.

    They are drawn until 30 have run to their end: of one that does not begin, nothing else is forecast.
    """
    wrong: dict[int, list[str]] = {}
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(FIRST_SEED, FIRST_SEED + MOST_DRAWN):
            wrong[seed] = list(faults_of(seed, Path(folder) / str(seed), counts))
            open_context.cache_clear()
            if counts["started"] == NUM_STUDIES:
                break
    right = sum(not faults for faults in wrong.values())
    told = "; ".join(f"{seed}: {faults[0]}" for seed, faults in wrong.items() if faults)
    how = (
        f"seeds {min(wrong)} to {max(wrong)}: one study in five of images, the others of the kinds of feature models "
        f"in turn; {counts['started']} ran to their end, and in the others a round was forecast to fail and did; "
        f"{counts['refusals']} steps refused, {counts['withheld']} metrics withheld and {counts['told']} told as "
        f"forecast, {counts['depends']} left to the model; {told or 'none wrong'}"
    )
    begun = "random studies that ran to their end"
    return [
        Figure("random studies whose forecast is what the run withheld", right, "", len(wrong), "at_least", "", how),
        Figure(begun, counts["started"], "", NUM_STUDIES, "at_least", "", f"of {len(wrong)} drawn"),
    ]


def faults_of(seed: int, folder: Path, counts: Counter[str] | None = None) -> Iterator[str]:
    """Where forecast and run of a random study differ, in words."""
    counts = Counter() if counts is None else counts
    study, sites = random_study(seed, folder)
    forecasts = foresee_run(RunSetup(study=study, sites=sites), tell_nobody)
    try:
        expect_answers(study, forecasts)
        starts = True
    except InputError:
        starts = False
    try:
        error = _run(study, sites, folder / "run")
    except Exception:  # no refusal, whatever was forecast
        yield traceback.format_exc(limit=-1).strip().splitlines()[-1]
        return
    state = read_state(folder / "run") if (folder / "run" / "checkpoints").exists() else RunState()
    if starts != (error is None):
        yield f"forecast to {'end' if starts else 'fail'}, but {error or 'it ended'}"
    if error is not None:
        return  # nothing else is claimed of a run that is not to begin
    counts["started"] += 1
    for one in forecasts:
        yield from _of_site(one, study, state, counts)


def _run(study: StudyConfig, sites: tuple[SiteConfig, ...], out: Path) -> str | None:
    """Run the study as it is; the refusal that ended it before its time."""
    try:
        simulate(StageRun(study, starting_weights(study), out), sites, "inprocess", Silence(), tell_nobody)
    except (RunError, InputError) as error:
        return str(error)
    return None


def _of_site(one: Forecast, study: StudyConfig, state: RunState, counts: Counter[str]) -> Iterator[str]:
    learns, tests = is_asked_to("train", study, one.site), is_asked_to("test", study, one.site)
    for record in state.history:
        if learns:
            yield from _compare(one, record, "training", counts)
    last = state.history[-1]
    if learns:
        yield from _compare(one, last, "validation", counts)
        yield from _metrics(one, study, "validation", state.validation.get(one.site), counts)
    if tests and study.classification is not None:
        yield from _compare(one, last, "test", counts)
        yield from _metrics(one, study, "test", state.test.get(one.site), counts)


def _compare(one: Forecast, record: RoundSummary, step: Step, counts: Counter[str]) -> Iterator[str]:
    """A step that is refused in a round, or not."""
    expected = one.refused(step, record.round)
    found = [
        failure.code for failure in record.sites_failed if failure.site == one.site and failure.step in (step, None)
    ]
    if found[:1] != ([expected.code] if expected is not None else []):
        yield f"{one.site}, {step}, round {record.round}: forecast {expected and expected.code}, found {found}"
    counts["refusals"] += expected is not None


def _metrics(
    one: Forecast, study: StudyConfig, step: Step, told: ValidationMetrics | None, counts: Counter[str]
) -> Iterator[str]:
    """Metrics that are told, or not, of a split."""
    if told is None:
        return
    withheld = {name for part in one.withheld if part.step == step for name in part.metrics}
    depends = {name for part in one.depends if part.step == step for name in part.metrics}
    sure = set(TASK_METRICS[study.task]) - STRATA.keys() - withheld - depends
    if wrong := (set(told.estimates) & withheld) | (sure - set(told.estimates)):
        yield f"{one.site}, {step}: {sorted(wrong)} forecast otherwise"
    counts["withheld"] += len(withheld)
    counts["told"] += len(sure)
    counts["depends"] += len(depends)
