"""Parts of MSFL that an installation may lack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msfl_common.errors import InputError


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Around imports: a package that is missing is brought by an extra.

    Raises:
        InputError: with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{what} needs {error.name}; install it with `pip install 'msfl[{extra}]'`") from error
