"""What a study asks that goes beyond a site's policy: a site refuses it, and a coordinator may know before."""

from __future__ import annotations

from collections.abc import Iterator

from msfl_common.config.message_kinds import KINDS
from msfl_common.config.site import Policy
from msfl_common.config.stages import stages_of, study_at, tasks_of
from msfl_common.config.study import StudyConfig


def beyond_policy(policy: Policy, study: StudyConfig, round_number: int = 1) -> Iterator[str]:
    """The settings of a study for which a site of this policy refuses it, in that round, each in words."""
    if refused := [task for task in tasks_of(study) if task not in policy.tasks]:
        yield f"task {refused[0]}, which `policy.tasks` does not name"
    if study.classification is not None and (kind := study.classification.model.kind) in policy.refuse_models:
        change = f"to take part, take {kind} out of it in site.yaml, then stop and start the site"
        yield f"model {kind}, which `policy.refuse_models` names; {change}"
    num_rounds = max(study_at(study, stage).rounds.num_rounds for stage in stages_of(study))
    if max(num_rounds, round_number) > policy.max_rounds:
        yield f"{num_rounds} rounds, at most {policy.max_rounds}"
    if study.training.steps_per_round > policy.max_steps_per_round:
        yield f"{study.training.steps_per_round} steps a round, at most {policy.max_steps_per_round}"
    masks = study.secure_aggregation
    if masks.method == "masks" and masks.min_sites < policy.min_sites_in_sum:
        yield (
            f"sums of {masks.min_sites} sites (secure_aggregation.min_sites), at least {policy.min_sites_in_sum} "
            "(policy.min_sites_in_sum)"
        )
    if masks.method == "none" and policy.require_masks:
        yield "no masks (secure_aggregation.method), and `policy.require_masks` lets nothing leave without"


def not_allowed(policy: Policy, study: StudyConfig) -> list[str]:
    """The kinds of message that a study asks for and a policy does not let leave."""
    return [name for name, kind in KINDS.items() if kind.asked_by(study) and name not in policy.allow]
