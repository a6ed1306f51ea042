"""One case against every rule: each image, the images against each other, and the mask against its image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from msfl_client.data.aligned_images import alignment_findings, thin_case
from msfl_client.data.bids import Case
from msfl_client.data.bids_names import LESION, MASKS
from msfl_client.data.brightness_rules import brightness_rules, finite_rules
from msfl_client.data.findings import Finding
from msfl_client.data.label_images import label_rules
from msfl_client.data.mask_place import mask_place_rule, mask_side_rule
from msfl_client.data.near_twins import picture_of
from msfl_client.data.sidecar_rules import sequence_rule
from msfl_client.data.volume_rules import grid_rules, image_rules, mask_rules, measure_lesions, size_text
from msfl_client.imaging import geometry
from msfl_client.imaging.fit import ThinImage, thin_image
from msfl_client.imaging.skull_strip_detection import is_brain_alone
from msfl_client.imaging.volumes import Volume, open_nifti, to_volume
from msfl_common.config.contrasts import facts_of, is_earlier, outlined_on
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError

SAME_PLACE_MM = 0.1
MIN_SHARED_FIELD = 0.5


@dataclass(frozen=True)
class Grid:
    """Size of an image: voxels along I, J, K as stored, and their size in mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    def __str__(self) -> str:
        return f"{' x '.join(map(str, self.shape))} of {size_text(np.array(self.spacing_mm))} mm"


@dataclass(frozen=True)
class CaseFacts:
    """What was measured on the way.

    Attributes:
        grids: contrast to grid, of the images that could be read.
        digests: contrast to a digest of the voxels, to find one image under two names.
        pictures: contrast to a small picture of the head, to find one head under two names (`near_twins`).
        lesion_ml: total lesion volume, ml; None without a usable mask.
        num_lesions: 26-connected lesions of 3 mm3 or more; None without a usable mask.
        whole_heads: contrasts that show more than a brain.
        mask_values: of a usable mask that tells classes of lesions apart, those that it has.
    """

    grids: Mapping[str, Grid] = field(default_factory=dict, hash=False)
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    pictures: Mapping[str, str] = field(default_factory=dict, hash=False)
    lesion_ml: float | None = None
    num_lesions: int | None = None
    whole_heads: tuple[str, ...] = ()
    mask_values: tuple[int, ...] = ()


@dataclass(frozen=True)
class CaseReport:
    """All there is to say about one case."""

    findings: tuple[Finding, ...]
    facts: CaseFacts


def check_case(case: Case, inputs: Inputs, needs_mask: bool) -> list[Finding]:
    """Hold a case against every rule.

    Args:
        case: the case; its files are read whole.
        inputs: which contrasts it must have.
        needs_mask: True for training; False leaves a mask unread.

    Returns:
        Findings in the order of the contrasts, then the mask. It never raises for a bad case.
    """
    return list(examine_case(case, inputs, needs_mask).findings)


def examine_case(case: Case, inputs: Inputs, needs_mask: bool) -> CaseReport:
    """`check_case`, with what was measured."""
    try:
        return _examine(case, inputs, needs_mask)
    except Exception as error:  # one case never stops the rest
        text = f"the check itself failed: {type(error).__name__}: {' '.join(str(error).split())}"
        return CaseReport((Finding("fail", case.key, "unexpected", text),), CaseFacts())


def _examine(case: Case, inputs: Inputs, needs_mask: bool) -> CaseReport:
    findings: list[Finding] = []
    grids: dict[str, Grid] = {}
    affines: dict[str, geometry.Affine] = {}
    digests: dict[str, str] = {}
    pictures: dict[str, str] = {}
    whole_heads: list[str] = []
    brains: dict[str, ThinImage] = {}
    lacking = [channel for channel in inputs.channels if channel not in case.images]
    is_alone = inputs.visits == 2 and case.mask_label == LESION
    if is_alone:
        text = "no earlier visit: new lesions are those that appear between two visits"
        findings.append(Finding("fail", None, "visits", text))
        lacking = [channel for channel in lacking if not is_earlier(channel)]
    findings += [Finding("fail", None, "contrast", f"no {channel} image") for channel in lacking]
    for contrast in (channel for channel in inputs.channels if channel in case.images):
        volume, found = _load(case.images[contrast])
        if volume is not None:
            digests[contrast] = _digest(volume)
            if not _fails(found, "affine"):
                found += finite_rules(volume)
                volume = volume.filled()
                found += [] if _fails(found, "values") else image_rules(volume)
                found += [] if _fails(found, "values", "constant") else brightness_rules(volume, contrast)
                found += sequence_rule(case.images[contrast], contrast)
                whole_heads += [] if is_brain_alone(volume.voxels_IJK, volume.affine) else [contrast]
                if contrast not in whole_heads and not any(finding.level == "fail" for finding in found):
                    brains |= _thin(contrast, volume)
                grids[contrast], affines[contrast] = _grid(volume), volume.affine
                pictures |= {} if (picture := picture_of(volume)) is None else {contrast: picture}
        findings += _about(contrast, found)
    findings += _same_voxels(digests)
    findings += _compare_contrasts(grids, affines)
    if len(brains) == len(inputs.channels) > 1 and not any(finding.level == "fail" for finding in findings):
        findings += alignment_findings(thin_case(case, brains))
    findings += [] if inputs.parcellation is None else label_rules(case, inputs.parcellation)
    facts = CaseFacts(grids, digests, pictures, whole_heads=tuple(whole_heads))
    if needs_mask and not is_alone:
        found, facts = _check_mask(case, inputs, facts, affines, brains)
        findings += found
    return CaseReport(tuple(replace(finding, case=case.key) for finding in findings), facts)


def _load(path: Path) -> tuple[Volume | None, list[Finding]]:
    rule = "readable"
    try:
        image = open_nifti(path)
        rule = "dimensions" if len(image.shape) != 3 else "values"
        volume = to_volume(image)
    except CaseError as error:
        return None, [Finding("fail", None, rule, f"{error} ({path.name})")]
    except OSError as error:
        dangling = path.is_symlink() and not path.exists()
        why = "a link to a file that is not there" if dangling else (error.strerror or str(error))
        return None, [Finding("fail", None, "unreadable", f"cannot be opened: {why} ({path.name})")]
    return volume, list(grid_rules(volume))


def _thin(contrast: str, volume: Volume) -> dict[str, ThinImage]:
    brain = thin_image(nib.Nifti1Image(volume.voxels_IJK, volume.affine))
    return {} if brain is None else {contrast: brain}


def _same_voxels(digests: Mapping[str, str]) -> Iterator[Finding]:
    """One image under the names of two contrasts: a network that takes both would see nothing of the one it lacks."""
    for number, (other, digest) in enumerate(digests.items()):
        first = next((name for name in list(digests)[:number] if digests[name] == digest), None)
        if first is not None:
            yield Finding("fail", None, "same-contrast", f"{first} and {other} are one image: the same voxels")


def _compare_contrasts(grids: Mapping[str, Grid], affines: Mapping[str, geometry.Affine]) -> Iterator[Finding]:
    """Every image against the first: another grid is resampled, another part of the body is refused."""
    first = next(iter(grids), "")
    for other in list(grids)[1:]:
        if _same_grid(grids[first], affines[first], grids[other], affines[other]):
            continue
        shared = geometry.shared_field(grids[first].shape, affines[first], grids[other].shape, affines[other])
        if shared < MIN_SHARED_FIELD:
            text = f"{first} and {other} share only {100 * shared:.0f}% of their field of view"
            yield Finding("fail", None, "field-of-view", text)
        else:
            yield Finding("warn", None, "grid", f"{other} is on another grid than {first}; will be resampled")


def _check_mask(
    case: Case,
    inputs: Inputs,
    facts: CaseFacts,
    affines: Mapping[str, geometry.Affine],
    brains: Mapping[str, ThinImage],
) -> tuple[list[Finding], CaseFacts]:
    """The mask's own rules, then its grid, which must be that of one of the images, and its place in the brain."""
    if case.mask is None:
        return [Finding("fail", None, "mask", f"no manual {MASKS[case.mask_label]}")], facts
    volume, found = _load(case.mask)
    if volume is None or _fails(found, "affine"):
        return list(_about("mask", found)), facts
    found += mask_rules(volume, inputs.lesion_classes)
    mask, grids = _grid(volume), facts.grids
    on = [name for name, grid in grids.items() if _same_grid(grid, affines[name], mask, volume.affine)]
    if grids and not on:
        found.append(Finding("fail", None, "mask-grid", _off_grid(mask, volume, grids, affines)))
    if _fails(found, "mask-labels", "values"):
        return list(_about("mask", found)), facts
    if on and (brain := brains.get(outlined_on(on))) is not None:
        found += mask_place_rule(volume, brain)
        found += mask_side_rule(volume, brain) if facts_of(outlined_on(on)).shows_lesions else []
    lesion_ml, num_lesions = measure_lesions(volume)
    values = tuple(np.unique(np.rint(volume.voxels_IJK)).astype(int).tolist()) if inputs.lesion_classes else ()
    return list(_about("mask", found)), replace(facts, lesion_ml=lesion_ml, num_lesions=num_lesions, mask_values=values)


def _off_grid(mask: Grid, volume: Volume, grids: Mapping[str, Grid], affines: Mapping[str, geometry.Affine]) -> str:
    name = outlined_on(grids)
    if mask.shape == grids[name].shape:
        apart_mm = geometry.displacement_mm(affines[name], volume.affine, mask.shape)
        return f"as large as {name}, but its header places it up to {apart_mm:.1f} mm away"
    return f"on another grid: mask {mask}; {name} {grids[name]}"


def _same_grid(grid: Grid, affine: geometry.Affine, other_grid: Grid, other_affine: geometry.Affine) -> bool:
    return grid.shape == other_grid.shape and (
        geometry.displacement_mm(affine, other_affine, grid.shape) <= SAME_PLACE_MM
    )


def _grid(volume: Volume) -> Grid:
    a, b, c = (round(float(size), 4) for size in geometry.spacing_mm(volume.affine))
    return Grid(volume.shape, (a, b, c))


def _digest(volume: Volume) -> str:
    content = np.ascontiguousarray(volume.voxels_IJK.ravel(order="K"))
    return hashlib.blake2b(content.data, digest_size=16, key=str(volume.shape).encode()).hexdigest()


def _about(what: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    return (replace(finding, text=f"{what}: {finding.text}") for finding in findings)


def _fails(findings: Iterable[Finding], *rules: str) -> bool:
    return any(finding.level == "fail" and finding.rule in rules for finding in findings)
