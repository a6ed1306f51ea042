"""Whether skull-stripped images of one brain lie on one another, and where they would.

Images that lie right are seen by the fit's peak, which lies at their place and is sharp: it falls to two thirds within
3 mm, or 3.5 degrees. Others are registered, as they are and mirrored. A peak that sharp shows the same brain; another
person's brain, or a mirrored one, fits a little over a wide place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from nibabel.affines import voxel_sizes
from scipy.spatial.transform import Rotation

from msfl_client.imaging.fit import Fit, Matrix, Peak, ThinImage, overlap
from msfl_common.config.base import Contrast
from msfl_common.errors import CaseError

Verdict = Literal["aligned", "moved", "mirrored", "apart", "unclear"]

MOVED_MM, MOVED_SLICES = 1.0, 0.4
"""Root mean square over the brain from which on an image is co-registered: 1 mm (1.3 degrees) and 0.4 thick slices."""
_SUSPECT = 0.6  # of that, from which on an image is registered to see
_SHARP = 0.8  # the fit beside a peak, of that on it: .55 to .68 where the brains are one, .85 and more elsewhere
_MIRROR = 0.8  # the mirrored image's fit, of the image's own, from which on it is registered, too
_BETTER = 1.2  # from which on a fit is certainly better than another
_BETTER_COARSELY = 1.5  # the same of images too coarse for a peak: 2.1 to 8 where one of two is mirrored
_COVERED = 0.95  # Dice of brain masks that lie on one another
_ROUGHLY_COVERED = 0.85  # the same of images so coarse that their masks are all there is
_MIDDLES_MM = (-2.0, 0.0, 2.0)  # a brain's middle is known so well


@dataclass(frozen=True)
class Alignment:
    """Where an image lies on another.

    Attributes:
        verdict: "aligned": it is right where it lies. "moved": it fits elsewhere, at `matrix`. "mirrored": it fits
            with left and right exchanged. "apart": it fits nowhere. "unclear": the brains cover each other, and the
            intensities do not tell more.
        matrix: 4 x 4, mm of its file to mm of the other image; exactly the identity unless moved.
        moved_mm: how far that moves the brain, root mean square.
        turned_degrees: by how much it turns it.
        knows_sides: whether a mirrored image would have been seen; None: of so few voxels nobody could.
    """

    verdict: Verdict
    matrix: Matrix
    moved_mm: float = 0.0
    turned_degrees: float = 0.0
    knows_sides: bool | None = True


def align(moving: ThinImage, fixed: ThinImage) -> Alignment:
    """Where `moving` lies on `fixed`: within a fifth of a second where it is right, within some seconds elsewhere.

    A bias field over both images, as scans have before N4, hides the peak; where none is seen, they are looked at once
    more without what is slow in their brightness.
    """
    found = _as_they_are(moving, fixed)
    if found.verdict not in ("apart", "unclear"):
        return found
    evened = _as_they_are(moving.evened(), fixed.evened())
    return found if evened.verdict in ("apart", "unclear") else evened


def _as_they_are(moving: ThinImage, fixed: ThinImage) -> Alignment:
    stays = np.eye(4)
    covered = overlap(fixed, moving)
    fit = Fit(fixed, moving)
    if not fit.is_possible:
        return _coarsely(moving, fixed, fit, covered)
    here, least_mm = fit.around(stays), _least_mm(moving, fixed)
    off_mm = fit.displacement_mm(fit.step(here.offset))
    if _is_sharp(here) and off_mm < _SUSPECT * least_mm and not _fits_mirrored(moving, fixed, here.fit):
        return Alignment("aligned", stays)
    return _registered(moving, fixed, fit, covered)


def _coarsely(moving: ThinImage, fixed: ThinImage, fit: Fit, covered: float) -> Alignment:
    """Of images too coarse to see a peak: their place by the masks alone, their sides by the fit."""
    if covered < _ROUGHLY_COVERED:
        return Alignment("apart", np.eye(4), knows_sides=False)
    centred = moving.moved(_centred(moving, fixed))
    own, mirrored = (_middle_fit(one, fixed) if fit.tells_sides else 0.0 for one in (centred, centred.mirrored()))
    if mirrored > _BETTER_COARSELY * own:
        return Alignment("mirrored", np.eye(4))
    return Alignment("aligned", np.eye(4), knows_sides=own > _BETTER_COARSELY * mirrored or None)


def _registered(moving: ThinImage, fixed: ThinImage, fit: Fit, covered: float) -> Alignment:
    matrix, peak = _best_place(moving, fixed, fit)
    knows_sides = _is_sharp(peak) and not _fits_mirrored(moving.moved(matrix), fixed, peak.fit)
    if not knows_sides:
        turned_over = moving.mirrored()
        _, mirrored = _best_place(turned_over, fixed, Fit(fixed, turned_over))
        if _is_sharp(mirrored) and mirrored.fit > _BETTER * peak.fit:
            return Alignment("mirrored", np.eye(4))
        knows_sides = _is_sharp(peak) and peak.fit > _BETTER * mirrored.fit
    if not _is_sharp(peak):
        return Alignment("unclear" if covered >= _COVERED else "apart", np.eye(4), knows_sides=False)
    moved_mm = fit.displacement_mm(matrix)
    if moved_mm < _least_mm(moving, fixed):
        return Alignment("aligned", np.eye(4), knows_sides=knows_sides)
    turned = float(np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude()))
    return Alignment("moved", matrix, moved_mm, turned, knows_sides)


def _fits_mirrored(moving: ThinImage, fixed: ThinImage, own: float) -> bool:
    """Whether a brain fits, with left and right exchanged, nearly as well as by itself."""
    return _middle_fit(moving.mirrored(), fixed) >= _MIRROR * own


def _middle_fit(moving: ThinImage, fixed: ThinImage) -> float:
    """How well a brain fits, by where its middle is taken to be between left and right."""
    fit = Fit(fixed, moving)
    asides = (np.array([0.0, 0.0, 0.0, aside_mm, 0.0, 0.0]) for aside_mm in _MIDDLES_MM)
    return max(fit.at(fit.step(aside)) for aside in asides)


def _centred(moving: ThinImage, fixed: ThinImage) -> Matrix:
    """4 x 4 that brings the middles of two brains together."""
    matrix = np.eye(4)
    matrix[:3, 3] = fixed.centre - moving.centre
    return matrix


def _least_mm(moving: ThinImage, fixed: ThinImage) -> float:
    thickest_mm = max(float(voxel_sizes(image.affine).max()) for image in (moving, fixed))
    return max(MOVED_MM, MOVED_SLICES * thickest_mm)


def _best_place(moving: ThinImage, fixed: ThinImage, fit: Fit) -> tuple[Matrix, Peak]:
    """Registered from where it lies, or from where the middles of the brains meet if they overlap more there."""
    from msfl_client.imaging.registration import register_rigid  # loads SimpleITK, which few images need

    start = max((np.eye(4), _centred(moving, fixed)), key=lambda matrix: overlap(fixed, moving.moved(matrix)))
    try:
        found = register_rigid(moving.moved(start).nifti, fixed.nifti, fixed.brain_IJK).matrix @ start
    except CaseError:  # the brains do not even touch
        found = start
    return fit.refined(max((np.eye(4), found), key=fit.at))


def _is_sharp(peak: Peak) -> bool:
    return peak.fit > 0 and peak.beside <= _SHARP * peak.fit


def align_all(images: Mapping[Contrast, ThinImage], reference: Contrast) -> dict[Contrast, Alignment]:
    """Where each contrast lies on one of them."""
    return {name: align(image, images[reference]) for name, image in images.items() if name != reference}
