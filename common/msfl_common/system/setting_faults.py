"""What is wrong with settings, in words: the key as it stands in the file, what was found, what was expected."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from msfl_common.system.foreign_text import shown

_MOST_FAULTS = 20
_MOST_KEYS = 20  # listed, where none is near
_OTHERWISE = "it is not written as it should be"
_SECTION = "a section, `key: value` lines below it"
_LIST = "a list, as [first, second]"

# By pydantic's type of a fault; `{ge}` and others are of its context.
_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a text",
    "string_too_short": "a text of {min_length} or more characters",
    "string_too_long": "a text of {max_length} or fewer characters",
    "path_type": "the name of a file or folder",
    **dict.fromkeys(("tuple_type", "list_type"), _LIST),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), _SECTION),
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "{min_length} or more in the list",
    "too_long": "{max_length} or fewer in the list",
}


def describe_faults(error: ValidationError, model: Any = None) -> list[str]:
    """One line per fault, of the first twenty: the key, what was found, what is allowed.

    Args:
        error: pydantic's.
        model: what was validated, by which wrong keys get the nearest that there are.
    """
    lines: dict[str, list[str]] = {}
    fixes: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        if _follows_from_others(fault):
            continue
        keys, at = _walk(model, fault["loc"])
        line, expected = _described(fault, _place(keys), at, model)
        lines.setdefault(line, []).extend(one for one in expected if one not in lines[line])
        fixes[line] = _quoted(fault)
    return [
        line
        + (f"{' E' if line.endswith('?') else '; e'}xpected {_or(expected)}" if expected else "")
        + (fixes[line] if len(expected) < 2 else "")
        for line, expected in list(lines.items())[:_MOST_FAULTS]
    ]


def describe_switches(written: Any, read: Any, keys: tuple[str | int, ...] = ()) -> list[str]:
    """One line per true or false that pydantic took for the number 1 or 0.

    Args:
        written: what the file holds.
        read: the settings that were made of it.
        keys: where in the file both are.
    """
    if isinstance(written, bool):
        if isinstance(read, bool) or not isinstance(read, int | float):
            return []
        expected = _EXPECTED["int_type" if isinstance(read, int) else "float_type"]
        return [f"{_place(list(keys))}: found {_as_written(written)}; expected {expected}"]
    pairs: list[tuple[str | int, Any, Any]] = []
    if isinstance(written, Mapping):
        there = read if isinstance(read, Mapping) else vars(read) if isinstance(read, BaseModel) else {}
        pairs = [(str(key), value, there[key]) for key, value in written.items() if key in there]
    elif isinstance(written, list | tuple) and isinstance(read, list | tuple) and len(written) == len(read):
        pairs = [(at, *pair) for at, pair in enumerate(zip(written, read, strict=True))]
    return [line for key, value, setting in pairs for line in describe_switches(value, setting, (*keys, key))]


def _described(fault: ErrorDetails, place: str, at: Any, model: Any) -> tuple[str, list[str]]:
    """A fault's line, and what is expected, which is joined with that of other faults of the same value."""
    field, kind, context = place or "file", fault["type"], fault.get("ctx", {})
    value = shown(_as_written(fault["input"]))
    if kind == "extra_forbidden":
        return f"{field}: unknown key; {_nearest(place, at, model)}", []
    if kind == "missing":
        return f"{field}: required, but not there", []
    if kind == "union_tag_not_found":
        tags = [_tag(member) for member in _members(at) if _is_model(member)]
        return f"{field}.{_discriminator(fault)}: required, but not there", tags
    if kind == "union_tag_invalid":
        tags, found = context["expected_tags"].replace("'", "").split(", "), str(context["tag"])
        near = get_close_matches(found.lower(), tags, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"{field}.{_discriminator(fault)}: found {shown(repr(found))}{meant}", tags
    if kind == "value_error":
        whole = isinstance(fault["input"], dict) and len(fault["input"]) > 1  # the error says what in it is wrong
        found = "" if not place else f"{field}: " if whole else f"{field}: found {value}; "
        return f"{found}{context['error']}", []
    found = f"{field}: found {value}"
    if kind == "literal_error":
        return found, context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
    if kind not in _EXPECTED:
        return f"{found}; {_OTHERWISE}", []
    if kind == "finite_number" and at is int:  # so pydantic says of .nan and .inf
        kind = "int_type"
    numbers = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context.items()}
    return found, [_EXPECTED[kind].format(**numbers)]


def _or(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _place(keys: list[str | int]) -> str:
    """A place as people say it: `inputs.contrasts, entry 2`."""
    place = ""
    for key, before in zip(keys, [None, *keys], strict=False):
        if isinstance(key, int):
            place += f", entry {key + 1}"
        else:
            place += (", " if isinstance(before, int) else "." if place else "") + key
    return place


def _follows_from_others(fault: ErrorDetails) -> bool:
    """Whether a list is said to be too short since what is wrong in it does not count."""
    found = fault["input"]
    return fault["type"] == "too_short" and isinstance(found, Sequence) and len(found) >= fault["ctx"]["min_length"]


def _quoted(fault: ErrorDetails) -> str:
    """How a value that YAML reads as something else becomes a text."""
    found = fault["input"]
    if fault["type"] != "string_type" or not isinstance(found, int | float):
        return ""
    if isinstance(found, bool):
        return "; quote it, as yes, no, on and off without quotes are true and false"
    return f'; quote it, "{shown(str(found))}"'


def _as_written(value: Any) -> str:
    """A value as YAML has it, so that whoever wrote it knows it again."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _nearest(place: str, at: Any, model: Any) -> str:
    """What an unknown key may have meant."""
    section, _, key = place.rpartition(".")
    known = sorted(at.model_fields) if _is_model(at) else []
    if near := get_close_matches(key, known, n=1):
        return f"did you mean {near[0]}?"
    found = {one.rpartition(".")[0]: of_kind for one, of_kind in _places(model) if one.rpartition(".")[2] == key}
    # A setting of one of several kinds means something there alone: it is looked for in the section that it stands in.
    there = {
        one for one, of_kind in found.items() if not of_kind or f"{one}.".startswith(f"{section}." * bool(section))
    }
    if there and section not in there:
        return f"it belongs {_or([f'under {one}' if one else 'at the top of the file' for one in sorted(there)])}"
    if 0 < len(known) <= _MOST_KEYS:
        return f"remove it; what may stand there is {', '.join(known)}"
    return "remove it or check its spelling"


def _discriminator(fault: ErrorDetails) -> str:
    """The key that says which of several kinds a section is."""
    return str(fault["ctx"]["discriminator"]).strip("'")


def _walk(model: Any, loc: tuple[int | str, ...]) -> tuple[list[str | int], Any]:
    """The keys of a fault as they stand in the file, and the settings that the last of them should be one of.

    pydantic's place of a fault holds more: which of several kinds it took a section for.
    """
    keys: list[str | int] = []
    at, before = _plain(model), None
    for part in loc:
        if members := _members(at):
            at = _plain(_chosen(members, str(part)))
            if not (isinstance(part, int) or (_is_model(at) and part in at.model_fields)):
                continue
        before = at
        keys.append(part if isinstance(part, int) else shown(part))
        at = _below(at, part)
    return keys, before if keys and at is None else at


def _below(at: Any, part: int | str) -> Any:
    """The type of a key's value, or of a list's entry; none where it is not known."""
    if _is_model(at):
        field = at.model_fields.get(str(part))
        return _plain(field.annotation) if field is not None else None
    arguments = get_args(at)
    return _plain(arguments[-1] if arguments[-1] is not ... else arguments[0]) if arguments else None


def _plain(kind: Any) -> Any:
    """A type without what is noted beside it, and without None."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    members = _members(kind)
    return _plain(members[0]) if len(members) == 1 else kind


def _members(kind: Any) -> list[Any]:
    if get_origin(kind) not in (Union, types.UnionType):
        return []
    flat: list[Any] = []
    for member in get_args(kind):
        inner = member
        while get_origin(inner) is Annotated:
            inner = get_args(inner)[0]
        flat += _members(inner) or ([inner] if inner is not type(None) else [])
    return flat


def _chosen(members: list[Any], part: str) -> Any:
    """Of several types, the one that a part of a fault's place names."""
    return next((member for member in members if part == _tag(member)), None)


def _tag(member: Any) -> str:
    """What pydantic calls one of several types."""
    if not _is_model(member):
        return str(getattr(member, "__name__", member))
    kind = member.model_fields.get("kind")
    named = get_args(kind.annotation) if kind is not None and get_origin(kind.annotation) is Literal else ()
    return str(named[0]) if named else str(member.__name__)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _places(model: Any, above: str = "", of_kind: bool = False) -> Iterator[tuple[str, bool]]:
    """Every key of some settings, with the sections that it stands in, and whether only one of several kinds has it."""
    if not _is_model(model):
        return
    for key, field in model.model_fields.items():
        yield above + key, of_kind
        kind = _plain(field.annotation)
        kinds = [inner for inner in _members(kind) or [kind] if _is_model(inner)]
        for inner in kinds:
            yield from _places(inner, f"{above}{key}.", of_kind or len(kinds) > 1)
