"""Secrets that a file of settings names and does not hold: in a file of their own, or in an environment variable.

`${NAME}` stands for a variable in the keys of secrets, and nowhere else: what trains where, and who is asked, is
written out. It is read where the secret is used and no sooner, so settings that are shown, kept or sent have its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from msfl_common.config.spelling import HomePath, spelled
from msfl_common.errors import ConfigError, InputError

_REFERENCE = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
# A port after the colon, and the `@` in a path, is no password.
_PASSWORD = re.compile(r":/{1,2}(?!/)[^/@[]*:(?!\d+/)[^@]*@|[?&;](?:password|passwd|pwd|token)=", re.IGNORECASE)
Variable = Annotated[str, spelled(_REFERENCE, "a file, or ${NAME}, an environment variable")]
Secret = Variable | HomePath


def refuse_variables(content: Mapping[str, Any], source: str, *secrets: str) -> None:
    """Refuse `${...}` in what is no secret.

    Args:
        content: of the file.
        source: the file.
        secrets: keys at its top that may be a variable.

    Raises:
        ConfigError: a line for each.
    """
    keys = " and ".join(f"`{key}`" for key in secrets)
    whose = f"secrets alone, in {keys}" if secrets else "secrets alone, and this file has none"
    faults = [
        f"{field}: found {text!r}; environment variables are read for {whose}; write the value out"
        for field, text in _texts(content, "")
        if "${" in text and not (field in secrets and re.fullmatch(_REFERENCE, text))
    ]
    if faults:
        raise ConfigError(source, faults)


def read_variable(reference: str, key: str) -> bytes:
    """What the variable `${NAME}` holds.

    Args:
        reference: as the file has it.
        key: of the file.

    Raises:
        InputError: it is not set, or empty.
    """
    value = os.environ.get(name_of(reference), "")
    if not value:
        raise InputError(f"{key}: the environment variable {name_of(reference)} is not set; set it, or name a file")
    return os.fsencode(value)


def name_of(reference: str) -> str:
    """The name of the variable `${NAME}`."""
    return reference[2:-1]


def environment_without(secret: Secret | None) -> dict[str, str]:
    """This process's environment, for processes that have no use for the secret."""
    name = name_of(secret) if isinstance(secret, str) else None
    return {key: value for key, value in os.environ.items() if key != name}


def refuse_password(uri: str, place: str, fix: str) -> None:
    """Refuse a URI that holds a password: before its host, with whatever is in it, or among its parameters.

    Raises:
        InputError: it does; the message does not repeat it.
    """
    if _PASSWORD.search(uri):
        raise InputError(f"{place}: holds a password, which would be in logs; {fix}")


def _texts(content: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield field, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _texts(value, f"{field}.{key}" if field else str(key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _texts(value, f"{field}.{number}")
