"""What a person is shown before saying yes to a joining kit."""

from __future__ import annotations

import sys

from rich.console import Console

from msfl_client.site.kit_approval import differences
from msfl_common.config.classification import DeepModel
from msfl_common.config.clinical_values import described
from msfl_common.config.message_kinds import asked_for
from msfl_common.config.site import Policy
from msfl_common.config.stages import stages_of, study_at, tasks_of
from msfl_common.errors import InputError
from msfl_common.trust.kit import SignedKit, fingerprint, spoken


def print_kit(console: Console, policy: Policy, kit: SignedKit, approved: SignedKit | None) -> None:
    """What the kit asks and whom it trusts; where another one was approved, each setting that differs.

    Args:
        console: where.
        policy: the site's.
        kit: the one that is to be approved.
        approved: the one that was.
    """
    for line in describe_kit(kit) if approved is None else describe_change(approved, kit):
        console.print(line if line.isprintable() else ascii(line))
    for line in beware(kit, policy):
        console.print(line)
    console.print("Fingerprint of the study's authority; compare it with the coordinator's over the telephone:")
    for line in spoken(fingerprint(kit.authority)).splitlines():
        console.print(f"    {line}")


def describe_kit(kit: SignedKit) -> list[str]:
    """The study in plain words, a line for each thing."""
    study, outcome = kit.study, kit.study.classification
    contrasts: tuple[str, ...] = study.inputs.network_channels
    inputs, model = contrasts, f"segmentation network {study.network.kind}, {study.network.dimensions}D"
    if outcome is not None:
        sees_images = study.segmentation is not None or outcome.features or isinstance(outcome.model, DeepModel)
        inputs = (*(contrasts if sees_images else ()), *outcome.features, *map(described, outcome.values.values()))
        model = outcome.model.kind
    lines = {
        "study": study.name,
        "for site": kit.kit.site,
        "server": kit.kit.address,
        "task": ", then ".join(tasks_of(study)),
        "model": model,
        "rounds": ", then ".join(str(study_at(study, stage).rounds.num_rounds) for stage in stages_of(study)),
        "asks for": f"{', '.join(asked_for(study))}; `policy:` in site.yaml decides",
        "inputs": ", ".join(inputs),
        "harmonization": study.harmonization.method,
    }
    if study.evaluate is not None:
        whom = "patients whom its training left out" if kit.kit.site in study.evaluate.trained_at else "all patients"
        lines["rounds"] = f"none: a trained model is measured, here on {whom}"
        lines["weights"] = f"SHA-256 {study.evaluate.weights_sha256}"
    if study.secure_aggregation.method == "masks":
        fewest = study.secure_aggregation.min_sites
        lines["sums"] = f"under masks, of at least {fewest} sites: the coordinator sees no site's own figures"
    return ["The kit says:", *(f"  {name + ':':15}{value}" for name, value in lines.items())]


def beware(kit: SignedKit, policy: Policy) -> list[str]:
    """What a person should know before saying yes, whether it is new or was so before."""
    outcome = kit.study.classification
    if outcome is None or not outcome.model.can_be_solved:
        return []
    kind = outcome.model.kind
    refused = f" Until {kind} is removed from `policy.refuse_models` in site.yaml, this site takes no part."
    return [
        f"BEWARE: from the answers to a model of kind {kind}, a coordinator in bad faith can read single patients' "
        "inputs. Say yes only if you would show them to it; else ask for another model (deploy/hospital-it.md)."
        + (refused if kind in policy.refuse_models else "")
    ]


def describe_change(old: SignedKit, new: SignedKit) -> list[str]:
    """Each setting that differs, old and new."""
    changed = differences(old, new)
    if not changed:
        return ["The kit says what the approved one says."]
    return [
        "The kit differs from the one that was approved:",
        *(f"  {name}: {before} -> {after}" for name, before, after in changed),
    ]


def is_approved(
    console: Console, kit: SignedKit, approved: SignedKit | None, yes: bool, given: str | None, lost: bool = False
) -> bool:
    """Whether a person says yes: by the authority's fingerprint, by `--yes`, or when asked on the console.

    Raises:
        InputError: the fingerprint is another, or there is nobody to ask; `--yes` alone changes no authority.
    """
    found = fingerprint(kit.authority)
    if given is not None:
        if "".join(given.split()).replace(":", "").lower() != found:
            raise InputError(
                f"--fingerprint: the kit's authority has another, {found}; do not continue: ask the coordinator"
            )
        return True
    if approved is not None and approved.digest == kit.digest:
        return True  # a person has said yes to this very kit
    # Of an approval that cannot be read any more, nobody can tell whether its authority was this one.
    same_authority = not lost and (approved is None or fingerprint(approved.authority) == found)
    if yes and same_authority:
        return True
    if not sys.stdin.isatty():
        way = "--fingerprint HEX or --yes" if same_authority else "--fingerprint HEX; --yes changes no authority"
        raise InputError(f"the kit needs a person's yes, and there is no terminal; run it in one, or with {way}")
    console.print("Approve it? Type yes: ", end="")
    console.file.flush()
    return sys.stdin.readline().strip().lower() == "yes"
