"""A parcellation of the sites' own: its regions, and the features that are means over them.

A site has a label image of each visit; the study says which number is which region. A mean is called `fa_roi_REGION`:
of a quantity it is in the quantity's own unit, of any other contrast a share of the brain's median.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from msfl_common.config.base import Frozen
from msfl_common.config.bids_suffixes import SUFFIXES
from msfl_common.config.feature import Feature, Plausible, feature_prefix
from msfl_common.config.spelling import no_such, spelled

MOST_REGIONS, HIGHEST_LABEL = 2000, 2**24 - 1  # whole numbers that float32 tells apart
SHARE = Plausible(0.02, 50)
_ROI, _ALL = "_roi_", "*"
_SECTIONS = ("harmonization", "classification", "regression")

Label = Annotated[int, Field(ge=1, le=HIGHEST_LABEL)]
Region = Annotated[
    str,
    BeforeValidator(lambda name: name.lower() if isinstance(name, str) else name),
    spelled(
        r"[a-z0-9][a-z0-9._-]{0,63}",
        "letters, digits, dots, dashes and underscores, at most 64, the first a letter or a digit",
    ),
]


class Parcellation(Frozen):
    """Regions that each site has as a label image of each visit, `*_seg-NAME_dseg.nii.gz`."""

    name: Annotated[str, spelled(r"[A-Za-z0-9]{1,40}", "letters and digits, at most 40")] = Field(
        description="what names of label images say after `seg-`, `atlas-` or `desc-`: `schaefer` in "
        "`sub-01_seg-schaefer_dseg.nii.gz`"
    )
    regions: Annotated[int, Field(ge=1, le=MOST_REGIONS)] | dict[Label, Region] = Field(
        description="number of regions, whose labels and names are 1, 2 and so on; or the name of each label, as in a "
        "BIDS look-up table, where capitals are small letters. 0 is no region; a label image with any other number is "
        "refused"
    )

    @field_validator("regions")
    @classmethod
    def _names_differ(cls, value: int | dict[int, str]) -> int | dict[int, str]:
        if isinstance(value, dict):
            names = list(value.values())
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{', '.join(twice)}: each region may be named once; capitals are small letters")
            if not 0 < len(names) <= MOST_REGIONS:
                raise ValueError(f"expected 1 to {MOST_REGIONS} regions, found {len(names)}")
        return value

    @property
    def names(self) -> Mapping[int, str]:
        """The name of each label."""
        if isinstance(self.regions, int):
            return {label: str(label) for label in range(1, self.regions + 1)}
        return self.regions

    def features(self, contrasts: Collection[str]) -> tuple[str, ...]:
        """What the means of these contrasts are called; those with entities in their names have none."""
        return tuple(
            roi_name(contrast, region)
            for contrast in contrasts
            if contrast in SUFFIXES
            for region in self.names.values()
        )


def roi_name(contrast: str, region: str) -> str:
    """What the mean of a contrast over a region is called."""
    return f"{feature_prefix(contrast)}{_ROI}{region}"


def roi_feature(name: str) -> Feature | None:
    """What is known of a mean over a region by its name alone; None of any other name."""
    prefix, _, region = name.partition(_ROI)
    suffixes = _suffixes(prefix)
    if not suffixes or not region or region == _ALL:
        return None
    about = SUFFIXES[suffixes[0]]
    text = f"mean {about.title} over the region {region} of the study's parcellation"
    if about.unit is not None:
        return Feature(about.unit, text, Plausible(0, about.high))
    return Feature("", f"{text}, the brain's median being 1", SHARE)


def check_regions(names: Collection[str], contrasts: Collection[str], parcellation: Parcellation | None) -> None:
    """Refuse means over regions that a study does not declare, and a parcellation of which it sees none.

    Args:
        names: features that the study sees or harmonizes.
        contrasts: the study's.
        parcellation: the study's, if it declares one.

    Raises:
        ValueError: names the first, and what to add.
    """
    means = [name for name in names if roi_feature(name) is not None]
    for name in means:
        prefix, _, region = name.partition(_ROI)
        if parcellation is None:
            raise ValueError(f"features: {name}: is of a parcellation of the study's own; declare inputs.parcellation")
        if not {*_suffixes(prefix)} & {*contrasts}:
            raise ValueError(f"features: {name}: is measured in {_suffixes(prefix)[0]}; add it to inputs.contrasts")
        if region not in parcellation.names.values():
            known = tuple(parcellation.names.values())
            raise ValueError(f"features: {name}: {no_such('region of inputs.parcellation', [region], known)}")
    if parcellation is not None and not means:
        raise ValueError(
            "inputs.parcellation: the study sees no mean over its regions; name them under `features`, such as "
            f"{roi_name(next(iter(contrasts)), _ALL)} for all, or leave it out"
        )


def with_regions(study: Any) -> Any:
    """A study as it is read, with `fa_roi_*` among its features written out: one for each region."""
    inputs = study.get("inputs") if isinstance(study, dict) else None
    declared = inputs.get("parcellation") if isinstance(inputs, dict) else getattr(inputs, "parcellation", None)
    if declared is None:
        return study
    try:
        regions = [*Parcellation.model_validate(declared).names.values()]
    except ValidationError:  # told where it stands
        return study
    changed = {name: study[name] for name in _SECTIONS if isinstance(study.get(name), dict)}
    for name, section in changed.items():
        if isinstance(features := section.get("features"), list | tuple):
            changed[name] = {**section, "features": [one for name in features for one in _written_out(name, regions)]}
    return {**study, **changed}


def _written_out(name: Any, regions: list[str]) -> list[Any]:
    if not isinstance(name, str) or not name.endswith(f"{_ROI}{_ALL}"):
        return [name]
    return [name.removesuffix(_ALL) + region for region in regions]


def _suffixes(prefix: str) -> list[str]:
    """The BIDS suffixes whose features begin so."""
    return [suffix for suffix in SUFFIXES if feature_prefix(suffix) == prefix]
