"""Settings of a study on the command line, as in `--set rounds.num_rounds=20`: in the place of those of its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from msfl_common.config.base import validate
from msfl_common.config.former_keys import former_keys
from msfl_common.config.secrets import refuse_variables
from msfl_common.config.spelling import no_such
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import ConfigError, InputError
from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.base import Strategy
from msfl_common.system.reading import parse_yaml, read_yaml


def load_study_with(path: Path, assignments: Sequence[str]) -> StudyConfig:
    """Read `study.yaml`, with settings in the place of its own.

    Args:
        path: the file.
        assignments: `key=value` each: a dotted key, and its value as the file would have it.

    Raises:
        ConfigError: see `load_study`; or the study with these settings does not validate.
        InputError: an assignment is none, names a key twice or one that there is not.
    """
    if not assignments:
        return load_study(path)
    content = read_yaml(path)
    if faults := former_keys(content):
        raise ConfigError(str(path), faults)
    given: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise InputError(f"--set {assignment}: expected key=value, such as rounds.num_rounds=20")
        if key.strip() in given:
            raise InputError(f"--set {key.strip()}: is given twice; leave one out")
        given[key.strip()] = parse_yaml(value, f"--set {key.strip()}")
    # A section's kind first: it says which keys the section has.
    for key, value in sorted(given.items(), key=lambda item: not item[0].endswith(".kind")):
        _put(content, key, value)
    refuse_variables(content, "--set")
    return validate(StudyConfig, content, f"{path}, with --set {' '.join(given)}")


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key; sections on the way are made where the file leaves them out."""
    *sections, last = key.split(".")
    models: list[type[BaseModel]] = [StudyConfig]
    place = content
    for depth, name in enumerate((*sections, last)):
        known = {field: one for model in models for field, one in model.model_fields.items()}
        if name not in known:
            where = f" in {'.'.join(sections[:depth])}" if depth else ""
            raise InputError(f"--set {key}: {no_such(f'setting{where}', [name], tuple(known))}")
        models = [model for each in models if name in each.model_fields for model in _models_of(each, name)]
        if depth < len(sections):
            if not models:
                raise InputError(f"--set {key}: {'.'.join(sections[: depth + 1])} is one value, not a section")
            place = _section(place, name, models)
            models = [model for model in models if _is_of_kind(model, place)] or models
    place[last] = value


def _section(place: dict[str, Any], name: str, models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """The section of that name, with the kind that it has by default where there are several."""
    found = place.get(name)
    if not isinstance(found, dict):
        default = StudyConfig.model_fields[name].default if name in StudyConfig.model_fields else None
        kind = getattr(default, "kind", None)
        found = {"kind": kind} if kind is not None and len(models) > 1 else {}
        place[name] = found
    return found


def _models_of(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    """The sections that a setting may hold: none of a plain value, several where there are kinds."""
    found: list[type[BaseModel]] = []
    left: list[Any] = [model.model_fields[name].annotation]
    while left:
        one = left.pop(0)
        if isinstance(one, type) and issubclass(one, BaseModel):
            found += STRATEGIES.values() if one is Strategy else [one]
        else:
            left += get_args(one)
    return found


def _is_of_kind(model: type[BaseModel], section: dict[str, Any]) -> bool:
    field = model.model_fields.get("kind")
    return field is None or section.get("kind") in get_args(field.annotation)
