"""A case's images where they lie on one another: as they are, co-registered where they must be, or refused.

Check, training, features and prediction read a case's contrasts here, so that they agree. Images that are not
skull-stripped are left to preprocessing, which registers them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import nibabel as nib
import numpy as np

from msfl_client.data.bids import Case
from msfl_client.data.derivative import is_derived
from msfl_client.data.findings import Finding
from msfl_client.imaging.alignment import Alignment, align_all
from msfl_client.imaging.brain_signal import read_brain
from msfl_client.imaging.denoising import denoised
from msfl_client.imaging.fit import Matrix, ThinImage, thin_image
from msfl_client.imaging.masks import drawn_on
from msfl_client.imaging.resampling import read_mask
from msfl_client.imaging.skull_strip_detection import is_brain_alone
from msfl_common.config.contrasts import Contrast, outlined_on
from msfl_common.config.inputs import Denoising
from msfl_common.errors import CaseError


@dataclass(frozen=True)
class ThinCase:
    """The brains of a case, small enough to be kept.

    Attributes:
        files: path, size and modification time of each image.
        images: what they show, in any orientation.
    """

    files: tuple[tuple[str, int, int], ...]
    images: Mapping[Contrast, ThinImage] = field(compare=False, hash=False)

    @property
    def reference(self) -> Contrast:
        """The contrast that the others are held against."""
        return outlined_on(self.images)


@dataclass(frozen=True)
class AlignedCase:
    """A case's images, in RAS order, where they lie on one another.

    Attributes:
        images: of each contrast, as signals (`brain_signal`).
        mask: the lesion mask, where the image lies that it was drawn on; None without one.
        without_black: contrasts of which ratios of brightness mean nothing.
    """

    images: Mapping[Contrast, nib.Nifti1Image]
    mask: nib.Nifti1Image | None
    without_black: tuple[Contrast, ...] = ()


def thin_brain(image: nib.Nifti1Image) -> ThinImage | None:
    """`thin_image` of a skull-stripped image; None for any other."""
    voxels = np.asarray(image.dataobj, np.float32)
    return thin_image(image) if is_brain_alone(voxels, np.asarray(image.affine, np.float64)) else None


def thin_case(case: Case, images: Mapping[Contrast, ThinImage]) -> ThinCase:
    """The case's images, which were thinned."""
    stats = [(case.images[contrast], case.images[contrast].stat()) for contrast in images]
    return ThinCase(tuple((str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in stats), images)


@lru_cache(maxsize=8)
def alignments_of(case: ThinCase) -> Mapping[Contrast, Alignment]:
    """Where each contrast lies on the reference; what was just found for the same files is not looked for again."""
    return align_all(case.images, case.reference)


def alignment_findings(case: ThinCase) -> Iterator[Finding]:
    """What to say of the contrasts of a case that do not lie on one another."""
    for contrast, found in alignments_of(case).items():
        if found.verdict != "aligned" or found.knows_sides is False:
            refused = found.verdict in ("mirrored", "apart")
            rule = {"mirrored": "mirrored", "apart": "misaligned"}.get(found.verdict, "alignment")
            yield Finding("fail" if refused else "warn", None, rule, in_words(contrast, case.reference, found))


def in_words(contrast: str, other: str, found: Alignment) -> str:
    """Where an image lies on another, as a sentence."""
    moved = f"{contrast} lies {found.moved_mm:.1f} mm and {found.turned_degrees:.1f} degrees off {other}"
    sides = "" if found.knows_sides else "; whether one of them is mirrored cannot be told"
    return {
        "aligned": f"{contrast} lies on {other}{sides}",
        "moved": f"{moved}; it is co-registered{sides}",
        "mirrored": f"{contrast} fits {other} only with left and right exchanged: one of the two is mirrored",
        "apart": f"{contrast} and {other} do not lie on one another, and no place was found where they fit",
        "unclear": f"{contrast} covers {other}, but their intensities do not tell whether they lie on one another",
    }[found.verdict]


def read_aligned(
    case: Case, contrasts: Sequence[Contrast], onto: Contrast, denoising: Denoising = "none", num_classes: int = 1
) -> AlignedCase:
    """Read a case; an image that lies right is as its file has it, another is moved by its affine alone.

    Args:
        case: the case.
        contrasts: which of its images.
        onto: the contrast whose image stays where it lies.
        denoising: how noise is taken out of images; those of a derivative were denoised when they were made.
        num_classes: of lesions, that its mask tells apart; see `read_mask`.

    Raises:
        CaseError: an image cannot be read or is inverted, or two of them cannot be brought to lie on one another.
        OSError: a file cannot be opened.
    """
    signals = {contrast: read_brain(case.images[contrast]) for contrast in contrasts}
    images: Mapping[Contrast, nib.Nifti1Image] = {contrast: signal.image for contrast, signal in signals.items()}
    there = places(case, images, onto)
    mask = None
    if case.mask is not None:
        mask = read_mask(case.mask, num_classes)
        mask = placed(mask, there[drawn_on(mask, images) or onto])
    without_black = tuple(name for name, signal in signals.items() if not signal.knows_black)
    images = images if is_derived(case) else denoised(images, denoising)
    return AlignedCase({name: placed(image, there[name]) for name, image in images.items()}, mask, without_black)


def places(case: Case, images: Mapping[Contrast, nib.Nifti1Image], onto: Contrast) -> dict[Contrast, Matrix]:
    """For each image 4 x 4, mm of its file to mm of that of `onto`: exactly the identity where it lies right.

    Raises:
        CaseError: two of them cannot be brought to lie on one another.
    """
    stay = {contrast: np.eye(4) for contrast in images}
    if len(images) < 2 or is_derived(case):
        return stay
    brains = {contrast: thin_brain(image) for contrast, image in images.items()}
    thin = {contrast: brain for contrast, brain in brains.items() if brain is not None}
    if len(thin) < len(images):
        return stay
    found = thin_case(case, thin)
    if faults := [finding.text for finding in alignment_findings(found) if finding.level == "fail"]:
        raise CaseError("; ".join(faults))
    on_reference = stay | {contrast: one.matrix for contrast, one in alignments_of(found).items()}
    if np.array_equal(on_reference[onto], np.eye(4)):
        return on_reference
    back = np.linalg.inv(on_reference[onto])
    return {name: np.eye(4) if name == onto else back @ matrix for name, matrix in on_reference.items()}


def placed(image: nib.Nifti1Image, matrix: Matrix) -> nib.Nifti1Image:
    """The image itself where it lies right; else the same voxels at another place."""
    return image if np.array_equal(matrix, np.eye(4)) else nib.Nifti1Image(image.dataobj, matrix @ image.affine)
