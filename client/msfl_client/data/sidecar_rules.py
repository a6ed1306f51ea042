"""Whether an image can be of the contrast that its name says, by what its BIDS sidecar tells of the sequence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msfl_client.data.findings import Finding
from msfl_common.config.contrasts import Contrast, Pulse, can_be, facts_of, shown_contrast
from msfl_common.system.reading import read_mapping

_NIFTI = (".nii.gz", ".nii")


def sidecar_of(image: Path) -> Path:
    """The JSON file beside an image, which need not be there."""
    suffix = next((ending for ending in _NIFTI if image.name.lower().endswith(ending)), image.suffix)
    return image.with_name(f"{image.name[: len(image.name) - len(suffix)]}.json")


def sequence_rule(image: Path, contrast: Contrast) -> Iterator[Finding]:
    """Times of another contrast's sequence: most often two images that stand in each other's place.

    Args:
        image: its file; where no sidecar lies beside it, or none with times, there is nothing to say.
        contrast: what its name says, of either visit.
    """
    pulse = _pulse(read_mapping(sidecar_of(image)))
    name = facts_of(contrast).suffix
    if facts_of(contrast).series is None or can_be(contrast, pulse):
        return
    told = f"echo {pulse.echo_s:g} s, repetition {pulse.repetition_s:g} s"
    told += f", inversion {pulse.inversion_s:g} s" if pulse.inversion_s else ""
    shown = shown_contrast(pulse)
    text = f"its sidecar tells of a sequence ({told}) that is no {name}"
    yield Finding("fail", None, "sequence", f"{text} but a {shown}") if shown else Finding("warn", None, "times", text)


def _pulse(sidecar: dict[str, Any]) -> Pulse:
    """Times in seconds, as BIDS has them; those of over a minute can only be in milliseconds."""
    echo, repetition, inversion = (_number(sidecar.get(f"{name}Time")) for name in ("Echo", "Repetition", "Inversion"))
    unit = 1000.0 if max(echo, repetition, inversion) > 60 else 1.0
    return Pulse(echo / unit, repetition / unit, inversion / unit)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 < value < float("inf") else 0.0
