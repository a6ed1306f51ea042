"""The folders of models that a stage leaves: what is handed out and, where that is an earlier round's, the last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msfl_common.config.stages import chosen_by
from msfl_common.config.study import StudyConfig
from msfl_common.harmonization import Reference
from msfl_common.messages.records import ValidationMetrics
from msfl_common.metrics.registry import HEADLINE
from msfl_common.models.first_weights import kept_start
from msfl_common.models.model_card import Choice, Tested
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.model_signature import ModelSigner
from msfl_common.models.weights import Weights
from msfl_common.privacy_accounting import promise_after
from msfl_common.secure_aggregation.layout import POOLED
from msfl_server.results.classification import reliability_of, threshold_of
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.regression import prediction_error_of
from msfl_server.rounds.best_round import handed_out
from msfl_server.rounds.checkpoint import Checkpoint, RunState
from msfl_server.rounds.stage import Segmentation, whole_weights

MODEL_FOLDER, LAST_FOLDER = "model", "last-model"

# Threshold, and what validation and test told.
Measured = tuple[float | None, Mapping[str, ValidationMetrics], Mapping[str, ValidationMetrics]]


def save_models(
    out: Path,
    study: StudyConfig,
    first: Weights,
    checkpoint: Checkpoint,
    reference: Reference | None,
    segmentation: Segmentation | None,
    signer: ModelSigner | None,
) -> None:
    """Write `model`, which is handed out; before it `last-model`, of the last round, where an earlier one is the best.

    Args:
        out: the stage's folder.
        study: the stage's.
        first: the weights that it started from.
        checkpoint: of its last round.
        reference: of a study that harmonizes.
        segmentation: what the stages before have trained.
        signer: signs both folders.

    Raises:
        RunError: the best round's checkpoint cannot be read.
    """
    state, best = checkpoint.state, checkpoint.state.best

    def save(
        name: str,
        weights: Weights,
        number: int,
        measured: Measured,
        choice: Choice | None,
        tested: Tested | None = None,
    ) -> None:
        threshold, *validation_and_test = measured
        save_model(
            out / name,
            study,
            whole_weights(first, weights),
            _provenance(state, number),
            reference,
            threshold=threshold,
            reliability=reliability_of(*validation_and_test),
            error=prediction_error_of(*validation_and_test),
            segmentation=segmentation.model if segmentation else None,
            signer=signer,
            privacy=promise_after(study, state.round),
            choice=choice,
            tested=tested,
            started_from=kept_start(out),
        )

    measured = state.threshold, state.measured, state.test
    if best is not None and best.round != state.round:
        threshold = threshold_of(state.validation) if study.classification else None
        save(LAST_FOLDER, checkpoint.weights, state.round, (threshold, state.validation, {}), None)
    choice = Choice(by=str(chosen_by(study)), value=best.value, of_rounds=state.round) if best else None
    weights = handed_out(out, study, best, state.round, checkpoint.weights)
    save(MODEL_FOLDER, weights, best.round if best else state.round, measured, choice, _tested(study, state))


def _tested(study: StudyConfig, state: RunState) -> Tested | None:
    """What test patients of a segmentation said of the model that is handed out; None where none did."""
    if study.classification is not None or not study.has_test:
        return None
    metrics = summarise_metrics(state.test)
    told = {name: metrics[name] for name in HEADLINE[study.task] if name in metrics}
    if not told:
        return None
    means = {name: metric.mean for name, metric in told.items()}
    return Tested(means=means, num_cases=max(metric.num_cases for metric in told.values()))


def _provenance(state: RunState, number: int) -> Provenance:
    """Where the weights of round `number` come from."""
    trained = {site for record in state.history if record.round <= number for site in record.sites_ok}
    is_pooled = any(site.name == POOLED for site in state.sites)
    came_later = set() if is_pooled or number == state.round else {site.name for site in state.sites} - trained
    return Provenance(
        rounds_completed=number,
        sites={site.name: 0 if site.name in came_later else site.cases_train for site in state.sites},
        # The sites that trained, where their cases are known together alone.
        summed_sites=tuple(sorted(trained)) if is_pooled else (),
    )
