"""What a site does for the masked sums of a study: its key, the roster, which sum an answer is for, opening a sum."""

from __future__ import annotations

from msfl_client.egress.gateway import Gateway, release
from msfl_client.egress.ledger_line import InSum
from msfl_client.egress.ledger_receipts import Receipts
from msfl_client.secure_aggregation.kept_values import kept_value
from msfl_client.secure_aggregation.rosters import FOLDER
from msfl_client.secure_aggregation.site_masks import SiteMasks, site_masks
from msfl_client.secure_aggregation.sum_answer import SumAnswer, expect_sum
from msfl_common import __version__
from msfl_common.config.message_kinds import MASKED_AS, TEST, VALIDATION, Request
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError, UpdateError
from msfl_common.messages.masks import context_of, unpack_opening, unpack_roster
from msfl_common.messages.records import Content, NodeFacts, RoundTask, request_sha256


def masks_of(gateway: Gateway, site: SiteConfig, study: StudyConfig, is_simulated: bool) -> SiteMasks | None:
    """The site's part in the masked sums of a study; None of a study without masks.

    Raises:
        RefusedError: it has no key, and is no site of a simulation; or the ledger was set back, and so perhaps all that
            is known of what left under masks.
        InputError: the ledger or its receipts were edited.
    """
    if study.secure_aggregation.method != "masks":
        return None
    if Receipts.of(gateway.ledger).is_ahead_of(gateway.ledger):
        detail = (
            f"{gateway.ledger}: the coordinator has signed a later line: the state was set back. Move ledger.*, sent "
            f"and {FOLDER} out of {site.state}, keep them, and start: the site then takes part with a new key"
        )
        raise RefusedError(Code.NO_MASK_KEY, detail)
    return site_masks(site, study, gateway.signer.key if gateway.signer else None, is_simulated)


def sum_of(
    masks: SiteMasks | None, asked: Request, purpose: str | None, task: RoundTask, request: Content
) -> SumAnswer | None:
    """The sum in which alone a request's answer may leave; None of one that is not masked.

    Raises:
        RefusedError: see `SiteMasks.expect`; or a sum is named where none is.
    """
    try:
        context = context_of(request)
    except UpdateError as error:
        raise RefusedError(Code.BAD_SUM, str(error)) from None
    if context is None:
        return None  # that a study with masks names one is seen by `check_masks`
    if masks is None or purpose is None or asked.answer not in MASKED_AS:
        raise RefusedError(Code.BAD_SUM, "a sum was named with a request whose answer is in none")
    return expect_sum(masks, context, request_sha256(purpose, task, request), f"{task.stage}-{purpose}")


def site_mask_key(gateway: Gateway, masks: SiteMasks, task: RoundTask, _: Content) -> Content:
    """The site's public key for masks, signed."""
    return release(gateway, masks.entry(), task.settings, task.round, 0)


def site_roster(gateway: Gateway, masks: SiteMasks, task: RoundTask, request: Content) -> Content:
    """The roster in; once a person has confirmed it, that is told, and no number of cases."""
    try:
        roster = unpack_roster(request)
    except UpdateError as error:
        raise RefusedError(Code.BAD_SUM, str(error)) from None
    masks.take(roster)
    masks.expect_confirmed(roster.digest)
    facts = NodeFacts(masks.site.name, __version__, 0)
    in_sum = InSum(roster=roster.digest, sites=roster.names, least=max(roster.min_sites, roster.threshold))
    return release(gateway, facts, task.settings, task.round, 0, in_sum=in_sum)


def site_opening(gateway: Gateway, masks: SiteMasks, task: RoundTask, request: Content) -> Content:
    """Which values are in a sum in, this site's shares of their masks out; after the study's last, its key goes."""
    try:
        opening = unpack_opening(request)
    except UpdateError as error:
        raise RefusedError(Code.BAD_SUM, str(error)) from None
    shares, context = masks.open(opening), opening.context
    in_sum = InSum(
        roster=context.roster,
        sites=opening.members,
        least=len(opening.members),
        context=context.digest.hex(),
        request=context.request,
        digest=opening.digest,
    )
    content = release(gateway, shares, task.settings, task.round, 0, in_sum=in_sum)
    if task.is_last and _is_measured(masks, task, context.request):
        masks.end()
    return content


def _is_measured(masks: SiteMasks, task: RoundTask, request: str) -> bool:
    """Whether a sum is of metrics, after which of a study's last nothing is asked."""
    purposes = (f"{task.stage}-{purpose}" for purpose in (VALIDATION, TEST))
    return any(kept_value(masks.folder, purpose, request) is not None for purpose in purposes)
