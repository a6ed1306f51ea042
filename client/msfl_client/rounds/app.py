"""The site's Flower app: each request of `config.message_kinds`, answered by its handler through the egress gateway.

Simulation and SuperNode run this same app; they differ in where a site's config comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from msfl_client.disclosure.request_size import check_size
from msfl_client.egress.answers import Claim, may_answer, most_answers
from msfl_client.egress.gateway import (
    Gateway,
    check_agreed,
    check_allowed,
    check_masks,
    check_request,
    gateway_of,
    release,
    release_refusal,
)
from msfl_client.rounds.evaluation import check_asked
from msfl_client.rounds.handlers import HANDLERS, Handler, expect_cases
from msfl_client.rounds.masks_step import masks_of, sum_of
from msfl_client.rounds.private_budget import spending_of_kept
from msfl_client.rounds.refusals import code_of
from msfl_client.rounds.site_context import open_context
from msfl_client.rounds.site_log import site_log
from msfl_client.secure_aggregation.kept_values import KeptValue
from msfl_client.segmentation.upstream_model import handed_model
from msfl_client.site.account_files import expect_counted_here
from msfl_client.trainer import OnProgress
from msfl_common.config.message_kinds import REQUESTS, Request
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages.records import Refusal, RoundTask, purpose_of, unpack_task
from msfl_common.system.files import private_folder

Callback = Callable[[Message, Context], Message]
SiteOf = Callable[[Context], SiteConfig]


@dataclass(frozen=True)
class AppSettings:
    """How a site's app answers.

    Attributes:
        cache_answers: whether a round that is asked for again is answered from disk, not trained again, and no other
            request of the same round and purpose is answered (`answers`).
        agreed: the study of the joining kit, besides which no other is served; None: any is.
        is_simulated: whether it is a site of a simulation, whose rosters of masked sums need no person.
    """

    cache_answers: bool = False
    agreed: StudyConfig | None = None
    is_simulated: bool = False


def build_app(
    site_of: SiteOf,
    on_progress: OnProgress = lambda *_: None,
    *,
    cache_answers: bool = False,
    agreed: StudyConfig | None = None,
    is_simulated: bool = False,
) -> ClientApp:
    """The app of the site that `site_of` finds for a Flower context; see `AppSettings`."""
    app, settings = ClientApp(), AppSettings(cache_answers, agreed, is_simulated)

    def reply(message: Message, context: Context, asked: Request, handler: Handler) -> Message:
        site = site_of(context)
        content = _answer_safely(message.content, site, on_progress, asked, handler, settings)
        return Message(content, reply_to=message)

    for name, asked in REQUESTS.items():
        _register(app, name, partial(reply, asked=asked, handler=HANDLERS[name]))
    return app


def _register(app: ClientApp, request: str, answer: Callback) -> None:
    """Let a function answer a request, by Flower's name of the message type."""
    category, _, action = request.partition(".")
    on = {"query": app.query, "train": app.train, "evaluate": app.evaluate}[category]
    (on(action) if action else on())(answer)


def _answer_safely(
    request: RecordDict,
    site: SiteConfig,
    on_progress: OnProgress,
    asked: Request,
    handler: Handler,
    settings: AppSettings,
) -> RecordDict:
    """Whatever goes wrong leaves as a code from the fixed list; the detail stays in the site's own log and display."""
    task = None
    try:
        private_folder(site.state)  # before anything is written there
        task = unpack_task(request)
        check_request(site.policy, task.study, task.round, task.stage)
        if settings.agreed is not None:
            check_agreed(settings.agreed, task.study)
        check_size(site, task.study)
        return _answer(request, site, on_progress, asked, handler, settings, task)
    except Exception as error:
        code = code_of(error)
        on_progress(site.name, "refused", 0, 0, str(error) if isinstance(error, RefusedError) else f"{code}: {error}")
        return refuse(site, code, error, task)


def _answer(
    request: RecordDict,
    site: SiteConfig,
    on_progress: OnProgress,
    asked: Request,
    handler: Handler,
    settings: AppSettings,
    task: RoundTask,
) -> RecordDict:
    """The answer to a request of a study that the site takes part in."""
    if settings.cache_answers:
        expect_counted_here(site)
    gateway, purpose = gateway_of(site), purpose_of(asked, task)
    check_asked(asked, purpose, task.study)
    check_allowed(site.policy, asked.answer)
    masks = masks_of(gateway, site, task.study, settings.is_simulated)
    in_sum = sum_of(masks, asked, purpose, task, request)
    claim = claim_of(site, purpose if settings.cache_answers else None, task, request)
    gateway = replace(gateway, claim=claim, answers=asked.answer, sum=in_sum)
    check_masks(gateway, task.study, asked.answer)
    kept = in_sum.kept() if in_sum is not None else None
    if kept is not None and not kept.facts.cases:
        return _again(gateway, kept, asked, task, site)
    if handler.caseless is not None:
        if masks is None:
            raise RefusedError(Code.BAD_STUDY, "asked for a part in masked sums, but the study has none")
        return handler.caseless(gateway, masks, task, request)
    if handler.unprepared is not None:
        return handler.unprepared(gateway, site, task)
    if handler.before is not None:
        handler.before(site, task, request, claim or (lambda: None))
    model = handed_model(site, task.study) if task.stage == "final" else None
    context = open_context(site, task.study, on_progress, task.stage, model)
    if kept is not None:  # whoever left the folder since, or was corrected, is in no sum any more
        expect_cases(context, task, str(purpose), kept.facts.cases)
        return _again(gateway, kept, asked, task, site)
    is_kept = settings.cache_answers and in_sum is None  # what leaves under masks is kept with them
    answer = handler.kept if is_kept and handler.kept is not None else handler.answer
    assert answer is not None  # or it takes none of the site's cases
    return answer(replace(context, gateway=gateway), task, request)


def _again(gateway: Gateway, kept: KeptValue, asked: Request, task: RoundTask, site: SiteConfig) -> RecordDict:
    """The value that a request was answered with before, once more under masks."""
    if asked.answer == "model_update":
        gateway = replace(gateway, spending=spending_of_kept(site.state, task))
    return release(gateway, kept, task.settings, task.round, kept.facts.num_patients)


def claim_of(site: SiteConfig, purpose: str | None, task: RoundTask, request: RecordDict) -> Claim | None:
    """What writes down that a request of some purpose is answered; None without one.

    Raises:
        RefusedError: it may not be, as another was.
    """
    if purpose is None:
        return None
    return may_answer(site.state, purpose, task, request, most_answers(site.policy, task.settings))


def refuse(site: SiteConfig, code: Code, why: object, task: RoundTask | None = None) -> RecordDict:
    """A code from the fixed list, through the egress gateway; `why` goes to the site's log only."""
    site_log(site).error("answered %s: %s", code.value, why, exc_info=why if isinstance(why, Exception) else None)
    return release_refusal(gateway_of(site), Refusal(code, site.name), task)


def site_from_node_config(context: Context) -> SiteConfig:
    """The site of a SuperNode: its node config names the site's own file."""
    return load_site(Path(str(context.node_config["site-config"])))


app = build_app(site_from_node_config, cache_answers=True)
