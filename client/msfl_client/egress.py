"""The one door out of a site: a reply is checked against policy and written down before it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msfl_client import ledger
from msfl_common import __version__
from msfl_common.config import MessageKind, Policy, StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages import (
    Content,
    ModelUpdate,
    NodeFacts,
    ValidationMetrics,
    describe,
    pack_facts,
    pack_metrics,
    pack_update,
)

Outgoing = ModelUpdate | ValidationMetrics | NodeFacts
_KINDS: dict[type[Outgoing], MessageKind] = {
    ModelUpdate: "model_update",
    ValidationMetrics: "validation_metrics",
    NodeFacts: "node_facts",
}


@dataclass(frozen=True)
class Door:
    """Whose door it is and where its ledger lies."""

    policy: Policy
    ledger: Path


def release(door: Door, outgoing: Outgoing, study: StudyConfig, round_number: int) -> Content:
    """Check, log and pack one outgoing message.

    Raises:
        RefusedError: the site's policy does not allow this kind of message, or it rests on too few cases.
    """
    kind = _KINDS[type(outgoing)]
    if kind not in door.policy.allow:
        raise RefusedError(Code.POLICY, f"{kind} may not leave this site")
    content, num_cases = _pack(outgoing)
    described = describe(content)
    entry = ledger.Entry(
        kind=kind,
        study=study.name,
        round=round_number,
        arrays=described.arrays,
        numbers=described.numbers,
        num_bytes=described.num_bytes,
        sha256=described.sha256,
        num_cases=num_cases,
        version=__version__,
    )
    ledger.append(door.ledger, entry)
    return content


def check_floor(policy: Policy, study: StudyConfig, num_patients: int) -> None:
    """Withhold metrics over fewer patients than the site, or the study, demands.

    Raises:
        RefusedError: with the code TOO_FEW_CASES.
    """
    floor = max(policy.min_cases, study.min_cases)
    if num_patients < floor:
        raise RefusedError(Code.TOO_FEW_CASES, f"{num_patients} patients in validation, at least {floor} needed")


def check_device_hours(policy: Policy, hours_today: float) -> None:
    """Hold the device time that studies have had today against the site's policy; a round under way may end.

    Raises:
        RefusedError: with the code POLICY.
    """
    limit = policy.max_device_hours_per_day
    if limit is not None and hours_today >= limit:
        raise RefusedError(Code.POLICY, f"{hours_today:.2f} device hours today, at most {limit:g}")


def check_request(policy: Policy, study: StudyConfig, round_number: int) -> None:
    """Hold what a study asks against the site's policy.

    Raises:
        RefusedError: with the code POLICY and the setting that goes beyond it.
    """
    if study.task not in policy.tasks:
        raise RefusedError(Code.POLICY, f"task {study.task}")
    if max(study.rounds.num_rounds, round_number) > policy.max_rounds:
        raise RefusedError(Code.POLICY, f"{study.rounds.num_rounds} rounds, at most {policy.max_rounds}")
    if study.training.steps_per_round > policy.max_steps_per_round:
        raise RefusedError(
            Code.POLICY,
            f"{study.training.steps_per_round} steps a round, at most {policy.max_steps_per_round}",
        )


def _pack(outgoing: Outgoing) -> tuple[Content, int]:
    match outgoing:
        case ModelUpdate():
            return pack_update(outgoing), outgoing.num_cases
        case ValidationMetrics():
            return pack_metrics(outgoing), outgoing.num_cases
        case NodeFacts():
            return pack_facts(outgoing), outgoing.cases_at_least
