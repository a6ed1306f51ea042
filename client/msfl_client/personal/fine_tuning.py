"""A finished model trained on at a site that has not trained it, on the few labelled cases that it has.

How good that is can be said of patients alone that were not trained on. So patients are dealt into folds, up to five
patients into one each; for each fold a model is trained on the others and measured on the fold, before and after. The
model that is kept is trained on all of them, in the same way, and measured on none. As Valverde et al. 2019, "One-shot
domain adaptation in multiple sclerosis lesion segmentation using convolutional neural networks" (doi
10.1016/j.nicl.2018.101638), adapt a network to a scanner from one case to a few; they train its last layers alone.

Legend: N cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from msfl_client.data.bids import Case
from msfl_client.data.patient_split import CaseSplit, Seen, fold_patients
from msfl_client.personal.arms import tuned
from msfl_client.personal.gain import interval_of
from msfl_client.personal.tuned_record import TUNING, Change, Tuning
from msfl_client.rounds.own_model import measured_rows, train_alone
from msfl_client.rounds.site_context import SiteContext, build_context
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_client.site.folder import OWN_MODELS
from msfl_client.trainer import OnProgress
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.metrics.registry import HEADLINE
from msfl_common.models.expected_weights import weights_like
from msfl_common.models.model_folder import ModelCard, Provenance, load_model, save_model
from msfl_common.models.started_from import StartedFrom
from msfl_common.models.starting_weights import expect_frozen
from msfl_common.models.weights import Weights
from msfl_common.system.files import private_folder, write_bytes

ADAPTED = "adapted"  # the folder of the model, beside those of `msfl-client gain`
MOST_FOLDS = 5


@dataclass(frozen=True)
class Start:
    """A finished model, and how a site trains on from it.

    Attributes:
        card: the model's.
        weights: its own.
        study: rounds, rates and frozen layers of what is trained here.
        num_rounds: of them.
    """

    card: ModelCard
    weights: Weights
    study: StudyConfig
    num_rounds: int


def start_of(site: SiteConfig, model: Path, num_rounds: int | None, freeze: Sequence[str] | None) -> Start:
    """What a site trains on from.

    Args:
        site: that does.
        model: its folder.
        num_rounds: rounds of `training.steps_per_round`; None: as the study's strategy `finetune` says, else one.
        freeze: as `training.freeze`; None: what the model's study froze to its end.

    Raises:
        ModelFolderError: it cannot be used.
        InputError: it is of an outcome, the site has trained it, or a layer to freeze is none of its own.
    """
    card, weights = load_model(model)
    if card.study.classification is not None:
        raise InputError(
            f"{model}: predicts an outcome, and models of lesions alone are fine-tuned at a site: a few patients say "
            "nothing of an outcome"
        )
    if card.provenance.is_of(site.name):
        raise InputError(
            f"{model}: site {site.name} has trained this model, so its patients cannot say what fine-tuning brings; "
            "`msfl-client gain` makes and measures its fine-tuned model on patients whom the study kept out"
        )
    study, usual = tuned(card.study)
    rounds = usual if num_rounds is None else num_rounds
    training = study.training if freeze is None else study.training.model_copy(update={"freeze": tuple(freeze)})
    changes = {"training": training, "rounds": study.rounds.model_copy(update={"num_rounds": rounds})}
    study = study.model_copy(update=changes)
    expect_frozen(study, weights_like(study))
    return Start(card, weights, study, rounds)


def fine_tune(site: SiteConfig, start: Start, on_progress: OnProgress) -> Tuning:
    """Train on from a model, measure what that brings, and write model and figures into the site's state folder.

    Run again after a stop, it goes on from its last round.

    Raises:
        CohortError: the folders hold nothing usable.
        RefusedError: outside of the site's hours or limits, or a training failed.
    """
    study, folder = start.study, site.state / OWN_MODELS / start.card.study.name
    whole = _context(site, study, frozenset(), on_progress)
    folds = _folds(whole.training, study)
    before: dict[str, dict[str, float]] = {}
    after: dict[str, dict[str, float]] = {}
    patient_of = {case.key: case.patient for case in whole.training}
    for number, held in enumerate(folds, start=1):
        context = _context(site, study, held, on_progress)
        name = f"fold {number} of {len(folds)}"
        weights = train_alone(context, start.weights, start.num_rounds, folder, name.replace(" ", "-"), datetime.now)
        learner = _learner(context)
        keys = [case.key for case in context.cases if case.patient in held]
        before |= dict(zip(keys, measured_rows(context, learner.test, start.weights, f"{name}, before"), strict=True))
        after |= dict(zip(keys, measured_rows(context, learner.test, weights, f"{name}, after"), strict=True))
    final = train_alone(whole, start.weights, start.num_rounds, folder, ADAPTED, datetime.now)
    titles = dict(HEADLINE[study.task])
    found = Tuning(
        study=study.name,
        site=site.name,
        weights_sha256=start.card.weights_sha256,
        num_patients=len(set(patient_of.values())),
        num_cases=len(patient_of),
        num_folds=len(folds),
        steps=start.num_rounds * study.training.steps_per_round,
        frozen=study.training.freeze,
        metrics={name: title for name, title in titles.items() if any(name in row for row in after.values())},
        changes=_changes(before, after, patient_of, titles, study.seed),
        folder=str(folder / ADAPTED),
    )
    _save(site, start, folder, final, found)
    return found


def _context(site: SiteConfig, study: StudyConfig, held: frozenset[str], on_progress: OnProgress) -> SiteContext:
    """A context in which all patients train but those who are held out, and these test."""

    def split(cases: Sequence[Case]) -> CaseSplit:
        trains = [case for case in cases if case.patient not in held]
        return CaseSplit(trains, [], [case for case in cases if case.patient in held])

    return build_context(site, study, on_progress, "final", None, split=split)


def _folds(cases: Sequence[Case], study: StudyConfig) -> list[frozenset[str]]:
    """Patients who are held out together: each alone where they are few, none where there is one."""
    seen = [Seen(case.patient, *case.place) for case in cases]
    count = min(len({one.patient for one in seen}), MOST_FOLDS)
    deal = partial(fold_patients, seen, num_folds=count, seed=study.seed)
    folds = [deal(number) for number in range(1, count + 1)] if count > 1 else []
    patients = frozenset(one.patient for one in seen)
    return [held for held in folds if held and held != patients]


def _changes(
    before: dict[str, dict[str, float]],
    after: dict[str, dict[str, float]],
    patient_of: dict[str, str],
    metrics: dict[str, str],
    seed: int,
) -> dict[str, Change]:
    """Of each metric, the figures of the same cases; a case in which it is not defined both times does not count."""
    found = {}
    for metric in metrics:
        pairs = {key: (before[key].get(metric, np.nan), after[key].get(metric, np.nan)) for key in after}
        pairs = {key: pair for key, pair in pairs.items() if np.isfinite(pair).all()}
        if not pairs:
            continue
        people = [patient_of[key] for key in pairs]
        before_N, after_N = np.array([*pairs.values()], float).T
        found[metric] = Change(
            before=interval_of(people, before_N, seed),
            after=interval_of(people, after_N, seed),
            difference=interval_of(people, after_N - before_N, seed),
            num_patients=len(set(people)),
            num_up=len({who for who, change in zip(people, after_N - before_N, strict=True) if change > 0}),
        )
    return found


def _save(site: SiteConfig, start: Start, folder: Path, weights: Weights, found: Tuning) -> None:
    told = start.card.provenance
    sites = tuple(sorted(one for one in {*told.sites, *told.summed_sites} if told.is_of(one)))
    private_folder(folder, within=site.state)
    save_model(
        folder / ADAPTED,
        start.study,
        weights,
        Provenance(rounds_completed=start.num_rounds, sites={site.name: found.num_cases}),
        own_of=site.name,
        started_from=StartedFrom(
            kind="model folder",
            weights_sha256=start.card.weights_sha256,
            study=start.card.study.name,
            sites=sites,
            num_taken=len(weights),
        ),
    )
    write_bytes(folder / TUNING, (found.model_dump_json(indent=1) + "\n").encode(), secret=True)


def _learner(context: SiteContext) -> SegmentationLearner:
    learner = context.learner
    assert isinstance(learner, SegmentationLearner)
    return learner
