"""Reference of the Python interface, from the docstrings of what `import msfl` gives."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "msfl"
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def interface_page() -> str | None:
    """The page of the interface, with links to the notebooks; nothing where it is not installed."""
    if find_spec(PACKAGE) is None:
        return None
    links = [f"[{path.name}](../notebooks/{path.name})" for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    shown = f"Shown in use, to be opened with Jupyter: {', '.join(links)}.\n\n" if links else ""
    return f"# Python\n\n{shown}::: {PACKAGE}\n"
