"""Whether an image can be of the contrast that its name says, by what its BIDS sidecar tells of the sequence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msfl_client.data.findings import Finding
from msfl_common.config.contrasts import Contrast, Pulse, can_be, facts_of, shown_contrast
from msfl_common.system.reading import find_mapping

_NIFTI = (".nii.gz", ".nii")
_MOST_TIME = 1e6  # no time of a sequence is as long, in milliseconds


def sidecar_of(image: Path) -> Path:
    """The JSON file beside an image, which need not be there."""
    suffix = next((ending for ending in _NIFTI if image.name.lower().endswith(ending)), image.suffix)
    return image.with_name(f"{image.name[: len(image.name) - len(suffix)]}.json")


def sequence_rule(image: Path, contrast: Contrast) -> Iterator[Finding]:
    """Times of another contrast's sequence: most often two images that stand in each other's place.

    Args:
        image: its file; where no sidecar lies beside it, or one without times, there is nothing to say.
        contrast: what its name says, of either visit.
    """
    sidecar = sidecar_of(image)
    content = find_mapping(sidecar)
    if content is None and os.path.lexists(sidecar):
        text = f"{sidecar.name} beside it cannot be read: it may tell of a contrast agent, or of another sequence"
        yield Finding("warn", None, "sidecar", text)
    pulse = _pulse(content or {})
    name = facts_of(contrast).suffix
    if facts_of(contrast).series is None or can_be(contrast, pulse):
        return
    told = f"echo {pulse.echo_s:g} s, repetition {pulse.repetition_s:g} s"
    told += f", inversion {pulse.inversion_s:g} s" if pulse.inversion_s else ""
    shown = shown_contrast(pulse)
    text = f"its sidecar tells of a sequence ({told}) that is no {name}"
    yield Finding("fail", None, "sequence", f"{text} but a {shown}") if shown else Finding("warn", None, "times", text)


def _pulse(sidecar: dict[str, Any]) -> Pulse:
    """Times in seconds, as BIDS has them; echoes of a second, or others of a minute, can only be in milliseconds."""
    echo, repetition, inversion = (_number(sidecar.get(f"{name}Time")) for name in ("Echo", "Repetition", "Inversion"))
    unit = 1000.0 if echo >= 1 or max(repetition, inversion) > 60 else 1.0
    return Pulse(echo / unit, repetition / unit, inversion / unit)


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < _MOST_TIME else 0.0
