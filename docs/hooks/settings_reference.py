"""Reference of a settings file from its pydantic model: every key with its type, default and meaning."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    type(None): "null",
}
_BOUNDS = ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))


def settings_page(name: str, model: type[BaseModel], introduction: str) -> str:
    """The page of a settings file.

    Args:
        name: the file's name, which is the page's title.
        model: what is parsed from it.
        introduction: Markdown on top.
    """
    return f"# {name}\n{introduction}\n" + "\n".join(_sections(model, ""))


def _sections(model: type[BaseModel], path: str) -> Iterator[str]:
    """A table of the model's keys, then a section for each model among them."""
    yield from _table(model)
    for key, field in model.model_fields.items():
        nested = list(models_in(field.annotation))
        place = f"{path}.{key}".lstrip(".")
        for one in nested:
            kinds = get_args(one.model_fields["kind"].annotation) if "kind" in one.model_fields else ()
            title = f"`{place}`" + (f" of kind {', '.join(f'`{kind}`' for kind in kinds)}" if kinds else "")
            anchor = "-".join((place.replace(".", "-").replace("_", "-"), *kinds[:1]))
            yield f"\n{'#' * min(4, 2 + place.count('.'))} {title} {{ #{anchor} }}\n"
            yield f"{paragraph(one.__doc__)}\n"
            yield from _sections(one, place)


def _table(model: type[BaseModel]) -> Iterator[str]:
    fields = model.model_fields
    yield "| key | type | default | |\n|---|---|---|---|"
    for key, field in fields.items():
        yield f"| `{key}` | {type_of(field)} | {default_of(field)} | {cell(field.description or _about(field))} |"


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field can hold, each once, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not Literal:
        seen: list[type[BaseModel]] = []
        for part in get_args(annotation):
            seen += [model for model in models_in(part) if model not in seen]
        yield from seen


def type_of(field: FieldInfo) -> str:
    """A field's type in words, with its bounds."""
    return cell(_words(field.annotation, field.metadata))


def default_of(field: FieldInfo) -> str:
    """A field's default as YAML has it; `required` where it has none."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return f"`{{kind: {value.kind}}}`" if hasattr(value, "kind") else "as below"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


def paragraph(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def cell(text: str) -> str:
    """Text that stays in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _about(field: FieldInfo) -> str:
    return " ".join(paragraph(model.__doc__) for model in list(models_in(field.annotation))[:1])


def _words(annotation: Any, metadata: list[Any]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(parts[0], [*metadata, *parts[1:]])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        plain = [part for part in parts if not list(models_in(part))]
        words = [_words(part, metadata if part is not type(None) else []) for part in plain]
        return " or ".join([*(["a section"] if len(plain) < len(parts) else []), *words])
    if origin is tuple:
        return ", ".join(filter(None, (f"list of {_words(parts[0], [])}", _bounds(metadata))))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a section"
    if origin is Mapping:
        return f"mapping of {_words(parts[0], [])} to {_words(parts[1], [])}"
    return f"{_WORDS.get(annotation, getattr(annotation, '__name__', str(annotation)))} {_bounds(metadata)}".rstrip()


def _bounds(metadata: list[Any]) -> str:
    """Bounds as pydantic keeps them, as in `> 0, ≤ 1`."""
    found: list[str] = []
    for entry in _flat(metadata):
        found += [f"{sign} {_figure(getattr(entry, name))}" for kind, name, sign in _BOUNDS if isinstance(entry, kind)]
        if isinstance(entry, MinLen | Len) and entry.min_length:
            found.append(f"at least {entry.min_length}")
        if isinstance(entry, MaxLen) or (isinstance(entry, Len) and entry.max_length is not None):
            found.append(f"at most {entry.max_length}")
    return ", ".join(found)


def _flat(metadata: list[Any]) -> Iterator[Any]:
    """Constraints, also those of a `Field` inside `Annotated`."""
    for entry in metadata:
        yield from entry.metadata if isinstance(entry, FieldInfo) else [entry]


def _figure(value: float) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
