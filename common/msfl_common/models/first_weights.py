"""A study's first weights, kept in its run's folder with what is told of where they come from.

A run that is gone on with starts from this file: what it started from may be changed or gone by then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, reason
from msfl_common.models.started_from import StartedFrom
from msfl_common.models.weights import Weights, to_safetensors
from msfl_common.system.files import write_bytes
from msfl_common.system.processes import child_environment, python_command
from msfl_common.system.reading import parse_record

log = logging.getLogger(__name__)

FIRST_FILE = "first_weights.safetensors"
_DIGEST = ".sha256"  # after its name: of the file as it was written
_FIX = "put it back from a backup, or begin anew with another --output"
_ORDER = "order"  # safetensors sorts by name; the network's own order is kept beside
_STARTED_FROM = "started_from"


def first_weights(study: StudyConfig, file: Path, start_from: Path | None = None) -> Weights:
    """The weights that a study starts from, kept in `file`; see `msfl_common.models.starting_weights.started`.

    They are made by a short process of its own: the server averages arrays, and a deep-learning framework would
    take most of its memory and of its time to start.

    Raises:
        InputError: the study's model cannot start from `start_from`.
    """

    def made() -> bytes:
        command = python_command("msfl_common.models.starting_weights", *([start_from] if start_from else []))
        content = study.model_dump_json().encode()
        done = subprocess.run(command, input=content, capture_output=True, env=child_environment())
        told = done.stderr.decode(errors="replace").splitlines()
        if done.returncode:
            raise InputError(f"no first weights: {told[-1] if told else done.returncode}")
        for line in told:
            log.info("%s", line)
        return done.stdout

    return kept_first(file, made)


def kept_first(file: Path, made: Callable[[], bytes]) -> Weights:
    """The first weights in `file`; where it is not there yet, what `made` makes as `first_content` is written first.

    Raises:
        InputError: the file is damaged, or no longer the one that was written.
    """
    digest = file.with_name(f"{file.name}{_DIGEST}")
    if not file.exists():
        content = made()
        made_digest = hashlib.sha256(content).hexdigest()
        if digest.exists() and _text(digest) != made_digest:
            raise InputError(f"{file}: is gone, and what it was made of has changed; {_FIX}")
        write_bytes(digest, made_digest.encode())  # before it: a file without one is older
        write_bytes(file, content)
    try:
        if digest.exists() and hashlib.sha256(file.read_bytes()).hexdigest() != _text(digest):
            raise InputError(f"{file}: is not what this run wrote and started from, by {digest.name}; {_FIX}")
        with safe_open(file, framework="np") as stored:
            return {name: stored.get_tensor(name) for name in json.loads((stored.metadata() or {})[_ORDER])}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{file}: is damaged ({reason(error)}); {_FIX}") from None


def _text(digest: Path) -> str:
    try:
        return digest.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"{digest}: is damaged ({reason(error)}); {_FIX}") from None


def first_content(first: Weights, told: StartedFrom | None) -> bytes:
    """First weights and what is told of them, as a file's content."""
    metadata = {_ORDER: json.dumps(list(first))}
    return to_safetensors(first, metadata if told is None else metadata | {_STARTED_FROM: told.model_dump_json()})


def kept_start(out: Path) -> StartedFrom | None:
    """What is told of where the first weights of the run in `out` come from; None where those are random.

    Raises:
        InputError: the file is damaged, or none that the run wrote.
    """
    file = out / FIRST_FILE
    if not file.exists():
        return None
    try:
        digest = file.with_name(f"{file.name}{_DIGEST}")
        if not digest.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != _text(digest):
            raise InputError(f"{file}: is not what this run wrote and started from, by {digest.name}; {_FIX}")
        with safe_open(file, framework="np") as stored:
            told = (stored.metadata() or {}).get(_STARTED_FROM)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: is damaged ({reason(error)}); {_FIX}") from None
    return None if told is None else parse_record(StartedFrom, told, str(file))
