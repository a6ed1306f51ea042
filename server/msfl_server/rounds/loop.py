"""The coordinator's story: meet the sites, then round by round train, aggregate, validate, checkpoint.

The loop is ours because Flower's `Strategy.start` always begins at round 1 and so cannot resume; the messages
and the averaging are Flower's.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from msfl_common.config.frozen_layers import frozen_names
from msfl_common.config.stages import Stage, is_measured_apart, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RunError
from msfl_common.harmonization import Reference
from msfl_common.messages.records import RoundTask, ValidationMetrics
from msfl_common.models.model_signature import ModelSigner
from msfl_common.models.weights import Weights
from msfl_common.privacy_accounting import tells_loss
from msfl_common.system.words import counted
from msfl_server.aggregation.combined import Combined
from msfl_server.aggregation.strategy import Strategy, strategy_of
from msfl_server.results.case_counts import case_counts
from msfl_server.results.classification import threshold_of
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.received import Received
from msfl_server.results.summary import RoundSummary, SiteFailure, UpdateSummary
from msfl_server.rounds.best_round import best_after, handed_out, has_waited
from msfl_server.rounds.checkpoint import BestRound, Checkpoint, RunState, load_checkpoint, save_checkpoint
from msfl_server.rounds.exchange import Grid
from msfl_server.rounds.failures import BAD_UPDATE, NO_ANSWER, NOT_ONLINE, WENT_OFFLINE, meaning_of
from msfl_server.rounds.final_model import save_models
from msfl_server.rounds.gathering import gather_sum, gather_updates
from msfl_server.rounds.harmonization import Harmonizer, load_reference, save_reference
from msfl_server.rounds.harmonization_sums import learn_from_sums
from msfl_server.rounds.listener import Listener as Listener
from msfl_server.rounds.local_baselines import ask_baselines
from msfl_server.rounds.mask_roster import Masks, open_masks
from msfl_server.rounds.measuring import Others, measure_others, validate_round
from msfl_server.rounds.one_round import OneRound, asked_to, at_step, busy
from msfl_server.rounds.rollback import collapsed, diverged, last_good
from msfl_server.rounds.roster import Roster, meet_sites
from msfl_server.rounds.sampling import awaited
from msfl_server.rounds.stage import Segmentation
from msfl_server.rounds.sum_store import drop_sums
from msfl_server.rounds.suspension import suspended
from msfl_server.rounds.trained_round import (
    TrainedRecord,
    TrainedRound,
    drop_trained,
    load_trained,
    save_record,
    save_trained,
    weights_sha256,
)


def run_rounds(
    grid: Grid,
    whole: StudyConfig,
    first: Weights,
    out: Path,
    listener: Listener,
    expected: Sequence[str] = (),
    stage: Stage = "final",
    segmentation: Segmentation | None = None,
    signer: ModelSigner | None = None,
) -> Checkpoint:
    """Run what is left of the rounds of a study, or of one stage; each completed round is a checkpoint under `out`.

    Args:
        grid: how the sites are reached.
        whole: the study, all stages of it.
        first: the weights that the stage starts from.
        out: folder of checkpoints and model.
        listener: told what happens.
        expected: sites to wait for before the first round, where sites come and go; a resumed run waits for
            those of its last round.
        stage: what of the study is run.
        segmentation: what the stage before has trained; each site is handed it, and it goes into the model's folder.
        signer: signs the model's folder.

    Raises:
        RunError: a round had fewer answers than the quorum. All completed rounds are on disk.
    """
    started, study = time.monotonic(), study_at(whole, stage)
    strategy = strategy_of(study)
    checkpoint = load_checkpoint(out, study, expected=first) or Checkpoint(RunState(), strategy.shared(first))
    before_s = checkpoint.state.total_s
    run_id = listener.on_start(checkpoint.state)
    vars(grid)["received"] = Received(out)  # as a deployed grid's notary: who counts what comes
    roster = Roster(
        expected=awaited(study, expected, checkpoint.state.history),
        invited=tuple(expected),
        lesions=segmentation.weights if segmentation else None,
    )
    reference = load_reference(out, study.harmonization)
    masks = open_masks(grid, study, out, stage, roster, listener)
    for number in range(checkpoint.state.round + 1, study.rounds.num_rounds + 1):
        if strategy.is_finished(checkpoint.weights) or has_waited(study, checkpoint.state.best):
            break
        task = RoundTask(whole, number, stage=stage)
        roster.suspended = suspended(checkpoint.state.history, study.rounds.suspend_after)
        meet_sites(grid, task, roster, listener)
        if study.harmonization.method != "none":
            harmonizer = Harmonizer(grid, study, number, listener.on_wait, roster.told)
            reference = share_reference(harmonizer, reference, out, roster, masks)
        result = run_round(grid, task, strategy, out, roster, checkpoint, listener, masks)
        state = result.state.model_copy(
            update={"total_s": before_s + time.monotonic() - started, "mlflow_run_id": run_id}
        )
        checkpoint = Checkpoint(state, result.weights, result.sets)
        save_checkpoint(out, checkpoint)
        drop_trained(out)
        drop_sums(out)
        run_id = listener.on_round(checkpoint.state) or run_id
        roster.expected = awaited(study, expected, checkpoint.state.history)
    if study.baselines.local:  # the final stage's alone
        weights = handed_out(out, study, checkpoint.state.best, checkpoint.state.round, checkpoint.weights)
        last = RoundTask(whole, checkpoint.state.round, stage=stage)
        ask_baselines(grid, last, weights, roster, out, listener)
    save_models(out, study, first, checkpoint, reference, segmentation, signer)
    return checkpoint


def share_reference(
    harmonizer: Harmonizer, reference: Reference | None, out: Path, roster: Roster, masks: Masks | None
) -> Reference:
    """The reference of the harmonization, made when there is none yet, in the hands of every site that is there.

    A site that does not take it keeps training; it is asked again before the next round.
    """
    present = roster.present(harmonizer.grid)
    if reference is None:
        learners = asked_to("train", harmonizer.study, present)
        reference = harmonizer.learn(learners, out) if masks is None else learn_from_sums(harmonizer, masks, learners)
        save_reference(out, reference)
    without = {node: name for node, name in present.items() if node not in roster.harmonized}
    if without:
        roster.harmonized |= set(harmonizer.hand_out(reference, without).replies)
    return reference


def run_round(
    grid: Grid,
    task: RoundTask,
    strategy: Strategy,
    out: Path,
    roster: Roster,
    before: Checkpoint,
    listener: Listener,
    masks: Masks | None = None,
) -> Checkpoint:
    """One round: train at the sites, check and combine their updates, measure the result at the sites.

    A model that comes apart, in what the sites measure or because they cannot train from it, is set back to the last
    good one.

    Raises:
        RunError: fewer usable updates than the quorum, or a model that came apart too often.
    """
    this = OneRound(grid, task, strategy, out, roster, before, listener, roster.present(grid), masks)
    trained = load_trained(out, before, strategy.sets_like)
    if trained is None:
        trained = train_at_sites(this)
        save_trained(out, trained)
    return measure_at_sites(this, trained)


def train_at_sites(this: OneRound) -> TrainedRound:
    """The first half of a round.

    Raises:
        FutileRunError: a class without a case, after the answers of all sites.
        RunError: fewer usable updates than the quorum, or a model that came apart too often.
    """
    started, task, before, strategy = time.monotonic(), this.task, this.before, this.strategy
    study, number = task.settings, task.round
    learners = asked_to("train", task.study, this.present)
    got = gather_updates(this, learners) if this.masks is None else gather_sum(this, this.masks, learners)
    absent = (one for one in this.roster.absent if one.code != NOT_ONLINE or one.site not in got.answered)
    failures = (*absent, *at_step("training", got.failures))
    this.roster.forget([failure.site for failure in failures if failure.code == BAD_UPDATE])
    combined = got.combined
    set_back: Checkpoint | None = None
    if combined is None:
        if not (before.state.good and strategy.can_go_back and diverged(got.failures, len(learners))):
            raise RunError(_too_few(number, study.rounds.quorum, got.sites, failures))
        set_back = last_good(this.out, before, study)
        combined = Combined(set_back.weights, set_back.sets, None)
    record = TrainedRecord(
        round=number,
        started_from=weights_sha256(before.weights),
        train_cases=dict(got.cases),
        sites=tuple(got.sites),
        loss=combined.loss,
        failures=failures,
        busy_s=busy(this.grid, got.seconds),
        seconds=time.monotonic() - started,
        is_set_back=set_back is not None,
        training=dict(got.training),
        updates={site: UpdateSummary(**asdict(one)) for site, one in got.figures.items()},
    )
    held = frozen_names(study, number, before.weights) if set_back is None else frozenset()
    weights = {name: before.weights[name] if name in held else value for name, value in combined.weights.items()}
    return TrainedRound(record, weights, combined.sets)


def measure_at_sites(this: OneRound, combined: TrainedRound) -> Checkpoint:
    """The second half of a round: validation where it is due, after the last round the test, and what is kept."""
    started, task, before, strategy = time.monotonic(), this.task, this.before, this.strategy
    study, number = task.settings, task.round
    trained, failures = combined.record, combined.record.failures
    set_back = last_good(this.out, before, study) if trained.is_set_back else None
    validation: Mapping[str, ValidationMetrics] = {}
    test: Mapping[str, ValidationMetrics] = {}
    threshold, best, others = None, before.state.best, Others()
    ends = number == study.rounds.num_rounds or strategy.is_finished(combined.weights)
    if number % study.validation.every_rounds == 0 or ends:
        # A site given up in training is not waited for a second time.
        given_up = {failure.site for failure in failures if failure.code in (NO_ANSWER, WENT_OFFLINE)}
        asked = {node: name for node, name in this.present.items() if name not in given_up}
        if trained.validation is None:
            learners = asked_to("train", task.study, asked)
            validation, more = validate_round(this, task, combined.weights, learners)
            if ends:
                _expect_fits(study, number, learners.values(), more)
            failures = (*failures, *more)
        else:
            validation = trained.validation
        if strategy.can_go_back and collapsed(study.task, before.state.validation, validation):
            set_back = last_good(this.out, before, study)
        best = best_after(study, best, number, validation, set_back is not None)
        is_last = ends or has_waited(study, best)
        if is_last and this.roster.sampled is not None:
            others = measure_others(this, task, (set_back or combined).weights, given_up)
            asked |= others.present
        if is_last and is_measured_apart(study):
            save_record(this.out, trained.model_copy(update={"validation": dict(validation), "failures": failures}))
            test, threshold, more = _test(this, asked, set_back or combined, validation, best)
            failures = (*failures, *more)
    validated_s = sum(busy(this.grid, [told.seconds for told in split.values()]) for split in (validation, test))
    failures = (*failures, *others.failures)
    if set_back is None:
        validation = {**validation, **others.validation}
    metrics = summarise_metrics(validation)
    record = RoundSummary(
        round=number,
        train_loss=trained.loss if tells_loss(study) else None,
        metrics={name: metric.mean for name, metric in metrics.items()},
        per_site={
            name: {site: value.mean for site, value in metric.per_site.items()} for name, metric in metrics.items()
        },
        sites_ok=trained.sites_ok,
        sites_failed=tuple(sorted(failures, key=lambda failure: (failure.site, failure.code))),
        seconds=trained.seconds + time.monotonic() - started - others.seconds,
        set_back_to=set_back.state.round if set_back else None,
        is_best=best is not None and best.round == number,
        updates=trained.updates,
    )
    measured = {**set_back.state.validation, **others.validation} if set_back else dict(validation)
    state = before.state.model_copy(
        update={
            "round": number,
            "history": (*before.state.history, record),
            "sites": case_counts(before.state.sites, trained.train_cases, validation),
            "training": before.state.training | trained.training,
            "validation": measured or before.state.validation,
            "good": number if validation and not set_back else before.state.good,
            "rollbacks": before.state.rollbacks + bool(set_back),
            "best": best,
            "test": dict(test),
            "threshold": threshold,
            "rounds_s": before.state.rounds_s + record.seconds,
            "busy_s": before.state.busy_s + trained.busy_s + validated_s,
        }
    )
    kept = set_back or combined
    return Checkpoint(state, kept.weights, kept.sets)


def _test(
    this: OneRound,
    asked: Mapping[int, str],
    kept: TrainedRound | Checkpoint,
    validation: Mapping[str, ValidationMetrics],
    best: BestRound | None,
) -> tuple[Mapping[str, ValidationMetrics], float | None, tuple[SiteFailure, ...]]:
    """What sites measure of the model that is handed out; of a classification, at the threshold of its validation."""
    study, task, threshold = this.task.settings, replace(this.task, split="test"), None
    if study.classification is not None:
        if best is not None:
            validation = best.validation
        elif isinstance(kept, Checkpoint):
            validation = kept.state.validation
        threshold = threshold_of(validation)
        task = replace(task, threshold=threshold)
    weights = handed_out(this.out, study, best, task.round, kept.weights)
    test, failures = validate_round(this, task, weights, asked_to("test", study, asked))
    return test, threshold, failures


def _expect_fits(study: StudyConfig, number: int, asked: Collection[str], failures: Iterable[SiteFailure]) -> None:
    """See that a finished model is one that fits some site's patients.

    Raises:
        RunError: each site has refused to measure it.
    """
    refused = {failure.site for failure in failures if failure.code == Code.BAD_MODEL}
    if not asked or refused < set(asked):
        return
    private = study.differential_privacy
    bounds = (
        ". `differential_privacy.bounds` are perhaps far off: values beyond them count as the bound, and the "
        "sites' own screens say how many; ask their people, and start the study anew with bounds that hold them"
    )
    raise RunError(
        f"round {number}: each site ({', '.join(sorted(refused))}) refused to measure the model: it does not fit their "
        f"patients ({Code.BAD_MODEL}){bounds if private is not None and private.bounds else ''}"
    )


def _too_few(number: int, quorum: int, answered: Sequence[str], failures: Iterable[SiteFailure]) -> str:
    reasons = "; ".join(f"{failure.site}: {failure.code} ({meaning_of(failure.code)})" for failure in failures)
    return (
        f"round {number}: {counted(len(answered), 'site')} gave a usable update ({', '.join(answered) or 'none'}), "
        f"the quorum is {quorum}; {reasons or 'no other site is connected'}. "
        "Completed rounds are saved; mend the sites and resume"
    )
