"""How well a case came through preprocessing, in figures that can be compared across a site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydantic import Field

from msfl_common.config.base import Frozen
from msfl_common.config.contrasts import Channel

FEWEST_CASES = 5  # a distribution of fewer says nothing
OUTLIER_Z = 3.5  # Iglewicz and Hoaglin 1993
LEAST_COVERAGE, LEAST_OVERLAP = 0.9, 0.88  # a look is worth it below, however few cases there are


class Quality(Frozen):
    """Figures of one case."""

    brain_ml: float = Field(description="volume of the brain with its ventricles, in the patient's own head, ml")
    coverage: float = Field(description="share of the template's brain that the case's brain covers")
    template_overlap: float = Field(description="Dice coefficient of the case's brain with the template's")
    template_similarity: float | None = Field(description="mutual information with the template, nats")
    similarity: dict[Channel, float] = Field(description="mutual information with the anchor, nats; of each contrast")
    snr: dict[Channel, float] = Field(description="median brightness of the brain over the noise; of each contrast")
    white_to_grey: dict[Channel, float] = Field(description="brightness of white matter over grey; of each contrast")


def figures(quality: Quality) -> dict[str, float]:
    """A case's figures by a short name, those of a contrast with the contrast's."""
    flat = {
        "brain, ml": quality.brain_ml,
        "coverage": quality.coverage,
        "overlap": quality.template_overlap,
        "similarity": quality.template_similarity,
    }
    for name, values in (("similarity", quality.similarity), ("SNR", quality.snr), ("WM/GM", quality.white_to_grey)):
        flat |= {f"{contrast} {name}": value for contrast, value in values.items()}
    return {name: value for name, value in flat.items() if value is not None}


def odd_figures(of_case: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """For each case the names of the figures that call for a look.

    From five cases on, those further from the site's median than 3.5 robust standard deviations (median absolute
    deviation); and always a brain that covers little of the template or fits it badly.

    Args:
        of_case: key of each case to its `figures`.
    """
    odd: dict[str, list[str]] = {key: list(_too_low(values)) for key, values in of_case.items()}
    for name in dict.fromkeys(name for values in of_case.values() for name in values):
        known = {key: values[name] for key, values in of_case.items() if name in values}
        for key, z in zip(known, robust_z(list(known.values())), strict=True):
            if abs(z) > OUTLIER_Z and name not in odd[key]:
                odd[key].append(name)
    return odd


def robust_z(values: Sequence[float]) -> list[float]:
    """Distance of each value from the median in robust standard deviations; 0 for fewer than five, or equal ones."""
    centre = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(np.asarray(values) - centre)))
    if len(values) < FEWEST_CASES or spread == 0:
        return [0.0] * len(values)
    return [(value - centre) / spread for value in values]


def poor_fit(coverage: float, overlap: float) -> tuple[str, ...]:
    """What deserves a look of a brain on the template, in words; see `Quality` for the two figures."""
    said = []
    if coverage < LEAST_COVERAGE:
        said.append(
            f"the brain found covers {100 * coverage:.0f}% of the template's; expected {100 * LEAST_COVERAGE:.0f}%"
        )
    if overlap < LEAST_OVERLAP:
        said.append(f"the brain found fits the template with a Dice of {overlap:.2f}; expected {LEAST_OVERLAP}")
    return tuple(said)


def _too_low(values: Mapping[str, float]) -> Iterator[str]:
    for name, least in (("coverage", LEAST_COVERAGE), ("overlap", LEAST_OVERLAP)):
        if values.get(name, 1.0) < least:
            yield name
