"""One run on this machine, among virtual sites."""

from __future__ import annotations

from pathlib import Path

from msfl_common.config.stages import Stage, stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.harmonization import Reference
from msfl_common.models.deep_models.start import missing_start
from msfl_common.models.first_weights import FIRST_FILE, first_content, kept_first, kept_start
from msfl_common.models.starting_weights import say_start, started, starting_weights
from msfl_common.models.weights import Weights
from msfl_common.system.progress import alert
from msfl_common.system.words import counted
from msfl_server.research.simulation.federation import Backend, Tamper, simulate
from msfl_server.research.simulation.folder import SITES_FOLDER, RunSetup, unclaim_folder
from msfl_server.research.simulation.foresight import expect_answers, foresee_run, say_forecasts
from msfl_server.research.simulation.overlays import example_overlays
from msfl_server.results.harmonization_effect import HarmonizationEffect
from msfl_server.results.summary import Summary
from msfl_server.rounds.stage import evaluated_folder, folder_of, own_start
from msfl_server.run.display import run_display
from msfl_server.run.run import run_stages


def run_simulated(
    setup: RunSetup, out: Path, backend: Backend, tracking_uri: str | None, tamper: Tamper | None = None
) -> Summary:
    """Run or resume a simulation, then write its summary, report and registered model; `tamper` as in `simulate`.

    Raises:
        RunError: the quorum was missed; the summary of the completed rounds is written all the same.
        InputError: so many sites will refuse the first round that it cannot count.
    """
    model = evaluated_folder(out, setup.model) if setup.study.evaluate is not None else None
    start_from = model or setup.start_from or own_start(setup.study, out)

    def first_of(stage: Stage, folder: Path) -> Weights:
        study = study_at(setup.study, stage)
        if stage != "final" or start_from is None or study.evaluate is not None:
            return starting_weights(study, start_from if stage == "final" else None)
        first = kept_first(folder / FIRST_FILE, lambda: first_content(*started(study, start_from)))
        display.say(say_start(study, start_from, kept_start(folder)))
        return first

    with run_display(setup.study.rounds.num_rounds) as display:
        display.say(missing_start(setup.study, start_from))
        if not has_begun(setup.study, out):
            display.doing("looking through the sites' cases")
            forecasts = foresee_run(setup, display.on_progress)
            say_forecasts(setup.study, forecasts, alert)
            if left := len(setup.sites) - len(forecasts):
                display.say(f"{counted(left, 'site')} that round 1 does not ask are looked through once asked")
            try:
                expect_answers(setup.study, forecasts)
            except InputError:
                unclaim_folder(out)
                if (out / SITES_FOLDER).exists():
                    display.say(f"What was looked through is kept in {out / SITES_FOLDER}, and taken by the next run.")
                raise
        display.doing("opening MLflow's store")
        return run_stages(
            setup.study,
            first_of,
            out,
            tracking_uri,
            display,
            lambda stage_run, listener: simulate(
                stage_run, setup.sites, backend, listener, display.on_progress, tamper
            ),
            lambda stage_run: example_overlays(setup, stage_run),
            lambda reference: _effect(setup, reference),
            model=model,
        )


def has_begun(study: StudyConfig, out: Path) -> bool:
    """Whether a round of a run is complete."""
    return (folder_of(stages_of(study)[0], out) / "checkpoints").exists()


def _effect(setup: RunSetup, reference: Reference) -> HarmonizationEffect | None:
    from msfl_server.research.simulation.harmonization_cases import (
        effect_of_run,  # loads scikit-learn, which few runs need
    )

    return effect_of_run(setup, reference)
