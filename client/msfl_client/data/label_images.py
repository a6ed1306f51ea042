"""A site's own label images: `derivatives/*/sub-*/[ses-*/]anat/*_seg-NAME_dseg.nii[.gz]`, a number for each region.

They lie in the space of the visit's T1w, on any grid. Legend: D, H, W are voxels towards right, anterior and superior.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from msfl_client.data.bids import Case
from msfl_client.data.bids_names import ImageName, is_nifti, parse_image_name, preferred_first
from msfl_client.data.bids_tables import several
from msfl_client.data.findings import Finding
from msfl_client.imaging.volumes import read_volume
from msfl_common.config.parcellation import Parcellation
from msfl_common.config.site import SiteConfig
from msfl_common.errors import CaseError

SPACES = (None, "T1w", "orig", "individual")
"""What a name may say of the space, besides what the T1w's own says."""
_ENTITIES = ("seg", "atlas", "desc")  # BIDS today, and before


def with_labels(
    cases: Sequence[Case], site: SiteConfig, parcellation: Parcellation | None
) -> tuple[list[Case], list[Finding]]:
    """The cases with their label images, where the study declares a parcellation, and which of several was taken."""
    if parcellation is None:
        return list(cases), []
    found, findings = [], []
    for case in cases:
        ranked = preferred_first(list(_named(case, site.data[case.dataset], parcellation.name)))
        found.append(replace(case, labels=ranked[0].path) if ranked else case)
        if len(ranked) > 1:
            others = several(str(name.path.relative_to(site.data[case.dataset])) for name in ranked[1:])
            text = f"{len(ranked)} label images of {parcellation.name}: {ranked[0].path.name} is used, not {others}"
            findings.append(Finding("warn", case.key, "several-files", text))
    return found, findings


def label_rules(case: Case, parcellation: Parcellation) -> Iterator[Finding]:
    """Why a case has no label image that can be used."""
    if case.labels is None:
        folder = "/".join(part for part in ("derivatives/*", case.subject, case.visit_id, "anat") if part)
        text = f"no label image in the space of T1w: expected {folder}/*_seg-{parcellation.name}_dseg.nii.gz"
        yield Finding("fail", None, "labels", text)
        return
    try:
        read_labels(case.labels, parcellation)
    except CaseError as error:
        yield Finding("fail", None, "labels", f"{case.labels.name}: {error}")
    except OSError as error:
        yield Finding("fail", None, "unreadable", f"cannot be opened: {error.strerror} ({case.labels.name})")


def read_labels(path: Path, parcellation: Parcellation) -> nib.Nifti1Image:
    """A label image with its axes in RAS order, int32.

    Raises:
        CaseError: it is no 3D image, or holds what is no label of the parcellation.
        OSError: it cannot be opened.
    """
    volume = read_volume(path)
    values = np.unique(volume.voxels_IJK)
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise CaseError("expected a whole number in each voxel; bring label images to other grids by nearest neighbour")
    if strange := [int(value) for value in values if value and int(value) not in parcellation.names]:
        shown = several(str(value) for value in strange)
        raise CaseError(f"labels {shown}: not among the {len(parcellation.names)} of inputs.parcellation")
    if not values.any():
        raise CaseError("every voxel is 0: it shows no region")
    return nib.as_closest_canonical(nib.Nifti1Image(volume.voxels_IJK.astype(np.int32), volume.affine))


def _named(case: Case, root: Path, name: str) -> Iterator[ImageName]:
    t1w = parse_image_name(case.images["T1w"]) if "T1w" in case.images else None
    spaces = {*SPACES, t1w.entities.get("space") if t1w else None}
    for path in sorted(
        root.glob("/".join(part for part in ("derivatives/*", case.subject, case.visit_id, "anat/*") if part))
    ):
        parsed = parse_image_name(path) if is_nifti(path.name) else None
        if (
            parsed is not None
            and parsed.suffix == "dseg"
            and parsed.belongs_to(case.subject, case.visit_id)
            and name in {parsed.entities.get(key) for key in _ENTITIES}
            and parsed.entities.get("space") in spaces
        ):
            yield parsed
