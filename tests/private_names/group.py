"""Names that are used for one thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Names of one module or class that are used for one thing.

    Attributes:
        of: the module, or class; `*` where only the attribute's name is known from the source.
        use: what for.
        names: what each must be, by name.
    """

    of: str
    use: str
    names: dict[str, str]
