"""What a site does for each request of `config.message_kinds`, the Flower app around it apart.

A handler takes the site, the round's task and the request, and answers through the egress door: `release` holds what
leaves against the policy and the floor, and writes it down first. To add one: docs/how-to/add-a-message-kind.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from msfl_client.disclosure.floors import floor_of
from msfl_client.egress.answers import Claim, of_same_cases, request_sha256
from msfl_client.egress.gateway import release
from msfl_client.harmonization.combat import compute_moments, compute_residuals, digest_of_rows
from msfl_client.rounds.harmonization_step import session_rows, take_reference
from msfl_client.rounds.site_context import SiteSession, train_site, validate_site
from msfl_client.rounds.site_log import site_log
from msfl_client.rounds.update_cache import keep_update, kept_update
from msfl_client.segmentation.upstream_model import take_model
from msfl_common import __version__
from msfl_common.config.message_kinds import MOMENTS, REFERENCE, RESIDUALS, SEGMENTATION
from msfl_common.config.site import SiteConfig
from msfl_common.messages.harmonization import unpack_reference, unpack_slopes
from msfl_common.messages.records import Content, ModelUpdate, NodeFacts, RoundTask, unpack_task_weights
from msfl_common.models.weights import Weights


@dataclass(frozen=True)
class Handler:
    """What answers a request.

    Attributes:
        answer: makes the answer.
        kept: does so where answers are counted and may be asked for again; None: as `answer`.
        before: is done before the site's cases are looked at.
    """

    answer: Callable[[SiteSession, RoundTask, Content], Content]
    kept: Callable[[SiteSession, RoundTask, Content], Content] | None = None
    before: Callable[[SiteConfig, RoundTask, Content, Claim], None] | None = None


def take_segmentation(site: SiteConfig, task: RoundTask, request: Content, claim: Claim) -> None:
    """The final weights of the stage before in, kept before anything is asked that needs them."""

    def read(expected: Weights) -> Weights:
        weights = unpack_task_weights(request, expected)
        claim()
        return weights

    take_model(site, task.study, read)


def site_facts(session: SiteSession, task: RoundTask, _: Content) -> Content:
    """Version, and the number of training cases rounded down to a multiple of five; 0 of too few patients."""
    num_patients = session.learner.num_train_patients
    if num_patients < floor_of(session.site.policy, task.study):
        num_patients = 0
    facts = NodeFacts(session.site.name, __version__, session.num_train_cases // 5 * 5 if num_patients else 0)
    return release(session.door, facts, task.settings, task.round, num_patients)


def site_moments(session: SiteSession, task: RoundTask, _: Content) -> Content:
    """The site's training cases as the first sums of a harmonization, through the door."""
    rows, num_patients = session_rows(session, task)
    session = held_to_cases(session, task, "harmonization", digest_of_rows(rows))
    return release(session.door, compute_moments(rows), task.settings, task.round, num_patients)


def site_residuals(session: SiteSession, task: RoundTask, request: Content) -> Content:
    """Slopes in, the second sums of the same cases out, through the door."""
    rows, num_patients = session_rows(session, task)
    session = held_to_cases(session, task, "harmonization", digest_of_rows(rows))
    slopes_QP = unpack_slopes(request, (rows.covariates_NQ.shape[1], len(rows.names)))
    return release(session.door, compute_residuals(rows, slopes_QP), task.settings, task.round, num_patients)


def site_reference(session: SiteSession, task: RoundTask, request: Content) -> Content:
    """The reference in; the site's scanners are fitted to it here, and only that it was taken is told."""
    reference = unpack_reference(request)
    if session.door.claim is not None:
        session.door.claim()
    take_reference(session, task, reference)
    return site_facts(session, task, request)


def site_round(session: SiteSession, task: RoundTask, request: Content) -> Content:
    """Shared weights in, the round trained, through the door, update out."""
    session = held_to_cases(session, task, task.stage, session.learner.digest)
    weights = unpack_task_weights(request, expected=session.learner.request_like)
    update = train_site(session, task, weights)
    return _release_update(session, task, update)


def kept_round(session: SiteSession, task: RoundTask, request: Content) -> Content:
    """`site_round`, but an answer given before is sent again; the ledger has a line for each time."""
    cases, state = session.learner.digest, session.site.state
    session = held_to_cases(session, task, task.stage, cases)
    digest = request_sha256("train", task, request)
    weights = unpack_task_weights(request, expected=session.learner.request_like)
    update = kept_update(state, digest, cases, expected=session.learner.answer_like(weights))
    if update is None:
        update = train_site(session, task, weights)
        try:
            keep_update(state, digest, cases, update)
        except OSError as error:  # a full disk costs the repetition, not the round
            site_log(session.site).warning("the round's update could not be kept", exc_info=error)
    return _release_update(session, task, update)


def held_to_cases(session: SiteSession, task: RoundTask, of: str, digest: str) -> SiteSession:
    """The session, whose answers must be of the cases that the study was answered of before, if they are counted.

    Raises:
        RefusedError: they would be of others.
    """
    claim = session.door.claim
    if claim is None:
        return session
    remember = of_same_cases(session.site.state, task.study.name, of, digest)

    def both() -> None:
        remember()
        claim()

    return replace(session, door=replace(session.door, claim=both))


def _release_update(session: SiteSession, task: RoundTask, update: ModelUpdate) -> Content:
    return release(session.door, update, task.settings, task.round, session.learner.num_behind(task.round))


def site_validation(session: SiteSession, task: RoundTask, request: Content) -> Content:
    """Shared weights in, the site's cases measured, through the door, aggregate metrics out."""
    session = held_to_cases(session, task, task.stage, session.learner.digest)
    weights = unpack_task_weights(request, expected=session.learner.expected)
    metrics = validate_site(session, task, weights)
    return release(session.door, metrics, task.settings, task.round, metrics.min_patients)


HANDLERS: dict[str, Handler] = {
    "query": Handler(site_facts),
    f"query.{SEGMENTATION}": Handler(site_facts, before=take_segmentation),
    f"query.{MOMENTS}": Handler(site_moments),
    f"query.{RESIDUALS}": Handler(site_residuals),
    f"query.{REFERENCE}": Handler(site_reference),
    "train": Handler(site_round, kept=kept_round),
    "evaluate": Handler(site_validation),
}
