"""The site's Flower app: three requests, each answered through the egress door.

    query     node facts
    train     a round of training, a model update
    evaluate  validation of the shared weights, aggregate metrics

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

from msfl_client.egress import check_request, release
from msfl_client.session import OnProgress, SiteSession, open_session, train_site, validate_site
from msfl_common import __version__
from msfl_common.config import SiteConfig, load_site
from msfl_common.errors import Code, CohortError, ConfigError, RefusedError, UpdateError
from msfl_common.messages import (
    NodeFacts,
    Refusal,
    RoundTask,
    pack_refusal,
    unpack_task,
    unpack_task_weights,
)
from msfl_common.network import get_weights

SiteOf = Callable[[Context], SiteConfig]
Answer = Callable[[SiteSession, RoundTask, RecordDict], RecordDict]


def build_app(site_of: SiteOf, on_progress: OnProgress = lambda *_: None) -> ClientApp:
    """The app of the site that `site_of` finds for a Flower context."""
    app = ClientApp()

    def reply(message: Message, context: Context, answer: Answer) -> Message:
        return Message(_answer_safely(message.content, site_of(context), on_progress, answer), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return reply(message, context, site_facts)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return reply(message, context, site_round)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return reply(message, context, site_validation)

    return app


def site_facts(session: SiteSession, task: RoundTask, _: RecordDict) -> RecordDict:
    """Version, and the number of training cases rounded down to a multiple of five."""
    facts = NodeFacts(session.site.name, __version__, session.num_train_cases // 5 * 5)
    return release(session.door, facts, task.study, task.round)


def site_round(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """Shared weights in, the round trained, through the door, update out."""
    weights = unpack_task_weights(request, expected=get_weights(session.network))
    update = train_site(session, task, weights)
    return release(session.door, update, task.study, task.round)


def site_validation(session: SiteSession, task: RoundTask, request: RecordDict) -> RecordDict:
    """Shared weights in, the site's cases measured, through the door, aggregate metrics out."""
    weights = unpack_task_weights(request, expected=get_weights(session.network))
    metrics = validate_site(session, task, weights)
    return release(session.door, metrics, task.study, task.round)


def _answer_safely(request: RecordDict, site: SiteConfig, on_progress: OnProgress, answer: Answer) -> RecordDict:
    """Whatever goes wrong leaves as a code from the fixed list; the detail stays in the site's own log."""
    try:
        task = unpack_task(request)
        check_request(site.policy, task.study, task.round)
        return answer(open_session(site, task.study, on_progress), task, request)
    except Exception as error:
        code = code_of(error)
        site_log(site).error("answered %s", code.value, exc_info=error)
        return pack_refusal(Refusal(code, site.name))


@cache
def site_log(site: SiteConfig) -> logging.Logger:
    """The site's log file, `site.log` in its state folder; nothing of it goes anywhere else."""
    site.state.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(site.state / "site.log", delay=True, encoding="utf-8")
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
