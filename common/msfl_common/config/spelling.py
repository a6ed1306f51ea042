"""Names and paths in settings: how they are spelled, told in words, and what a wrong one may have meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_MOST_LISTED = 20


def spelled(pattern: str, words: str) -> AfterValidator:
    """A constraint of pydantic's on a text: the whole of it is of a pattern, of which people are told these words."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"expected {words}")
        return text

    return AfterValidator(check)


def no_such(what: str, names: Iterable[str], known: Sequence[str], elsewhere: str = "") -> str:
    """Why names are refused: the nearest that there are, or all where these are few.

    Args:
        what: a thing that the names should be of, such as `feature`.
        names: those that there are not.
        known: those that there are.
        elsewhere: where to read of them all, when they are many.

    >>> no_such("colour", ["gren"], ["red", "green"])
    'no such colour: gren; did you mean green? There are red, green'
    """
    near: list[str] = []
    for name in names:
        folded = {one.lower(): one for one in known}
        near += [folded[one] for one in get_close_matches(name.lower(), folded, n=3)]
    text = f"no such {what}: {', '.join(names)}"
    meant = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    if len(known) <= _MOST_LISTED:
        return f"{text}{meant}{' There' if meant else '; there'} are {', '.join(known)}"
    return f"{text}{meant}{' There' if meant else '; there'} are {len(known)}{elsewhere and ', ' + elsewhere}"


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # of a study, a site or a folder
NAME_WORDS = "letters, digits, dots, dashes and underscores, at most 64, the first a letter or a digit"
Name = Annotated[str, spelled(NAME, NAME_WORDS)]


def at_home(path: Path) -> Path:
    """A path that may begin with `~`, the account's own folder, as a shell reads it.

    Raises:
        ValueError: it begins with an account that there is not.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"no such account: {path.parts[0]}") from None


HomePath = Annotated[Path, AfterValidator(at_home)]
