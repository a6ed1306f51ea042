"""The egress gateway, a site's only way out: each reply is checked against policy and written to the ledger first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from msfl_client.disclosure.floors import check_floor
from msfl_client.egress import ledger
from msfl_client.egress.ledger_content import SENT_FOLDER, keeper
from msfl_client.egress.ledger_late import late_of
from msfl_client.egress.ledger_line import Entry, InSum
from msfl_client.secure_aggregation.kept_values import KeptValue
from msfl_client.secure_aggregation.sum_answer import SumAnswer
from msfl_client.site.passphrase import unlock_here
from msfl_common import __version__
from msfl_common.config.message_kinds import KINDS, MASKED_AS
from msfl_common.config.optimisation import written_out
from msfl_common.config.policy_rules import beyond_policy
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.stages import Stage, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, MsflError, RefusedError
from msfl_common.harmonization import Moments, Residuals
from msfl_common.messages.figures import Figures
from msfl_common.messages.ledger import add_head
from msfl_common.messages.outgoing import Masked, Outgoing, kind_of, pack
from msfl_common.messages.records import (
    Content,
    ModelUpdate,
    Refusal,
    RoundTask,
    ValidationMetrics,
    describe,
    pack_refusal,
)
from msfl_common.secure_aggregation.layout import Layout
from msfl_common.trust.receipts import Signer

# What a value that leaves under masks is laid out as; it is made of the request, and not needed without masks.
AsSum = Callable[[], Layout[Any]]


@dataclass(frozen=True)
class Spending:
    """What an answer with noise brings the site's spending on its patients to; see `Entry`."""

    epsilon: float
    delta: float
    releases: int


@dataclass(frozen=True)
class Gateway:
    """Whose gateway it is and where its ledger lies.

    Attributes:
        policy: what may leave.
        ledger: where it is written down.
        signer: signs each line; None where a site has no key, as in a simulation.
        claim: writes down that a request is answered; see `answers`. None where answers are not counted.
        answers: the one kind of message that answers the request at hand; None outside of one.
        sum: the masked sum in which alone the answer may leave; None in a plain study.
        spending: of an answer with noise, what it is written down with.
        cases: digest of the cases that the answer is of, where they are held to it; see `rounds.handlers`.
        tells: digest of what the answer is made of, where one study may withhold more of it than another; empty where
            none can.
    """

    policy: Policy
    ledger: Path
    signer: Signer | None = None
    claim: Callable[[], None] | None = None
    answers: str | None = None
    sum: SumAnswer | None = None
    spending: Spending | None = None
    cases: str = ""
    tells: str = ""

    @property
    def sends_head(self) -> bool:
        """Whether the end of the ledger, signed, goes beside each message."""
        return self.signer is not None and "ledger_head" in self.policy.allow


@cache
def gateway_of(site: SiteConfig) -> Gateway:
    """The gateway of a site; its key is read once, where it has one.

    Raises:
        InputError: the key is there, but unsound.
    """
    has_key = site.key.is_absolute() and site.key.exists()  # a simulated site's file names none
    signer = Signer(site.name, unlock_here(site)) if has_key else None
    return Gateway(site.policy, site.state / ledger.LEDGER_FILE, signer)


def release(
    gateway: Gateway,
    outgoing: Outgoing | KeptValue,
    study: StudyConfig,
    round_number: int,
    num_patients: int,
    as_sum: AsSum | None = None,
    in_sum: InSum | None = None,
) -> Content:
    """Check, log and pack one outgoing message, under masks in a study with them; where the policy says so, keep it.

    Args:
        gateway: whose.
        outgoing: the message, or the value of one that left under masks before.
        study: of the stage that it belongs to.
        round_number: what it answers.
        num_patients: the smallest number of patients behind any figure in it; 0 where it has no figure of a patient.
        as_sum: of a kind that leaves under masks, how it is one vector in a sum.
        in_sum: of shares and rosters, which sum they are of.

    Raises:
        RefusedError: the site's policy does not allow this kind of message, it rests on too few cases, it would leave
            without masks where it must not, or it cannot be kept.
        ValueError: the request at hand is answered with another kind.
        OSError: the ledger cannot be written.
    """
    kind = outgoing.facts.kind if isinstance(outgoing, KeptValue) else kind_of(outgoing)
    if gateway.answers not in (None, kind) and MASKED_AS.get(str(gateway.answers)) != kind:
        raise ValueError(f"the request is answered with {gateway.answers}, not with {kind}")
    check_allowed(gateway.policy, kind)
    if num_patients or KINDS[kind].of_patients:
        check_floor(gateway.policy, study, num_patients)
    if not isinstance(outgoing, KeptValue):
        check_masks(gateway, study, kind)
    claim_sum: Callable[[], None] | None = None
    if gateway.sum is not None and (kind in MASKED_AS or isinstance(outgoing, KeptValue)):
        value = _value(gateway, gateway.sum, outgoing, kind, as_sum, num_patients)
        outgoing = masked = gateway.sum.hide(value)
        in_sum, claim_sum = _in_sum(gateway.sum, masked), partial(gateway.sum.claim, value, masked)
    assert not isinstance(outgoing, KeptValue)  # there is none without a sum
    packed, kind = pack(outgoing), kind_of(outgoing)
    content = packed.content
    keep, sent = gateway.policy.keep_content, gateway.ledger.with_name(SENT_FOLDER)
    keep_as = keeper(keep, sent, content, packed.arrays) if keep else None
    if gateway.claim is not None:
        gateway.claim()
    if claim_sum is not None:
        claim_sum()
    late_of(gateway.ledger).write(gateway.signer)
    entry = _entry(
        gateway, kind, content, study.name, round_number, packed.num_cases, num_patients, packed.arrays, in_sum=in_sum
    )
    if gateway.spending is not None:
        entry = entry.model_copy(update=asdict(gateway.spending))
    line = ledger.append(gateway.ledger, entry, gateway.signer, keep_as)
    if line.head_sent:
        add_head(content, line.signed_head)
    return content


def check_kind(policy: Policy, study: StudyConfig, kind: str) -> None:
    """Hold a kind of answer against the site's policy, in a study with masks also as what it leaves.

    Raises:
        RefusedError: with the code POLICY.
    """
    check_allowed(policy, kind)
    if study.secure_aggregation.method == "masks" and kind in MASKED_AS:
        check_allowed(policy, MASKED_AS[kind])


def check_masks(gateway: Gateway, study: StudyConfig, kind: str) -> None:
    """See that what is to be masked is; asked before anything is computed, and as it leaves.

    Raises:
        RefusedError: it would leave plain.
    """
    if kind not in MASKED_AS:
        return
    if gateway.sum is not None:
        check_allowed(gateway.policy, MASKED_AS[kind])
    elif study.secure_aggregation.method == "masks":
        raise RefusedError(Code.BAD_SUM, f"{kind} of a study with masks was asked for without naming a sum")
    elif gateway.policy.require_masks:
        raise RefusedError(Code.POLICY, f"{kind} leaves under masks alone (require_masks), and the study has none")


def _value(
    gateway: Gateway,
    place: SumAnswer,
    outgoing: Outgoing | KeptValue,
    kind: str,
    as_sum: AsSum | None,
    num_patients: int,
) -> KeptValue:
    """What leaves under masks, as numbers that add up."""
    if isinstance(outgoing, KeptValue):
        return outgoing
    if as_sum is None:
        raise ValueError(f"{kind}: expected how it is laid out in a sum")
    assert isinstance(
        outgoing, ModelUpdate | ValidationMetrics | Moments | Residuals | Figures
    )  # the kinds that are masked
    value = place.made(kind, as_sum(), outgoing, outgoing.num_cases, num_patients, gateway.cases)
    return replace(value, facts=value.facts.model_copy(update={"tells": gateway.tells or value.facts.tells}))


def _in_sum(place: SumAnswer, masked: Masked) -> InSum:
    """What the line of a value says of its sum."""
    context = place.context
    return InSum(
        roster=context.roster,
        sites=context.asked,
        least=max(place.roster.min_sites, place.roster.threshold),
        context=context.digest.hex(),
        request=context.request,
        digest=masked.hidden.head.payload,
    )


def release_refusal(gateway: Gateway, refusal: Refusal, task: RoundTask | None) -> Content:
    """Log and pack a refusal: a code from the fixed list and the site's name, whatever the policy.

    Where the ledger cannot be written (a full disk), the refusal leaves all the same: it holds no data, and
    without it the coordinator would wait for nothing. Its line is written when there is room, before anything else
    leaves.
    """
    content = pack_refusal(refusal)
    study, round_number = (task.settings.name, task.round) if task else ("", 0)
    entry = _entry(gateway, "refusal", content, study, round_number, 0, 0, {}, refusal.code.value)
    late = late_of(gateway.ledger)
    try:
        late.write(gateway.signer)
        line = ledger.append(gateway.ledger, entry, gateway.signer)
    except (OSError, MsflError):
        late.add(entry.model_copy(update={"late": datetime.now(UTC).isoformat(), "head_sent": False}))
        return content
    if line.head_sent:
        add_head(content, line.signed_head)
    return content


def _entry(
    gateway: Gateway,
    kind: str,
    content: Content,
    study: str,
    round_number: int,
    num_cases: int,
    num_patients: int,
    arrays: dict[str, list[int]],
    code: str = "",
    in_sum: InSum | None = None,
) -> Entry:
    described = describe(content)
    return Entry(
        kind=kind,
        study=study,
        round=round_number,
        arrays=arrays,
        numbers=described.numbers,
        num_bytes=described.num_bytes,
        sha256=described.sha256,
        num_cases=num_cases,
        min_patients=num_patients,
        version=__version__,
        code=code,
        policy=policy_sha256(gateway.policy),
        head_sent=gateway.sends_head,
        in_sum=in_sum,
    )


def policy_sha256(policy: Policy) -> str:
    """What a line says of the policy that its message passed."""
    return hashlib.sha256(policy.model_dump_json().encode()).hexdigest()


def check_allowed(policy: Policy, kind: str) -> None:
    """Hold a kind of message against the site's policy; asked before anything is computed, and as it leaves.

    Raises:
        RefusedError: with the code POLICY.
    """
    if kind not in policy.allow:
        raise RefusedError(Code.POLICY, f"{kind} may not leave this site: `policy.allow` does not name it")


def check_device_hours(policy: Policy, hours_today: float) -> None:
    """Hold the device time that studies have had today against the site's policy; a round under way may end.

    Raises:
        RefusedError: with the code POLICY.
    """
    limit = policy.max_device_hours_per_day
    if limit is not None and hours_today >= limit:
        raise RefusedError(Code.POLICY, f"{hours_today:.2f} device hours today, at most {limit:g}")


def check_request(policy: Policy, study: StudyConfig, round_number: int, stage: Stage = "final") -> None:
    """Hold what a study asks against the site's policy.

    Raises:
        RefusedError: with the code POLICY and the setting that goes beyond it.
    """
    if fault := next(beyond_policy(policy, study, round_number), None):
        raise RefusedError(Code.POLICY, fault)
    if not 1 <= round_number <= study_at(study, stage).rounds.num_rounds:
        raise RefusedError(Code.BAD_STUDY, f"round {round_number} is not one of the study")


def check_agreed(agreed: StudyConfig, study: StudyConfig) -> None:
    """Serve the study that the site was shown; only how its rounds go may have changed since, within the policy.

    Raises:
        RefusedError: with the code WRONG_STUDY and the settings that differ.
    """
    how = {"rounds": agreed.rounds}
    if study.segmentation is not None and agreed.segmentation is not None:
        how["segmentation"] = agreed.segmentation
    asked, expected = (
        json.loads(written_out(one).model_dump_json(), parse_float=str)
        for one in (study.model_copy(update=how), agreed)
    )
    if asked != expected:  # as they are written: 0.0 and -0.0 are equal, but what is kept under them is not
        differ = [key for key in {**expected, **asked} if asked.get(key) != expected.get(key)]
        raise RefusedError(Code.WRONG_STUDY, ", ".join(differ))
