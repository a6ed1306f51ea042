"""What a coordinator can know of a study before any site has it: what `msfl-server check` says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rich.filesize import decimal

from msfl_common.config.policy_rules import beyond_policy, not_allowed
from msfl_common.config.site import Policy
from msfl_common.config.stages import raised_to_quorum
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, MsflError
from msfl_common.models.evaluated_model import check_evaluated
from msfl_common.models.unused_settings import inapplicable, unused_settings
from msfl_common.privacy_accounting import privacy_lines
from msfl_common.system.files import quoted, read_secret
from msfl_common.system.lock import holder
from msfl_common.system.words import counted
from msfl_server.rounds.mask_roster import fewest_of, masks_fault
from msfl_server.run.cost import cost_of
from msfl_server.study.folder import certificate_warning, list_sites
from msfl_server.study.paths import StudyFolder
from msfl_server.study.ports import check_ports
from msfl_server.study.server_config import load_server
from msfl_server.study.sites import stale_kits

Level = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: in order, to be known, or what `start` would fail of."""

    level: Level
    what: str
    text: str


def check_settings(study: StudyConfig) -> Iterator[Finding]:
    """What the study's settings ask, and which of them do not act."""
    seen = "no images" if "inputs.contrasts" in inapplicable(study) else ", ".join(study.inputs.network_channels)
    does = "rounds need" if study.evaluate is None else "measures a trained model, which needs"
    yield Finding("ok", "study", f"{study.name}: {study.task}, {seen}, {does} {study.rounds.quorum} sites")
    for line in unused_settings(study):
        yield Finding("note", "setting", line)
    for is_warning, text in privacy_lines(study):
        yield Finding("note" if is_warning else "ok", "privacy", text)
    try:
        for cost in cost_of(study):
            yield Finding("ok", "model" if cost.stage == "final" else f"model of {cost.stage}", cost.in_words)
    except MsflError as error:
        yield Finding("fault", "model", str(error))
    if name := study.validation.best_by:
        patience = study.validation.patience
        ends = f", and ends after {counted(patience, 'validation')} without a better one" if patience else ""
        yield Finding("ok", "choice", f"hands out the model of the best round by {name} on validation patients{ends}")
    if study.classification is None and study.evaluate is None:
        yield _who_tests(study)
    policy = Policy()
    for line in beyond_policy(policy, study):
        yield Finding("note", "policy", f"a site with the default policy refuses the study: {line}")
    for kind in not_allowed(policy, study):
        yield Finding(
            "note", "policy", f"a site with the default policy does not send {kind}: it has to stand in `policy.allow`"
        )
    floor = max(policy.min_patients, study.min_patients)
    yield Finding(
        "ok", "patients", f"each figure and each class in it needs {floor} patients at a site, or is withheld"
    )


def _who_tests(study: StudyConfig) -> Finding:
    """Whose the final figures of a segmentation are."""
    validation = study.validation
    if validation.fold is not None:
        held = validation.fold.site or f"fold {validation.fold.number} of {validation.fold.of} of each site's patients"
        return Finding("ok", "test", f"final figures are of {held}, who neither train nor choose")
    if validation.test_fraction:
        told = (
            f"final figures are of {validation.test_fraction:g} of each site's patients, who neither train nor choose"
        )
        return Finding("ok", "test", f"{told}; a site where those are fewer than {study.min_test_patients} keeps none")
    told = "final figures are of validation patients, who may have chosen the model or its settings"
    return Finding("note", "test", f"{told}; validation.test_fraction, such as 0.25, keeps patients who do not")


def check_folder(folder: StudyFolder, study: StudyConfig, lock: str) -> Iterator[Finding]:
    """What `start` would need of the study's folder and of this machine; `lock`: the file that a running server has.

    A fault that several things meet, as a file that each needs, is said once.
    """
    said: set[str] = set()
    for one in _look_at(folder, study, lock):
        if one.level != "fault" or one.text not in said:
            yield one
        said.add(one.text)


def _look_at(folder: StudyFolder, study: StudyConfig, lock: str) -> Iterator[Finding]:
    yield from _looked_at("server", lambda: f"sites reach it at {load_server(folder.server_file).address}")
    sites = list_sites(folder)
    if study.evaluate is not None:
        yield from _looked_at("evaluate", lambda: _evaluated(folder, study, sites))
    lacking = len(sites) < study.rounds.quorum
    more = f"; a round needs {study.rounds.quorum}: add more with `msfl-server add-site`" if lacking else ""
    yield Finding("note" if lacking else "ok", "sites", (", ".join(sites) or "none is authorised") + more)
    for line in raised_to_quorum(study, len(sites)):
        yield Finding("note", "setting", line)
    yield from _masks(study, len(sites))
    try:
        if warning := certificate_warning(folder):
            yield Finding("note", "certificate", warning)
        if stale := stale_kits(folder):
            yield Finding(
                "note",
                "kits",
                f"those of {', '.join(stale)} hold another study: run `msfl-server renew-kits {quoted(folder.root)}`",
            )
    except (MsflError, OSError) as error:
        yield Finding("fault", "certificate", str(error))
    yield from _secrets(folder)
    if holder(folder.root / lock) is not None:
        yield Finding("ok", "ports", "the study's server is running")
    else:
        yield from _looked_at("ports", lambda: _ports(folder))
    yield from _disk(folder.root, study, max(len(sites), study.rounds.quorum))


def _evaluated(folder: StudyFolder, study: StudyConfig, sites: Sequence[str]) -> str:
    """Whether the model that the study measures is there, and on whom it is measured."""
    assert study.evaluate is not None
    named = load_server(folder.server_file).model
    if named is None:
        raise InputError(f"{folder.server_file}: names no `model`, the folder of the one that the study measures")
    check_evaluated(study, named)
    known = sorted({*study.evaluate.trained_at} & {*sites})
    return (
        f"{named} is the model; measured on patients whom its training left out at {', '.join(known) or 'no site'}, on "
        "all patients at any other: a site that trained it has the name here that it had there"
    )


def _masks(study: StudyConfig, num_sites: int) -> Iterator[Finding]:
    """Whether the sites are enough for sums under masks, and how many of them open one."""
    settings = study.secure_aggregation
    if settings.method != "masks":
        return
    if fault := masks_fault(settings, num_sites):
        yield Finding("note" if num_sites < fewest_of(settings) else "fault", "masks", fault)
    else:
        yield Finding(
            "ok",
            "masks",
            f"a sum has {settings.min_sites} sites or more, and {settings.threshold_of(num_sites)} of {num_sites} open "
            "it; people at each site confirm the roster before the first one",
        )


def _ports(folder: StudyFolder) -> str:
    check_ports(folder, load_server(folder.server_file), patience_s=0)
    return "all are free"


def _secrets(folder: StudyFolder) -> Iterator[Finding]:
    """Keys and passwords that other accounts may use."""
    secrets = [folder.ca_key, folder.server_key, folder.ca_key.with_name("control.secret"), *_passwords(folder)]
    faults = [fault for path in secrets if path.exists() for fault in _looked_at("secrets", partial(_read, path))]
    yield from [one for one in faults if one.level == "fault"] or [
        Finding("ok", "secrets", "this account's alone: " + ", ".join(path.name for path in secrets if path.exists()))
    ]


def _passwords(folder: StudyFolder) -> list[Path]:
    try:
        login = load_server(folder.server_file).mlflow_login
    except MsflError:
        login = None
    own = folder.root / "mlflow" / "password"
    return [own, *([login] if isinstance(login, Path) else [])]


def _read(path: Path) -> str:
    read_secret(path)
    return str(path)


def _disk(root: Path, study: StudyConfig, num_sites: int) -> Iterator[Finding]:
    """Whether the checkpoints, and the answers of a round, have room."""
    try:
        needed = sum(cost.kept_bytes + 2 * num_sites * cost.from_site_bytes for cost in cost_of(study))
    except MsflError:  # said already
        return
    free = shutil.disk_usage(root).free
    text = f"{decimal(free)} free; checkpoints and answers of {num_sites} sites take {decimal(needed)}"
    if free < needed:
        yield Finding("fault", "disk", f"{text}: free some, or move the folder")
    else:
        yield Finding("ok", "disk", text)


def _looked_at(what: str, look: Callable[[], str]) -> Iterator[Finding]:
    try:
        yield Finding("ok", what, look())
    except (MsflError, OSError) as error:
        for line in str(error).splitlines():
            yield Finding("fault", what, line)
