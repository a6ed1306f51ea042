"""A study's settings as a flat list, for tables and for MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel

from msfl_common.config.optimisation import written_out
from msfl_common.config.study import StudyConfig
from msfl_common.models.unused_settings import inapplicable


class Setting(NamedTuple):
    """One line of `study.yaml`.

    Attributes:
        name: dotted name, as in `training.batch_size`.
        value: text as it is, anything else as JSON.
        meaning: the field's own description, with its unit.
    """

    name: str
    value: str
    meaning: str


def flat_settings(study: StudyConfig) -> list[Setting]:
    """Every setting that acts on a study's model, defaults included, in the order of the file."""
    without = inapplicable(study)
    return [setting for setting in _flat(written_out(study), "") if setting.name not in without]


def _flat(model: BaseModel, prefix: str) -> Iterator[Setting]:
    plain = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = plain.get(name, value)  # one at its default may be left out
            yield Setting(prefix + name, text if isinstance(text, str) else json.dumps(text), field.description or "")
