"""Which contrast a series is, told from what the scanner wrote about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msfl_common.config.contrasts import Contrast, Times, contrast_of_series

_MIN_SLICES = 10
_LOCALISER = re.compile(r"loc(ali[sz]er)?\b|scout|survey|3.?plane|aahead")
_OTHER_PART = re.compile(r"spine|spinal|cerv|thora|lumb|\bc.?spine|\bhws|\bbws|\blws|orbit|myel")
_NOT_STRUCTURAL = re.compile(
    r"dwi|dti|diff|\badc|trace|ep2d|epi\b|perf|\basl|swi\b|swan|t2[_ ]?(\*|star)|haemo|hemo|angio|\btof|\bmra|venog"
    r"|phase|field.?map|bold|rest|spectro|\bmrs|\bmip\b|\bmpr\b|reformat|subtr|b1|cal\b|mag.?transfer|\bmt"
)
_AGENT = re.compile(r"\+ ?c\b|\+ ?gd|gad|\bgd\b|\bkm\b|\bpost\b|\bce\b|contrast|contraste|dotarem|gadovist|magnevist")


@dataclass(frozen=True)
class Recognised:
    """A series that is wanted.

    Attributes:
        contrast: what it shows.
        enhanced: whether a contrast agent was given.
    """

    contrast: Contrast
    enhanced: bool


def recognise_series(sidecar: Mapping[str, Any], shape: Sequence[int], has_agent: bool = False) -> Recognised | str:
    """The contrast of a series, or why it is passed over.

    Names that people gave decide (series description, protocol); where they say nothing, the times of the sequence.

    Args:
        sidecar: dcm2niix's JSON; times in seconds.
        shape: voxels.
        has_agent: whether the DICOM files name a contrast agent.
    """
    text = " ".join(
        str(sidecar.get(key, ""))
        for key in ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "PulseSequenceDetails")
    )
    text = re.sub(r"[_\-.]+", " ", text.lower())
    kinds = {str(kind).upper() for kind in sidecar.get("ImageType", [])}
    if _LOCALISER.search(text) or "LOCALIZER" in kinds:
        return "localiser"
    if len(shape) != 3:
        return "with several volumes"
    if min(shape) < _MIN_SLICES:
        return f"with fewer than {_MIN_SLICES} slices"
    if kinds & {"MPR", "REFORMATTED", "SUBTRACTION", "PHASE", "P", "PROJECTION IMAGE", "MIP", "ADC", "DIFFUSION"}:
        return "derived"
    if _OTHER_PART.search(text) or str(sidecar.get("BodyPart", "")).upper() in {"SPINE", "CSPINE", "NECK"}:
        return "of another part of the body"
    is_structural = _NOT_STRUCTURAL.search(text) is None
    times = Times(*(_time(sidecar, f"{name}Time") for name in ("Echo", "Repetition", "Inversion")))
    contrast = contrast_of_series(text, times, is_structural)
    if contrast is None:
        return "not recognised" if is_structural else "of another kind"
    return Recognised(contrast, has_agent or _AGENT.search(text) is not None)


def _time(sidecar: Mapping[str, Any], name: str) -> float:
    value = sidecar.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
