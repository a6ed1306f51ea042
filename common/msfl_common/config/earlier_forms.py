"""Settings as earlier versions wrote them, in today's words.

What MSFL has stored (model folders, runs, kits) is read in either form. Whoever edits a file is told the new word.
"""

from __future__ import annotations

from typing import Any


def in_todays_words(study: Any) -> Any:
    """A stored study with the section `model` of a U-Net as `network`; anything else as it is."""
    if not isinstance(study, dict) or "network" in study or not isinstance(study.get("model"), dict):
        return study
    return {
        ("network" if key == "model" else key): ({"kind": "unet", **value} if key == "model" else value)
        for key, value in study.items()
    }


def earlier_words(study: dict[str, Any]) -> list[str]:
    """A line for each key of a study's file that has another name now."""
    return (
        ["model: is called network now; write `network:` for it, and `kind: unet` as the first key below it"]
        if "model" in study
        else []
    )
