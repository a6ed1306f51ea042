"""One run, simulated or among real sites, from its first round to its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from msfl_common.config.stages import Stage, stages_of
from msfl_common.config.study import StudyConfig
from msfl_common.harmonization import Reference
from msfl_common.models.first_weights import kept_start
from msfl_common.models.model_signature import ModelSigner
from msfl_common.models.weights import Weights
from msfl_server.report.page import Overlay, write_report
from msfl_server.results.harmonization_effect import HarmonizationEffect
from msfl_server.results.local_baselines import read_baselines
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.summary import Summary, read_summary, write_summary
from msfl_server.rounds.checkpoint import RunState, load_checkpoint
from msfl_server.rounds.harmonization import load_reference
from msfl_server.rounds.loop import Listener
from msfl_server.rounds.stage import Segmentation, StageRun, folder_of
from msfl_server.run.found import has_ended
from msfl_server.run.summarise import summarise_run
from msfl_server.tracking.mlflow_tracker import Tracker, own_store, track

STORE_PATIENCE_S = 120.0  # MLflow's server takes half a minute to start again on a slow machine


class Display(Protocol):
    """Who shows a run to people."""

    def on_stage(self, stage: Stage, num_rounds: int) -> None:
        """A stage of so many rounds begins, or is gone on with."""

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        """See `msfl_server.rounds.loop.Listener`."""

    def on_round(self, state: RunState) -> None:
        """See `msfl_server.rounds.loop.Listener`."""


class RunListener:
    """Passes a run's events to people and to MLflow."""

    def __init__(
        self,
        display: Display,
        study: StudyConfig,
        out: Path,
        uri: str | None,
        stack: ExitStack,
        patient: bool = False,
    ) -> None:
        """`patient`: continue while MLflow cannot be reached; see `track`."""
        self._display = display
        self._stack = stack
        self._uri, self._out, self._study, self._patient = uri, out, study, patient
        self._tracker: Tracker | None = None

    @property
    def tracker(self) -> Tracker:
        """The MLflow run, open from the start of the rounds on."""
        assert self._tracker is not None
        return self._tracker

    def on_start(self, state: RunState) -> str | None:
        """Open the run's MLflow run, a new one or the one it had."""
        self._tracker = self._stack.enter_context(
            track(self._uri, self._out, self._study, state.mlflow_run_id, self._patient)
        )
        self._track(state)  # MLflow may have missed rounds before a kill
        return self._tracker.run_id

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        """Show whom the round waits for."""
        self._display.on_wait(number, what, sites, left_s)

    def on_round(self, state: RunState) -> str | None:
        """Show and track a completed round; the MLflow run may be opened only now."""
        self._display.on_round(state)
        self._track(state)
        return self.tracker.run_id

    def _track(self, state: RunState) -> None:
        if state.history:
            *earlier, last = state.history
            measured = state.validation or state.test  # a study that measures a model has a test alone
            self.tracker.log_round(last, summarise_metrics(measured) if last.metrics else {}, earlier)


def run_stages(
    study: StudyConfig,
    first_of: Callable[[Stage, Path], Weights],
    out: Path,
    tracking_uri: str | None,
    display: Display,
    run_rounds: Callable[[StageRun, Listener], None],
    overlays: Callable[[StageRun], Sequence[Overlay]] = lambda _: (),
    effect: Callable[[Reference], HarmonizationEffect | None] = lambda _: None,
    patient: bool = False,
    signer: ModelSigner | None = None,
    model: Path | None = None,
) -> Summary:
    """Run what is left of a study's stages, one after the other: a stage that is complete passes at once.

    A segmentation has all files of a run of its own in `out/segmentation` (`out/segmentation-1` without the first
    fold, and so on), and an experiment and a registered model of its own in the study's MLflow store.

    Args:
        study: the whole of it.
        first_of: the weights that a stage starts from, and may keep in its folder.
        out: the run's folder.
        tracking_uri: any MLflow URI; None for SQLite in `out`.
        display: shows the rounds to people.
        run_rounds: runs the rounds of a stage, telling the listener.
        overlays: see `run_and_report`.
        effect: see `run_and_report`.
        patient: see `run_and_report`.
        signer: signs the models of all stages; see `StageRun`.
        model: the folder of the model that a study measures.

    Returns:
        The summary of the last stage.

    Raises:
        RunError: the quorum was missed; the summary of the completed rounds is written all the same.
    """
    segmentation: Segmentation | None = None
    for stage in stages_of(study):
        folder = folder_of(stage, out)
        stage_run = StageRun(study, first_of(stage, folder), folder, stage, segmentation, signer, model)
        display.on_stage(stage, stage_run.settings.rounds.num_rounds)
        if stage == "final":
            return run_and_report(stage_run, tracking_uri, display, run_rounds, overlays, effect, patient)
        run_and_report(stage_run, tracking_uri or own_store(out), display, run_rounds, overlays, effect, patient)
        segmentation = stage_run.outcome()
    raise AssertionError("a study ends with its final stage")


def run_and_report(
    stage_run: StageRun,
    tracking_uri: str | None,
    display: Display,
    run_rounds: Callable[[StageRun, Listener], None],
    overlays: Callable[[StageRun], Sequence[Overlay]] = lambda _: (),
    effect: Callable[[Reference], HarmonizationEffect | None] = lambda _: None,
    patient: bool = False,
) -> Summary:
    """Run the rounds of a stage that are left, then write its summary, report and registered model.

    Args:
        stage_run: the stage.
        tracking_uri: any MLflow URI; None for SQLite in the stage's folder.
        display: shows the rounds to people.
        run_rounds: runs the rounds, telling the listener.
        overlays: example images for the report; none where images stay at the sites.
        effect: what a harmonization changed, for the report; unknown where features stay at the sites.
        patient: continue while MLflow cannot be reached; see `track`.

    Raises:
        RunError: the quorum was missed; the summary of the completed rounds is written all the same.
    """
    study, out = stage_run.settings, stage_run.out
    with ExitStack() as stack:
        listener = RunListener(display, study, out, tracking_uri, stack, patient)
        try:
            run_rounds(stage_run, listener)
        finally:
            summary = _summarise(study, stage_run.first, out)
        if patient:
            listener.tracker.catch_up(STORE_PATIENCE_S)
        reference = load_reference(out, study.harmonization)
        report = write_report(
            out,
            summary,
            study,
            overlays(stage_run),
            reference,
            effect(reference) if reference is not None else None,
            read_summary(handed.model.parent) if (handed := stage_run.handed) else None,
        )
        listener.tracker.log_report(report)
        if summary.differential_privacy is not None:
            listener.tracker.log_privacy(summary.differential_privacy, summary.rounds_completed)
        if summary.evaluated is None:  # the one round of such a study has its figures
            listener.tracker.log_final(summary.split, summary.metrics, summary.rounds_completed)
        if summary.chosen is not None:
            listener.tracker.log_choice(summary.choice_in_words)
        listener.tracker.log_model(out / summary.model)
    return summary


def _summarise(study: StudyConfig, first: Weights, out: Path) -> Summary:
    """Write `summary.json` from the newest checkpoint."""
    checkpoint = load_checkpoint(out, study, expected=first)
    state, weights = (checkpoint.state, checkpoint.weights) if checkpoint else (RunState(), None)
    summary = summarise_run(study, state, weights)
    changes = {
        "finished": has_ended(out, summary),
        "local_baselines": read_baselines(out),
        "started_from": kept_start(out),
    }
    summary = summary.model_copy(update=changes)
    write_summary(out, summary)
    return summary
