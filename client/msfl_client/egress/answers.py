"""The register of answers: which request of each round and purpose a study was answered, on the site's own disk.

A coordinator that may ask at will needs few answers to find a patient (CONTRIBUTING.md). So each round gets one answer
of each purpose, rounds go forward only, and what happens once in a study happens once: the sums of a harmonization,
taking its reference, taking the model of lesions, and the test. The same request again, by a coordinator that crashed
or lost the reply, is answered again, as it tells nothing new. Another one is refused, until a person at the site
forgets the study's answers (`msfl-client reset-answers`).

Nor is anything answered of other cases than before: what differs between two answers of nearly the same cases is of the
patients who came or went. A study's cases are those of its first answer; `STAGE.cases` holds their digest.

`answers/STUDY/STAGE-PURPOSE.json` in the state folder maps the rounds to the SHA-256 of the request; what happens once
in a study, and the test of its last stage, have no stage in the file's name. It is looked into before anything is
computed, and written, to the disk, before anything leaves; where that cannot be done, nothing does.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from msfl_client.disclosure.answered_states import MOST_FIRST_SUMS
from msfl_client.egress.ledger_sums import ANSWERS_RESET
from msfl_client.egress.person_lines import write_line
from msfl_client.secure_aggregation.rosters import FOLDER as MASKS_FOLDER
from msfl_client.secure_aggregation.site_masks import answer_anew
from msfl_common.config.message_kinds import TEST, is_once
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.spelling import NAME
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.messages.records import Content, RoundTask, request_sha256
from msfl_common.system.files import private_folder, write_bytes

Claim = Callable[[], None]
FOLDER = "answers"
_MEASURED = ".measured"  # no study is called so
_Answered = TypeAdapter(dict[int, str])  # round, 0 for what happens once, to the request's SHA-256


def may_answer(state: Path, purpose: str, task: RoundTask, request: Content, max_rounds: int) -> Claim:
    """Hold a request against what was answered before.

    Args:
        state: the site's state folder.
        purpose: what is asked, by the name that `config.message_kinds` counts it under.
        task: what round it is asked for.
        request: the whole of it.
        max_rounds: most rounds of a study and purpose that may be answered; see `most_answers`.

    Returns:
        What writes down that it is answered; to be called before anything of the answer leaves or has an effect.

    Raises:
        RefusedError: another request was answered, a later round was, as many as may be were, or the register
            cannot be read.
    """
    once = is_once(purpose)
    of_study = once and (task.stage == "final" or purpose != TEST)  # a stage that hands out its best round tests it
    name = purpose if of_study else f"{task.stage}-{purpose}"
    path = state / FOLDER / task.study.name / f"{name}.json"
    number, sha256, answered = (
        0 if once else task.round,
        request_sha256(purpose, task, request),
        _read(path),
    )
    if answered.get(number) == sha256:
        return lambda: None
    if answered and number <= max(answered):
        when = "" if once else f" of round {number}, and of round {max(answered)}"
        raise RefusedError(Code.ANSWERED, f"{purpose} in study {task.study.name}: another request{when} came before")
    if len(answered) >= max_rounds:
        raise RefusedError(Code.POLICY, f"{len(answered)} rounds of {purpose} answered, at most {max_rounds}")
    return partial(_write, path, {**answered, number: sha256})


def most_answers(policy: Policy, study: StudyConfig) -> int:
    """Rounds of a stage and purpose that are answered: as many as the policy allows, and the model can need."""
    needed = study.classification.model.num_rounds_needed if study.classification else None
    return policy.max_rounds if needed is None else min(policy.max_rounds, needed + MOST_FIRST_SUMS - 1)


def of_same_cases(state: Path, study: str, of: str, cases: str) -> Claim:
    """Hold the cases of an answer against those of the answers before.

    Args:
        state: the site's state folder.
        study: its name.
        of: which answers: those of a stage, or of the harmonization.
        cases: their digest.

    Returns:
        What writes them down; to be called before anything of the answer leaves.

    Raises:
        RefusedError: other cases were answered of, or that cannot be read.
    """
    return _held(
        state / FOLDER / study / f"{of}.cases",
        cases,
        f"study {study} was answered of other cases ({{path}}): patients, visits or values have changed since, and the "
        "difference would tell of them; put back what was there, or let the study be answered anew with "
        "`msfl-client reset-answers`",
    )


def measured_on_same_cases(state: Path, weights_sha256: str, cases: str) -> Claim:
    """Hold the cases on which a network is measured against those on which the same weights were, in any study.

    Two measurements of the same weights on cases of which one set has a patient more tell that patient's.

    Args:
        state: the site's state folder.
        weights_sha256: of the network.
        cases: their digest.

    Returns:
        As of `of_same_cases`.

    Raises:
        RefusedError: they were measured on other cases, or that cannot be read.
    """
    return _held(
        state / FOLDER / _MEASURED / f"{weights_sha256}.cases",
        cases,
        "the same weights were measured on other cases of this site before ({path}), and the difference would tell of "
        "patients; put back the cases, shares and seed of before, or, where nobody could see both, delete that file",
    )


def _held(path: Path, cases: str, fault: str) -> Claim:
    try:
        before = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return partial(_write_down, path, cases.encode())
    except (OSError, ValueError):
        raise _unreadable(path) from None
    if before != cases:
        raise RefusedError(Code.ANSWERED, fault.format(path=path))
    return lambda: None


def num_answers(state: Path, study: str) -> dict[str, int | None]:
    """How many requests of a study have been answered, by stage and purpose; None where the register is damaged."""
    found: dict[str, int | None] = {}
    for path in sorted((state / FOLDER / study).glob("*.json")):
        try:
            found[path.stem] = len(_read(path))
        except RefusedError:
            found[path.stem] = None
    return found


def forget(site: SiteConfig, study: str) -> None:
    """Let a study be answered anew, from its first round on; the ledger says so first, what a strategy kept goes.

    In masked sums the site then takes part with a new key, and so in a new roster.

    Raises:
        InputError: there is no answer to forget, or the ledger was touched.
    """
    from msfl_client.training.site_strategy import FOLDER as STRATEGY_FOLDER  # PyTorch with it: no part of a ledger

    folder, masks = site.state / FOLDER / study, site.state / MASKS_FOLDER / study
    if not re.fullmatch(NAME, study) or not (folder.is_dir() or masks.is_dir()):
        raise InputError(f"{folder.parent}: no answer to study {study} is there; see `msfl-client ledger`")
    write_line(site, ANSWERS_RESET, study)
    answer_anew(site, study)
    shutil.rmtree(site.state / STRATEGY_FOLDER / study, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=not folder.exists())


def _write(path: Path, answered: dict[int, str]) -> None:
    _write_down(path, json.dumps(answered).encode())


def _write_down(path: Path, content: bytes) -> None:
    private_folder(path.parent, within=path.parents[2])  # the state folder
    write_bytes(path, content, secret=True)


def _read(path: Path) -> dict[int, str]:
    try:
        return _Answered.validate_json(path.read_bytes()) if path.exists() else {}
    except (OSError, ValidationError):
        raise _unreadable(path) from None


def _unreadable(path: Path) -> RefusedError:
    detail = f"{path}: not a register of answers; only `msfl-client reset-answers` lets the study continue"
    return RefusedError(Code.INTERNAL, detail)
