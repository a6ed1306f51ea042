"""Reference of the Python interface, from the docstrings of what `import msfl` gives."""

from __future__ import annotations

from importlib.util import find_spec

PACKAGE = "msfl"


def interface_page() -> str | None:
    """The page of the interface; nothing where it is not installed."""
    if find_spec(PACKAGE) is None:
        return None
    return f"# Python\n\n::: {PACKAGE}\n"
