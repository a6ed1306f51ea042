"""The BIDS suffixes and entities that a study may name images by, beyond the contrasts of which MSFL knows more.

From BIDS 1.10 (anatomical and quantitative MRI) and its diffusion derivatives (BEP 016). A quantity is an image whose
numbers mean something in every scanner, such as a relaxation time; it is never corrected for a bias field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from msfl_common.config.spelling import no_such

_ANATOMY, _OTHER = 5.0, float("inf")
_PAIR = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")

ENTITIES = ("acq", "ce", "rec", "dir", "inv", "echo", "flip", "mt", "desc", "model", "param")
"""Keys of entities that may stand before a suffix."""


@dataclass(frozen=True)
class Suffix:
    """What is known of the files of a suffix.

    Attributes:
        title: in plain words.
        folder: where they lie beside `anat`.
        unit: of a quantity; None of an image in arbitrary units.
        high: the highest that a mean of a quantity over a region can be, in its unit; the lowest is 0.
        anchor_rank: as `ContrastFacts.anchor_rank`.
    """

    title: str
    folder: str = "anat"
    unit: str | None = None
    high: float = 0.0
    anchor_rank: float = _OTHER

    @property
    def is_quantity(self) -> bool:
        """Whether its numbers have a unit."""
        return self.unit is not None


SUFFIXES: Mapping[str, Suffix] = MappingProxyType(
    {
        "T1w": Suffix("T1-weighted"),
        "FLAIR": Suffix("T2-weighted with fluid suppressed"),
        "T2w": Suffix("T2-weighted"),
        "PDw": Suffix("proton-density-weighted"),
        "UNIT1": Suffix("T1-weighted, uniform (MP2RAGE)", anchor_rank=_ANATOMY),
        "T2starw": Suffix("T2*-weighted", anchor_rank=2 * _ANATOMY),
        "SWI": Suffix("susceptibility-weighted", "swi", anchor_rank=2 * _ANATOMY),
        "swi": Suffix("susceptibility-weighted", "swi", anchor_rank=2 * _ANATOMY),
        "MTR": Suffix("magnetisation transfer ratio", unit="%", high=100),
        "MTRmap": Suffix("magnetisation transfer ratio", unit="%", high=100),
        "MTsat": Suffix("magnetisation transfer saturation", unit="%", high=100),
        "MTVmap": Suffix("macromolecular tissue volume", unit="", high=1),
        "MWFmap": Suffix("myelin water fraction", unit="%", high=100),
        "T1map": Suffix("longitudinal relaxation time", unit="s", high=20),
        "R1map": Suffix("longitudinal relaxation rate", unit="1/s", high=20),
        "T2map": Suffix("transverse relaxation time", unit="s", high=10),
        "R2map": Suffix("transverse relaxation rate", unit="1/s", high=1000),
        "T2starmap": Suffix("effective transverse relaxation time", unit="s", high=10),
        "R2starmap": Suffix("effective transverse relaxation rate", unit="1/s", high=1000),
        "PDmap": Suffix("proton density", unit="%", high=200),
        "FA": Suffix("fractional anisotropy", "dwi", unit="", high=1),
        "MD": Suffix("mean diffusivity", "dwi", unit="mm2/s", high=0.01),
        "AD": Suffix("axial diffusivity", "dwi", unit="mm2/s", high=0.01),
        "RD": Suffix("radial diffusivity", "dwi", unit="mm2/s", high=0.01),
    }
)
"""By suffix, as it stands in a file's name."""


def entities_of(name: str) -> tuple[dict[str, str], str]:
    """The entities and the suffix of a contrast's name: `ce-gadolinium_T1w`.

    Raises:
        ValueError: the suffix is none of `SUFFIXES`, or an entity is none of `ENTITIES`.
    """
    *pairs, suffix = name.split("_")
    if suffix not in SUFFIXES:
        raise ValueError(no_such("contrast", [suffix], tuple(SUFFIXES), f"BIDS suffixes: {', '.join(SUFFIXES)}"))
    found: dict[str, str] = {}
    for pair in pairs:
        match = _PAIR.fullmatch(pair)
        if match is None or match[1] not in ENTITIES or match[1] in found:
            raise ValueError(
                f"{name}: expected entities of BIDS before its suffix, each once, as in ce-gadolinium_T1w; found "
                f"{pair}; there are {', '.join(ENTITIES)}"
            )
        found[match[1]] = match[2]
    return found, suffix
