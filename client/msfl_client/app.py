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
from functools import cache
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from msfl_client.egress import Door, check_agreed, check_request, release, release_refusal
from msfl_client.handed_model import handed_model, take_model
from msfl_client.harmonize import compute_moments, compute_residuals
from msfl_client.kept_update import keep_update, kept_update
from msfl_client.learner import OnProgress
from msfl_client.ledger import LEDGER_FILE
from msfl_client.session import (
    SiteSession,
    open_session,
    train_site,
    validate_site,
)
from msfl_client.session_harmonization import session_rows, take_reference
from msfl_common import __version__
from msfl_common.config import SiteConfig, StudyConfig, load_site
from msfl_common.errors import Code, CohortError, ConfigError, InputError, RefusedError, UpdateError
from msfl_common.files import private_folder
from msfl_common.logs import log_handler
from msfl_common.messages import (
    MOMENTS,
    REFERENCE,
    RESIDUALS,
    SEGMENTATION,
    NodeFacts,
    Refusal,
    RoundTask,
    describe,
    unpack_reference,
    unpack_slopes,
    unpack_task,
    unpack_task_weights,
)

SiteOf = Callable[[Context], SiteConfig]
Answer = Callable[[SiteSession, RoundTask, RecordDict], RecordDict]
Before = Callable[[SiteConfig, RoundTask, RecordDict], None]


def build_app(
    site_of: SiteOf,
    on_progress: OnProgress = lambda *_: None,
    *,
    keep_answers: bool = False,
    agreed: StudyConfig | None = None,
) -> ClientApp:
    """The app of the site that `site_of` finds for a Flower context.

    With `keep_answers`, a round that is asked for again is answered from disk, not trained again.
    With `agreed`, the study of the joining kit, no other is served.
    """
    app = ClientApp()
    train_answer = kept_round if keep_answers else site_round

    def reply(message: Message, context: Context, answer: Answer, before: Before = lambda *_: None) -> Message:
        content = _answer_safely(message.content, site_of(context), on_progress, answer, before, agreed)
        return Message(content, reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return reply(message, context, site_facts)

    @app.query(SEGMENTATION)
    def segmentation(message: Message, context: Context) -> Message:
        return reply(message, context, site_facts, take_segmentation)

    @app.query(MOMENTS)
    def moments(message: Message, context: Context) -> Message:
        return reply(message, context, site_moments)

    @app.query(RESIDUALS)
    def residuals(message: Message, context: Context) -> Message:
        return reply(message, context, site_residuals)

    @app.query(REFERENCE)
    def reference(message: Message, context: Context) -> Message:
        return reply(message, context, site_reference)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return reply(message, context, train_answer)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return reply(message, context, site_validation)

    return app


def take_segmentation(site: SiteConfig, task: RoundTask, request: RecordDict) -> None:
    """The final weights of the stage before in, kept before anything is asked that needs them."""
    take_model(site, task.study, lambda expected: unpack_task_weights(request, expected))


def site_facts(session: SiteSession, task: RoundTask, _: RecordDict) -> RecordDict:
    """Version, and the number of training cases rounded down to a multiple of five."""
    facts = NodeFacts(session.site.name, __version__, session.num_train_cases // 5 * 5)
    return release(session.door, facts, task.settings, task.round)


def site_moments(session: SiteSession, task: RoundTask, _: RecordDict) -> RecordDict:
    """The site's training cases as the first sums of a harmonization, through the door."""
    return release(session.door, compute_moments(session_rows(session, task)), task.settings, task.round)


def site_residuals(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """Slopes in, the second sums of the same cases out, through the door."""
    rows = session_rows(session, task)
    slopes_QP = unpack_slopes(request, (rows.covariates_NQ.shape[1], len(rows.names)))
    return release(session.door, compute_residuals(rows, slopes_QP), task.settings, task.round)


def site_reference(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """The reference in; the site's scanners are fitted to it here, and only that it was taken is told."""
    take_reference(session, task, unpack_reference(request))
    return site_facts(session, task, request)


def site_round(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """Shared weights in, the round trained, through the door, update out."""
    weights = unpack_task_weights(request, expected=session.learner.expected)
    update = train_site(session, task, weights)
    return release(session.door, update, task.settings, task.round)


def kept_round(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """`site_round`, but an answer given before is sent again; the ledger has a line for each time."""
    digest, state = describe(request).sha256, session.site.state
    weights = unpack_task_weights(request, expected=session.learner.expected)
    update = kept_update(state, digest, expected=session.learner.answer_like(weights))
    if update is None:
        update = train_site(session, task, weights)
        try:
            keep_update(state, digest, update)
        except OSError as error:  # a full disk costs the repetition, not the round
            site_log(session.site).warning("the round's update could not be kept", exc_info=error)
    return release(session.door, update, task.settings, task.round)


def site_validation(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """Shared weights in, the site's cases measured, through the door, aggregate metrics out."""
    weights = unpack_task_weights(request, expected=session.learner.expected)
    metrics = validate_site(session, task, weights)
    return release(session.door, metrics, task.settings, task.round)


def _answer_safely(
    request: RecordDict,
    site: SiteConfig,
    on_progress: OnProgress,
    answer: Answer,
    before: Before,
    agreed: StudyConfig | None,
) -> RecordDict:
    """Whatever goes wrong leaves as a code from the fixed list; the detail stays in the site's own log and display."""
    task = None
    try:
        task = unpack_task(request)
        check_request(site.policy, task.study, task.round)
        if agreed is not None:
            check_agreed(agreed, task.study)
        before(site, task, request)
        model = handed_model(site, task.study) if task.stage == "final" else None
        return answer(open_session(site, task.study, on_progress, task.stage, model), task, request)
    except Exception as error:
        code = code_of(error)
        on_progress(site.name, "refused", 0, 0, str(error) if isinstance(error, RefusedError) else f"{code}: {error}")
        return refuse(site, code, error, task)


def refuse(site: SiteConfig, code: Code, why: object, task: RoundTask | None = None) -> RecordDict:
    """A code from the fixed list, through the door; `why` goes to the site's log only."""
    site_log(site).error("answered %s: %s", code.value, why, exc_info=why if isinstance(why, Exception) else None)
    return release_refusal(Door(site.policy, site.state / LEDGER_FILE), Refusal(code, site.name), task)


@cache
def site_log(site: SiteConfig) -> logging.Logger:
    """The site's log file, `site.log` in its state folder; nothing of it goes anywhere else."""
    private_folder(site.state)
    handler = log_handler(site.state / "site.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.Logger(f"msfl.site.{site.name}")
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


app = build_app(site_from_node_config)
