"""What a site does for each request of `config.message_kinds`, the Flower app around it apart.

A handler takes the site, the round's task and the request, and answers through the egress gateway: `release` holds what
leaves against the policy and the floor, and writes it down first. To add one: docs/how-to/add-a-message-kind.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from msfl_client.disclosure.floors import floor_of
from msfl_client.egress.answers import Claim, measured_on_same_cases, of_same_cases
from msfl_client.egress.gateway import Gateway, release
from msfl_client.harmonization.combat import compute_moments, compute_residuals, digest_of_rows
from msfl_client.rounds.baseline_step import baseline_figures
from msfl_client.rounds.budget_step import budgeted_harmonization, budgeted_metrics, budgeted_update
from msfl_client.rounds.evaluation import check_weights, sha256_of
from msfl_client.rounds.harmonization_step import harmonization_rows, take_reference
from msfl_client.rounds.masks_step import site_mask_key, site_opening, site_roster
from msfl_client.rounds.private_budget import spending_of
from msfl_client.rounds.site_context import SiteContext, train_site, validate_site
from msfl_client.rounds.site_log import site_log
from msfl_client.rounds.survey_step import site_survey
from msfl_client.rounds.update_cache import cache_update, cached_update
from msfl_client.secure_aggregation.site_masks import SiteMasks
from msfl_client.segmentation.upstream_model import take_model
from msfl_common import __version__
from msfl_common.config.message_kinds import (
    LOCAL_BASELINE,
    MASK_KEY,
    MOMENTS,
    OPENING,
    REFERENCE,
    RESIDUALS,
    ROSTER,
    SEGMENTATION,
    SURVEY,
)
from msfl_common.config.site import SiteConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages.harmonization import unpack_reference, unpack_slopes
from msfl_common.messages.layouts import metrics_layout, moments_layout, residuals_layout, update_layout
from msfl_common.messages.records import (
    Content,
    ModelUpdate,
    NodeFacts,
    RoundTask,
    request_sha256,
    unpack_task_weights,
)
from msfl_common.models.weights import Weights


@dataclass(frozen=True)
class Handler:
    """What answers a request.

    Attributes:
        answer: makes the answer; None where that takes none of the site's cases.
        kept: does so where answers are counted and may be asked for again; None: as `answer`.
        before: is done before the site's cases are looked at.
        unprepared: makes the answer from the site's folders as they lie, before its cases are checked or prepared.
        caseless: makes the answer where it takes none of the site's cases, given its part in the masked sums.
    """

    answer: Callable[[SiteContext, RoundTask, Content], Content] | None = None
    kept: Callable[[SiteContext, RoundTask, Content], Content] | None = None
    before: Callable[[SiteConfig, RoundTask, Content, Claim], None] | None = None
    unprepared: Callable[[Gateway, SiteConfig, RoundTask], Content] | None = None
    caseless: Callable[[Gateway, SiteMasks, RoundTask, Content], Content] | None = None


def take_segmentation(site: SiteConfig, task: RoundTask, request: Content, claim: Claim) -> None:
    """The final weights of the stage before in, kept before anything is asked that needs them."""

    def read(expected: Weights) -> Weights:
        weights = unpack_task_weights(request, expected)
        claim()
        return weights

    take_model(site, task.study, read)


def site_facts(context: SiteContext, task: RoundTask, _: Content) -> Content:
    """Version, and the number of training cases rounded down to a multiple of five; 0 of too few patients."""
    num_patients = context.learner.num_train_patients
    if num_patients < floor_of(context.site.policy, task.study):
        num_patients = 0
    facts = NodeFacts(context.site.name, __version__, context.num_train_cases // 5 * 5 if num_patients else 0)
    return release(context.gateway, facts, task.settings, task.round, num_patients)


def site_moments(context: SiteContext, task: RoundTask, _: Content) -> Content:
    """The site's training cases as the first sums of a harmonization, through the egress gateway."""
    rows, num_patients = harmonization_rows(context, task)
    context = bound_to_cases(context, task, "harmonization", digest_of_rows(rows))
    sums, as_sum = compute_moments(rows), partial(moments_layout, task.study.harmonization)
    counts = {"counts": np.array([sums.num_cases, sums.num_scanners], dtype=np.float64)}
    context = budgeted_harmonization(context, task, rows, sums.arrays | counts)
    return release(context.gateway, sums, task.settings, task.round, num_patients, as_sum)


def site_residuals(context: SiteContext, task: RoundTask, request: Content) -> Content:
    """Slopes in, the second sums of the same cases out, through the egress gateway."""
    rows, num_patients = harmonization_rows(context, task)
    context = bound_to_cases(context, task, "harmonization", digest_of_rows(rows))
    slopes_QP = unpack_slopes(request, (rows.covariates_NQ.shape[1], len(rows.names)))
    residuals, as_sum = compute_residuals(rows, slopes_QP), partial(residuals_layout, task.study.harmonization)
    context = budgeted_harmonization(context, task, rows, residuals.arrays)
    return release(context.gateway, residuals, task.settings, task.round, num_patients, as_sum)


def site_reference(context: SiteContext, task: RoundTask, request: Content) -> Content:
    """The reference in; the site's scanners are fitted to it here, and only that it was taken is told."""
    reference = unpack_reference(request)
    if context.gateway.claim is not None:
        context.gateway.claim()
    take_reference(context, task, reference)
    return site_facts(context, task, request)


def site_round(context: SiteContext, task: RoundTask, request: Content) -> Content:
    """Shared weights in, the round trained, through the egress gateway, update out."""
    context = bound_to_cases(context, task, task.stage, context.learner.digest)
    weights = unpack_task_weights(request, expected=context.learner.request_like)
    update = train_site(context, task, weights)
    return _release_update(context, task, update, weights)


def cached_round(context: SiteContext, task: RoundTask, request: Content) -> Content:
    """`site_round`, but an answer given before is sent again; the ledger has a line for each time."""
    cases, state = context.learner.digest, context.site.state
    context = bound_to_cases(context, task, task.stage, cases)
    digest = request_sha256("train", task, request)
    weights = unpack_task_weights(request, expected=context.learner.request_like)
    update = cached_update(state, digest, cases, expected=context.learner.answer_like(weights))
    if update is None:
        update = train_site(context, task, weights)
        try:
            cache_update(state, digest, cases, update)
        except OSError as error:  # a full disk costs the repetition, not the round
            if task.study.differential_privacy is not None:  # trained again, a device may round it otherwise
                raise
            site_log(context.site).warning("the round's update could not be kept", exc_info=error)
    return _release_update(context, task, update, weights)


def bound_to_cases(context: SiteContext, task: RoundTask, of: str, digest: str) -> SiteContext:
    """The context, whose answers must be of the cases that the study was answered of before, if they are counted.

    Raises:
        RefusedError: they would be of others.
    """
    claim = context.gateway.claim
    if claim is None:
        return context
    remember = of_same_cases(context.site.state, task.study.name, of, digest)
    gateway = replace(context.gateway, claim=both(remember, claim), cases=digest)
    return replace(context, gateway=gateway)


def bound_to_weights(context: SiteContext, weights: Weights) -> SiteContext:
    """The context, whose measurement of a network must be on the cases that the same weights were measured on before.

    Raises:
        RefusedError: it would be on others.
    """
    claim = context.gateway.claim
    if claim is None or context.learner.about("validation") is not None:  # whose patients the budget holds apart
        return context
    remember = measured_on_same_cases(context.site.state, sha256_of(weights), context.learner.digest)
    return replace(context, gateway=replace(context.gateway, claim=both(remember, claim)))


def both(first: Claim, then: Claim) -> Claim:
    """One claim after the other."""

    def claim() -> None:
        first()
        then()

    return claim


def expect_cases(context: SiteContext, task: RoundTask, purpose: str, digest: str) -> None:
    """See that a value that is kept is of the cases that are there.

    Raises:
        RefusedError: it is of others.
    """
    is_rows = purpose in (MOMENTS, RESIDUALS)
    if digest != (digest_of_rows(harmonization_rows(context, task)[0]) if is_rows else context.learner.digest):
        raise RefusedError(
            Code.ANSWERED,
            "patients, visits or values have changed since this was answered, and what was kept of it is of those of "
            "before; put back what was there, or let the study be answered anew with `msfl-client reset-answers`",
        )


def _release_update(context: SiteContext, task: RoundTask, update: ModelUpdate, asked: Weights) -> Content:
    context = budgeted_update(context, task, asked, update)
    num_patients, as_sum = context.learner.num_behind(task.round), partial(update_layout, task.settings, asked)
    gateway = replace(context.gateway, spending=spending_of(context, task))
    return release(gateway, update, task.settings, task.round, num_patients, as_sum)


def site_validation(context: SiteContext, task: RoundTask, request: Content) -> Content:
    """Shared weights in, the site's cases measured, through the egress gateway, aggregate metrics out."""
    context = bound_to_cases(context, task, task.stage, context.learner.digest)
    weights = unpack_task_weights(request, expected=context.learner.expected)
    check_weights(task.study, weights)
    context = bound_to_weights(context, weights)
    metrics = validate_site(context, task, weights)
    context = budgeted_metrics(context, task, metrics)
    as_sum = partial(metrics_layout, task.settings)
    return release(context.gateway, metrics, task.settings, task.round, metrics.min_patients, as_sum)


def site_baseline(context: SiteContext, task: RoundTask, request: Content) -> Content:
    """Shared weights in, figures of the site's own model beside it out, through the egress gateway."""
    context = bound_to_cases(context, task, task.stage, context.learner.digest)
    shared = unpack_task_weights(request, expected=context.learner.expected)
    context = bound_to_weights(context, shared)
    figures, num_patients, measured = baseline_figures(context, task, shared)
    if context.gateway.claim is not None:  # another model of the site's leaves out others
        beside = hashlib.sha256(f"{LOCAL_BASELINE} beside {sha256_of(shared)}".encode()).hexdigest()
        remember = measured_on_same_cases(context.site.state, beside, measured)
        context = replace(context, gateway=replace(context.gateway, claim=both(remember, context.gateway.claim)))
    return release(context.gateway, figures, task.settings, task.round, num_patients)


HANDLERS: dict[str, Handler] = {
    "query": Handler(site_facts),
    f"query.{SEGMENTATION}": Handler(site_facts, before=take_segmentation),
    f"query.{MOMENTS}": Handler(site_moments),
    f"query.{RESIDUALS}": Handler(site_residuals),
    f"query.{REFERENCE}": Handler(site_reference),
    f"query.{SURVEY}": Handler(unprepared=site_survey),
    "train": Handler(site_round, kept=cached_round),
    "evaluate": Handler(site_validation),
    f"query.{LOCAL_BASELINE}": Handler(site_baseline),
    f"query.{MASK_KEY}": Handler(caseless=site_mask_key),
    f"query.{ROSTER}": Handler(caseless=site_roster),
    f"query.{OPENING}": Handler(caseless=site_opening),
}
