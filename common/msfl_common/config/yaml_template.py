"""A config as the YAML file that a person goes on to edit: every key, its value, and what it means."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel

_COMMENT_COLUMN = 33


def commented_yaml(config: BaseModel, header: str) -> str:
    """The text of a config file, in the order of the model's fields.

    Args:
        config: what the file says; each field's description becomes the comment beside it.
        header: what the file is, as the comment on top; one line or several.
    """
    top = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    return f"{top}\n" + "".join(f"{line}\n" for line in _lines(config, ""))


def _lines(config: BaseModel, indent: str) -> Iterator[str]:
    plain = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name not in plain and value != field.get_default(call_default_factory=True):
            continue  # is said under another name, as of a regression
        if isinstance(value, BaseModel):
            if not indent:
                yield ""
            yield _with_comment(f"{indent}{name}:", _first_line(value))
            yield from _lines(value, indent + "  ")
        else:
            yield _with_comment(f"{indent}{name}: {_flow(plain.get(name, value))}", field.description or "")


def _flow(value: Any) -> str:
    """A value on one line, quoted where YAML asks for it."""
    listed = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=sys.maxsize)
    return listed.strip()[1:-1]


def _first_line(value: BaseModel) -> str:
    sentence = (type(value).__doc__ or "").splitlines()[0]
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


def _with_comment(text: str, comment: str) -> str:
    return f"{text:<{_COMMENT_COLUMN - 1}} # {comment}" if comment else text
