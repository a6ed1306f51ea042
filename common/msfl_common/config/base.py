"""What `study.yaml` and `site.yaml` share: frozen, refusing unknown keys, and some of their words."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msfl_common.config.contrasts import Contrast as Contrast
from msfl_common.config.spelling import Name as Name
from msfl_common.config.spelling import spelled
from msfl_common.errors import ConfigError
from msfl_common.metrics.metric import Task as Task
from msfl_common.system.setting_faults import describe_faults, describe_switches

Sha256 = Annotated[str, spelled(r"[0-9a-f]{64}", "64 hexadecimal digits, as `sha256sum` prints them")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Preprocessed = Literal["none", "brain", "common-space"]


class Frozen(BaseModel):
    """A file's content: unknown keys are refused, nothing can be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=False)


Config = TypeVar("Config", bound=BaseModel)


def validate(model: type[Config], content: dict[str, Any], source: str) -> Config:
    """The content of a file as its model.

    Raises:
        ConfigError: it does not validate; one line per fault, each starting with `source`.
    """
    try:
        config = model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(source, describe_faults(error, model)) from None
    if faults := describe_switches(content, config):
        raise ConfigError(source, faults)
    return config
