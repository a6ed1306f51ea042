"""Files and texts of others: how long, how deep and of what they may be is checked before anything is made of them.

YAML is read without aliases (a few lines of them fill any memory) and without tags; YAML and JSON without a key that
is there twice, of which the last would silently win, without NaN, and without control characters, which no setting
needs and a terminal obeys.
"""

from __future__ import annotations

import json
import logging
import math
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from msfl_common.errors import ConfigError, unreadable
from msfl_common.system.foreign_text import is_plain, shown
from msfl_common.system.setting_faults import describe_faults

MOST_SETTINGS = 2**18  # bytes of a file that people write, or of a study
MOST_RECORD = 2**24  # bytes of a file that MSFL writes
MOST_KEY = 2**16  # bytes of a key, a certificate or a passphrase
MOST_LEVELS = 24  # of lists and mappings in each other
MOST_DIGITS = 300  # of a number

Model = TypeVar("Model", bound=BaseModel)
log = logging.getLogger(__name__)


def read_bounded(path: Path, most_bytes: int = MOST_RECORD) -> bytes:
    """The content of a plain file, of which no more than the limit is ever read.

    Raises:
        ConfigError: it is longer, or no plain file.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(mode := path.stat().st_mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise ConfigError(str(path), [f"expected a plain file, found {what}; correct its name"])
    with path.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ConfigError(str(path), [f"expected at most {most_bytes} bytes, found more; correct its name"])
    return content


def read_text(path: Path, most_bytes: int = MOST_RECORD) -> str:
    """The text of a file.

    Raises:
        ConfigError: it is not there, cannot be read, is too long, or not UTF-8.
    """
    try:
        return _decoded(read_bounded(path, most_bytes), str(path))
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file; correct its name"]) from None
    except OSError as error:
        raise ConfigError(str(path), [unreadable(error)]) from None


def parse_yaml(text: str, source: str) -> Any:
    """A YAML document of plain values.

    Raises:
        ConfigError: it is not YAML, or YAML that no settings need.
    """
    try:
        return yaml.load(text, _PlainLoader)  # a SafeLoader, narrowed
    except yaml.MarkedYAMLError as error:
        at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        said = shown(error.problem or str(error), 400)
        fix = "write a backslash twice, or leave the double quotes out" if "escape" in said else "correct it there"
        raise ConfigError(source, [f"not valid YAML: {at}{said}; {fix}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError(source, [f"not valid YAML: {shown(' '.join(str(error).split()), 400)}"]) from None
    except (ValueError, OverflowError, RecursionError, AttributeError, TypeError) as error:  # pyyaml's own slips
        raise ConfigError(source, [f"not valid YAML: {shown(str(error))}"]) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The `key: value` lines of a YAML file.

    Raises:
        ConfigError: the file is missing, or is not YAML.
    """
    log.debug("reading %s", path)
    return mapping_of(read_text(path, MOST_SETTINGS), str(path))


def mapping_of(content: str | bytes, source: str) -> dict[str, Any]:
    """The `key: value` lines of a YAML text.

    Raises:
        ConfigError: it is not YAML.
    """
    found = parse_yaml(_decoded(content, source) if isinstance(content, bytes) else content, source)
    if not isinstance(found, dict):
        kind = "nothing" if found is None else "a list" if isinstance(found, list) else shown(repr(found), 40)
        raise ConfigError(source, [f"expected `key: value` lines at the top, found {kind}"])
    return found


def parse_json(content: str | bytes, source: str, most: int = MOST_RECORD) -> Any:
    """A JSON document.

    Raises:
        ConfigError: it is not JSON, too long, too deep, has a key twice, or a number that is none.
    """
    if len(content) > most:
        raise ConfigError(source, [f"expected at most {most} bytes, found more"])
    text = _decoded(content, source) if isinstance(content, bytes) else content
    try:
        found = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ConfigError(source, [_too_deep()]) from None
    except json.JSONDecodeError as error:
        raise ConfigError(source, [f"not valid JSON, from line {error.lineno} on"]) from None
    except ValueError as error:
        raise ConfigError(source, [f"not valid JSON: {shown(str(error))}"]) from None
    _check_levels(found, source)
    return found


def read_mapping(path: Path) -> dict[str, Any]:
    """The JSON mapping in a file that the program can do without; empty where there is none that can be read."""
    return find_mapping(path) or {}


def find_mapping(path: Path) -> dict[str, Any] | None:
    """The JSON mapping in a file of others, in any encoding of Unicode; None where there is none that can be read."""
    try:
        content = json.loads(read_bounded(path))
    except (ConfigError, OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def parse_record(model: type[Model], content: str | bytes, source: str, most: int = MOST_RECORD) -> Model:
    """A JSON document as its model.

    Raises:
        ConfigError: it is not JSON, or does not validate; the first fault in one line.
    """
    parse_json(content, source, most)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise ConfigError(source, describe_faults(error, model)[:1]) from None


def read_record(model: type[Model], path: Path, most_bytes: int = MOST_RECORD) -> Model:
    """A JSON file as its model.

    Raises:
        ConfigError: see `parse_record`; or it cannot be read.
    """
    return parse_record(model, read_text(path, most_bytes), str(path), most_bytes)


class _PlainLoader(yaml.SafeLoader):
    """Plain values alone: no aliases, tags or keys twice, and only so deep."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._levels = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError(f"anchors and aliases (& and *) are not read{_at(event)}; write the value out")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"tags (!) are not read{_at(event)}; write the plain value")
        if self._levels >= MOST_LEVELS:
            raise yaml.YAMLError(_too_deep())
        self._levels += 1
        node = super().compose_node(parent, index)
        self._levels -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                raise yaml.YAMLError(f"expected a plain key{_at(key)}")
            if key.value in seen:
                raise yaml.YAMLError(f"{shown(key.value)} is there twice{_at(key)}; leave one out")
            seen.add(key.value)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if not is_plain(value):
            raise yaml.YAMLError(f"a control character{_at(node)}; take it out")
        is_number = node.tag.rpartition(":")[2] in ("int", "float")
        if is_number and len(value) > MOST_DIGITS:
            raise yaml.YAMLError(f"expected at most {MOST_DIGITS} digits{_at(node)}")
        return value


def _at(node: Any) -> str:
    mark = node.start_mark
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


def _too_deep() -> str:
    return f"expected at most {MOST_LEVELS} lists and mappings in each other, found more"


def _decoded(content: bytes, source: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            source, [f"cannot be read as text: byte {error.start} is not UTF-8; save it as UTF-8"]
        ) from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise ValueError(f"{shown(twice)} is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large")
    return value


def _check_levels(content: Any, source: str) -> None:
    level, number = [content], 0
    while level:
        number += 1
        if number > MOST_LEVELS + 1:
            raise ConfigError(source, [_too_deep()])
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
