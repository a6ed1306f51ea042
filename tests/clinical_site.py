"""A BIDS folder of tables alone, written line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfl_common.config.classification import Classification
from msfl_common.config.site import SiteConfig

Line = Sequence[object]


@dataclass(frozen=True)
class Tables:
    """A folder with ways to fill it."""

    root: Path

    @property
    def site(self) -> SiteConfig:
        """A site of this folder."""
        return site_of(self.root)

    def write(self, name: str, *lines: Line) -> Path:
        """A table, its header first."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
        return path

    def participants(self, *lines: Line) -> Path:
        return self.write("participants.tsv", *lines)

    def sessions(self, subject: str, *lines: Line) -> Path:
        return self.write(f"{subject}/{subject}_sessions.tsv", *lines)

    def edss(self, *lines: Line) -> Path:
        return self.write("phenotype/edss.tsv", *lines)


def site_of(*roots: Path, **settings: Any) -> SiteConfig:
    """A site of these folders, its state beside the first."""
    return SiteConfig(name="here", data=roots, state=roots[0].parent / "state", **settings)


def classification(clinical: Sequence[str] = ("edss",), features: Sequence[str] = (), **outcome: Any) -> Classification:
    """A study of these inputs and this outcome."""
    return Classification.model_validate(
        {"outcome": outcome, "clinical": clinical, "features": features, "model": {"kind": "logistic"}}
    )
