"""The site's Flower app: its requests, each answered through the egress door.

    query               node facts
    query.segmentation  takes the model of the stage before, node facts
    query.moments       first sums of a harmonization
    query.residuals     second sums of it
    query.reference     takes the harmonization's reference, node facts
    train               a round of training, a model update
    evaluate            validation of the shared weights, aggregate metrics

Simulation and SuperNode run this same app; they differ in where a site's config comes from.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from msfl_client.disclosure.floors import floor_of
from msfl_client.disclosure.request_size import check_size
from msfl_client.egress.answers import Claim, Purpose, may_answer, most_answers, of_same_cases, request_sha256
from msfl_client.egress.gateway import check_agreed, check_request, door_of, release, release_refusal
from msfl_client.harmonization.combat import compute_moments, compute_residuals, digest_of_rows
from msfl_client.rounds.harmonization_step import session_rows, take_reference
from msfl_client.rounds.site_context import (
    SiteSession,
    open_session,
    train_site,
    validate_site,
)
from msfl_client.rounds.update_cache import keep_update, kept_update
from msfl_client.segmentation.upstream_model import handed_model, take_model
from msfl_client.trainer import OnProgress
from msfl_common import __version__
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.config.study import StudyConfig
from msfl_common.errors import (
    Code,
    CohortError,
    ConfigError,
    InputError,
    PrivateFolderError,
    RefusedError,
    UpdateError,
)
from msfl_common.messages.harmonization import unpack_reference, unpack_slopes
from msfl_common.messages.records import (
    MOMENTS,
    REFERENCE,
    RESIDUALS,
    SEGMENTATION,
    ModelUpdate,
    NodeFacts,
    Refusal,
    RoundTask,
    unpack_task,
    unpack_task_weights,
)
from msfl_common.models.weights import Weights
from msfl_common.system.files import private_folder
from msfl_common.system.foreign_text import LOG_FORMAT, LineFormatter
from msfl_common.system.logs import log_handler

SiteOf = Callable[[Context], SiteConfig]
Answer = Callable[[SiteSession, RoundTask, RecordDict], RecordDict]
Before = Callable[[SiteConfig, RoundTask, RecordDict, Claim], None]


def build_app(
    site_of: SiteOf,
    on_progress: OnProgress = lambda *_: None,
    *,
    keep_answers: bool = False,
    agreed: StudyConfig | None = None,
) -> ClientApp:
    """The app of the site that `site_of` finds for a Flower context.

    With `keep_answers`, a round that is asked for again is answered from disk, not trained again, and no other request
    of the same round and purpose is answered (`answers`).
    With `agreed`, the study of the joining kit, no other is served.
    """
    app = ClientApp()
    train_answer = kept_round if keep_answers else site_round

    def reply(
        message: Message,
        context: Context,
        answer: Answer,
        purpose: Purpose | None = None,
        before: Before = lambda *_: None,
    ) -> Message:
        counted = purpose if keep_answers else None
        content = _answer_safely(message.content, site_of(context), on_progress, answer, before, agreed, counted)
        return Message(content, reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return reply(message, context, site_facts)

    @app.query(SEGMENTATION)
    def segmentation(message: Message, context: Context) -> Message:
        return reply(message, context, site_facts, SEGMENTATION, take_segmentation)

    @app.query(MOMENTS)
    def moments(message: Message, context: Context) -> Message:
        return reply(message, context, site_moments, MOMENTS)

    @app.query(RESIDUALS)
    def residuals(message: Message, context: Context) -> Message:
        return reply(message, context, site_residuals, RESIDUALS)

    @app.query(REFERENCE)
    def reference(message: Message, context: Context) -> Message:
        return reply(message, context, site_reference, REFERENCE)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return reply(message, context, train_answer, "train")

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return reply(message, context, site_validation, "validation")

    return app


def take_segmentation(site: SiteConfig, task: RoundTask, request: RecordDict, claim: Claim) -> None:
    """The final weights of the stage before in, kept before anything is asked that needs them."""

    def read(expected: Weights) -> Weights:
        weights = unpack_task_weights(request, expected)
        claim()
        return weights

    take_model(site, task.study, read)


def site_facts(session: SiteSession, task: RoundTask, _: RecordDict) -> RecordDict:
    """Version, and the number of training cases rounded down to a multiple of five; 0 of too few patients."""
    num_patients = session.learner.num_train_patients
    if num_patients < floor_of(session.site.policy, task.study):
        num_patients = 0
    facts = NodeFacts(session.site.name, __version__, session.num_train_cases // 5 * 5 if num_patients else 0)
    return release(session.door, facts, task.settings, task.round, num_patients)


def site_moments(session: SiteSession, task: RoundTask, _: RecordDict) -> RecordDict:
    """The site's training cases as the first sums of a harmonization, through the door."""
    rows, num_patients = session_rows(session, task)
    session = held_to_cases(session, task, "harmonization", digest_of_rows(rows))
    return release(session.door, compute_moments(rows), task.settings, task.round, num_patients)


def site_residuals(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """Slopes in, the second sums of the same cases out, through the door."""
    rows, num_patients = session_rows(session, task)
    session = held_to_cases(session, task, "harmonization", digest_of_rows(rows))
    slopes_QP = unpack_slopes(request, (rows.covariates_NQ.shape[1], len(rows.names)))
    return release(session.door, compute_residuals(rows, slopes_QP), task.settings, task.round, num_patients)


def site_reference(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """The reference in; the site's scanners are fitted to it here, and only that it was taken is told."""
    reference = unpack_reference(request)
    if session.door.claim is not None:
        session.door.claim()
    take_reference(session, task, reference)
    return site_facts(session, task, request)


def site_round(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """Shared weights in, the round trained, through the door, update out."""
    session = held_to_cases(session, task, task.stage, session.learner.digest)
    weights = unpack_task_weights(request, expected=session.learner.request_like)
    update = train_site(session, task, weights)
    return _release_update(session, task, update)


def kept_round(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
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


def _release_update(session: SiteSession, task: RoundTask, update: ModelUpdate) -> RecordDict:
    return release(session.door, update, task.settings, task.round, session.learner.num_behind(task.round))


def site_validation(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """Shared weights in, the site's cases measured, through the door, aggregate metrics out."""
    session = held_to_cases(session, task, task.stage, session.learner.digest)
    weights = unpack_task_weights(request, expected=session.learner.expected)
    metrics = validate_site(session, task, weights)
    return release(session.door, metrics, task.settings, task.round, metrics.min_patients)


def _answer_safely(
    request: RecordDict,
    site: SiteConfig,
    on_progress: OnProgress,
    answer: Answer,
    before: Before,
    agreed: StudyConfig | None,
    purpose: Purpose | None,
) -> RecordDict:
    """Whatever goes wrong leaves as a code from the fixed list; the detail stays in the site's own log and display."""
    task = None
    try:
        private_folder(site.state)  # before anything is written there
        task = unpack_task(request)
        check_request(site.policy, task.study, task.round, task.stage)
        if agreed is not None:
            check_agreed(agreed, task.study)
        check_size(site, task.study)
        claim = claim_of(site, purpose, task, request)
        before(site, task, request, claim or (lambda: None))
        model = handed_model(site, task.study) if task.stage == "final" else None
        session = open_session(site, task.study, on_progress, task.stage, model)
        return answer(replace(session, door=replace(session.door, claim=claim)), task, request)
    except Exception as error:
        code = code_of(error)
        on_progress(site.name, "refused", 0, 0, str(error) if isinstance(error, RefusedError) else f"{code}: {error}")
        return refuse(site, code, error, task)


def claim_of(site: SiteConfig, purpose: Purpose | None, task: RoundTask, request: RecordDict) -> Claim | None:
    """What writes down that a request of some purpose is answered; None without one.

    Raises:
        RefusedError: it may not be, as another was.
    """
    if purpose is None:
        return None
    if purpose == "validation" and task.split == "test" and task.settings.task == "classification":
        purpose = "test"  # a segmentation has no patients for it, and validates whatever it is asked
    return may_answer(site.state, purpose, task, request, most_answers(site.policy, task.settings))


def refuse(site: SiteConfig, code: Code, why: object, task: RoundTask | None = None) -> RecordDict:
    """A code from the fixed list, through the door; `why` goes to the site's log only."""
    site_log(site).error("answered %s: %s", code.value, why, exc_info=why if isinstance(why, Exception) else None)
    return release_refusal(door_of(site), Refusal(code, site.name), task)


def site_log(site: SiteConfig) -> logging.Logger:
    """The site's log file, `site.log` in its state folder; nothing of it goes anywhere else."""
    return _log_at(site.state)


@cache
def _log_at(state: Path) -> logging.Logger:
    handler = log_handler(state / "site.log")
    handler.setFormatter(LineFormatter(LOG_FORMAT))
    logger = logging.Logger(f"msfl.site.{state}")
    logger.addHandler(handler)
    return logger


def code_of(error: Exception) -> Code:
    """The code that stands for an error outside the site."""
    match error:
        case RefusedError():
            return error.code
        case ConfigError():
            return Code.BAD_STUDY
        case UpdateError():
            return Code.BAD_MODEL
        case CohortError():
            return Code.NO_CASES
        case PrivateFolderError():
            return Code.INTERNAL
        case InputError():
            return Code.BAD_TABLE
        case torch.OutOfMemoryError() | MemoryError():
            return Code.OUT_OF_MEMORY
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Code.DISK_FULL
        case _:
            return Code.INTERNAL


def site_from_node_config(context: Context) -> SiteConfig:
    """The site of a SuperNode: its node config names the site's own file."""
    return load_site(Path(str(context.node_config["site-config"])))


app = build_app(site_from_node_config, keep_answers=True)
