"""A study that measures a trained model: the sites are met, handed what they need, and asked once for figures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msfl_common.errors import RunError
from msfl_common.messages.records import RoundTask
from msfl_common.metrics.classification_curves import DEFAULT_THRESHOLD
from msfl_common.models.evaluated_model import check_evaluated
from msfl_common.models.model_folder import REFERENCE_FILE, read_reference
from msfl_common.models.model_signature import FILES, SIGNATURE_FILE
from msfl_common.system.files import whole_folder
from msfl_common.system.words import counted
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.results.case_counts import case_counts
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.received import Received
from msfl_server.results.summary import RoundSummary
from msfl_server.rounds.checkpoint import Checkpoint, RunState, load_checkpoint, save_checkpoint
from msfl_server.rounds.exchange import Grid
from msfl_server.rounds.failures import meaning_of
from msfl_server.rounds.final_model import MODEL_FOLDER
from msfl_server.rounds.harmonization import Harmonizer, load_reference, save_reference
from msfl_server.rounds.listener import Listener
from msfl_server.rounds.local_baselines import ask_baselines
from msfl_server.rounds.loop import share_reference
from msfl_server.rounds.mask_roster import open_masks
from msfl_server.rounds.measuring import validate_round
from msfl_server.rounds.one_round import OneRound, busy
from msfl_server.rounds.roster import Roster, meet_sites
from msfl_server.rounds.stage import StageRun
from msfl_server.rounds.sum_store import drop_sums


def run_evaluation(grid: Grid, run: StageRun, listener: Listener, expected: Sequence[str] = ()) -> Checkpoint:
    """Have a model measured, unless it was; its folder is then the run's.

    Args:
        grid: how the sites are reached.
        run: of a study that measures a model.
        listener: told what happens.
        expected: sites to wait for, where sites come and go.

    Raises:
        RunError: fewer sites told figures than the quorum; asked again, they tell the same.
        InputError: the model's folder is no longer what it was.
    """
    out, started = run.out, time.monotonic()
    checkpoint = load_checkpoint(out, run.study, expected=run.first) or Checkpoint(RunState(), run.first)
    run_id = listener.on_start(checkpoint.state)
    vars(grid)["received"] = Received(out)  # as a deployed grid's notary: who counts what comes
    roster = Roster(expected=tuple(expected), invited=tuple(expected))
    if not checkpoint.state.round:
        assert run.model is not None
        state = _measure(grid, run, run.model, listener, roster)
        spent = {"total_s": time.monotonic() - started, "mlflow_run_id": run_id}
        checkpoint = Checkpoint(state.model_copy(update=spent), run.first)
        _keep_model(run.model, out / MODEL_FOLDER)
        save_checkpoint(out, checkpoint)
        drop_sums(out)
        listener.on_round(checkpoint.state)
    ask_baselines(grid, RoundTask(run.study, 1), run.first, roster, out, listener)
    return checkpoint


def _measure(grid: Grid, run: StageRun, model: Path, listener: Listener, roster: Roster) -> RunState:
    """The one round: the sites met, brought to the model's reference, and their figures of its weights."""
    started, study, out, task = time.monotonic(), run.study, run.out, RoundTask(run.study, 1)
    card = check_evaluated(study, model)
    masks = open_masks(grid, study, out, "final", roster, listener)
    meet_sites(grid, task, roster, listener)
    if study.harmonization.method != "none":
        reference = load_reference(out, study.harmonization) or read_reference(model / REFERENCE_FILE)
        save_reference(out, reference)
        share_reference(Harmonizer(grid, study, 1, listener.on_wait), reference, out, roster, masks)
    before = Checkpoint(RunState(), run.first)
    this = OneRound(grid, task, strategy_of(study), out, roster, before, listener, roster.present(grid), masks)
    threshold = None if study.classification is None else card.threshold
    of_test = replace(task, split="test", threshold=DEFAULT_THRESHOLD if threshold is None else threshold)
    told, failures = validate_round(this, of_test, run.first, this.present)
    silent = {failure.site for failure in failures}
    sites = tuple(sorted({*this.present.values()} - silent)) if told else ()
    failures = tuple(sorted((*roster.absent, *failures), key=lambda one: (one.site, one.code)))
    if len(sites) < study.rounds.quorum:
        why = "; ".join(f"{one.site}: {one.code} ({meaning_of(one.code)})" for one in failures)
        raise RunError(
            f"{counted(len(sites), 'site')} measured the model, the quorum is {study.rounds.quorum}; "
            f"{why or 'no other site is connected'}. Mend the sites and resume: those that measured it tell the same"
        )
    metrics = summarise_metrics(told)
    record = RoundSummary(
        round=1,
        train_loss=None,
        metrics={name: metric.mean for name, metric in metrics.items()},
        per_site={name: {site: one.mean for site, one in metric.per_site.items()} for name, metric in metrics.items()},
        sites_ok=sites,
        sites_failed=failures,
        seconds=time.monotonic() - started,
    )
    return RunState(
        round=1,
        history=(record,),
        sites=case_counts((), dict.fromkeys(told, 0), told if study.classification is None else {}),
        test=told,
        threshold=threshold,
        rounds_s=record.seconds,
        busy_s=busy(grid, [one.seconds for one in told.values()]),
    )


def _keep_model(source: Path, target: Path) -> None:
    """Copy a model's files, its signature with them."""
    if source == target:
        return
    with whole_folder(target) as temporary:
        for name in (*FILES, SIGNATURE_FILE):
            if (source / name).is_file():
                (temporary / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / name, temporary / name)
