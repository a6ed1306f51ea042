"""Masks of several raters, a BIDS derivative each, made into one derivative that a study takes as ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from msfl_client.data.bids_folders import is_folder, subject_folders, visible, visits_of
from msfl_client.data.bids_names import MASKS, is_nifti, parse_image_name
from msfl_client.data.volume_rules import grid_rules, mask_rules
from msfl_client.imaging.consensus import Mask, Method, agreement, mean_agreement, merge_masks
from msfl_client.imaging.nifti_writer import save_image
from msfl_client.imaging.resampling import read_mask
from msfl_client.imaging.skull_strip_detection import share_grid
from msfl_client.imaging.volumes import read_volume
from msfl_common import __version__
from msfl_common.errors import CaseError, InputError, unreadable
from msfl_common.system.files import whole_folder, write_json, write_text
from msfl_common.system.tab_separated import tsv_text

AGREEMENT_FILE = "agreement.tsv"
Key = tuple[str, str | None, str]  # subject, visit and label of a mask


@dataclass(frozen=True)
class MergedMask:
    """What became of one case.

    Attributes:
        subject, visit, label: which mask.
        fault: why there is no merged mask; empty where there is one.
        volumes_ml: of each rater's mask, and of the merged one last.
        between: means over every two raters, `consensus.AGREEMENT`.
        with_merged: of each rater against the merged mask.
        sensitivity, specificity: of each rater, by STAPLE; NaN otherwise.
    """

    subject: str
    visit: str | None
    label: str
    fault: str = ""
    volumes_ml: tuple[float, ...] = ()
    between: Mapping[str, float] | None = None
    with_merged: tuple[Mapping[str, float], ...] = ()
    sensitivity: tuple[float, ...] = ()
    specificity: tuple[float, ...] = ()


def merge_raters(
    raters: Sequence[Path], out: Path, method: Method, on_progress: Callable[[int, int], None]
) -> list[MergedMask]:
    """Merge the raters' masks of each case, and write them with how far the raters agree.

    A case that one of the raters lacks, or whose masks do not lie on one another or hold other values than 0 and 1,
    has no merged mask, and says why.

    Args:
        raters: a BIDS derivative of each, with `sub-*/[ses-*/]anat/*_label-lesion_mask.nii.gz`.
        out: the derivative to write; not there yet, or empty.
        method: see `consensus.merge_masks`.
        on_progress: hears how many cases are done, and of how many.

    Raises:
        InputError: there are fewer than two raters, a folder has no mask, `out` holds something or lies in one of
            them, or no case can be merged; nothing is written then.
    """
    if len(raters) < 2 or len({path.resolve() for path in raters}) < len(raters):
        raise InputError(f"expected two folders of raters or more, each once, found {', '.join(map(str, raters))}")
    found = [dict(_masks_of(root)) for root in raters]
    for root, masks in zip(raters, found, strict=True):
        if not masks:
            raise InputError(
                f"{root}: no mask; expected sub-001/[ses-01/]anat/sub-001_[ses-01_]label-lesion_mask.nii.gz"
            )
    if inside := [root for root in raters if out.resolve().is_relative_to(root.resolve())]:
        raise InputError(f"{out}: lies in a rater's folder, {inside[0]}; choose another --output")
    _claim(out)
    keys = sorted({key for masks in found for key in masks}, key=lambda key: (key[0], key[1] or "", key[2]))
    merged = []
    with whole_folder(out) as folder:
        for number, key in enumerate(keys):
            on_progress(number, len(keys))
            merged.append(_merge(key, [masks.get(key) for masks in found], raters, folder, method))
        on_progress(len(keys), len(keys))
        if all(one.fault for one in merged):
            raise InputError(f"no case can be merged; {merged[0].subject}: {merged[0].fault}")
        write_text(folder / AGREEMENT_FILE, tsv_text(_lines(merged, names_of(raters))))
        _describe(folder, raters, method)
    return merged


def names_of(raters: Sequence[Path]) -> list[str]:
    """What raters' folders are called: their last name, with as many before it as tell them apart."""
    parts = [root.resolve().parts for root in raters]
    named = (["/".join(part[-depth:]) for part in parts] for depth in range(1, max(map(len, parts)) + 1))
    return next(names for names in named if len({*names}) == len(names))


def _claim(out: Path) -> None:
    try:
        if out.is_symlink():
            raise InputError(f"{out}: is a link, in whose place a folder would be made; name the folder itself")
        if out.exists() and any(out.iterdir()):
            raise InputError(f"{out}: is not empty; choose another --output")
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --output") from None


def _masks_of(root: Path) -> Iterator[tuple[Key, Path]]:
    """Each mask of a rater; of several for one case, the plainly named one."""
    if not is_folder(root):
        raise InputError(f"{root}: no such folder; name a rater's BIDS derivative with --rater")
    for folder in subject_folders(root)[0]:
        for visit in visits_of(folder):
            anat = folder / (visit or "") / "anat"
            if not is_folder(anat):
                continue
            names = [parse_image_name(path) for path in visible(anat) if is_nifti(path.name)]
            for label in MASKS:
                fitting = [
                    name for name in names if name and name.belongs_to(folder.name, visit) and name.is_mask_of(label)
                ]
                plain = [name for name in fitting if name.is_plain_mask_of(label)] or fitting
                if len(plain) > 1:
                    raise InputError(
                        f"{anat}: {len(plain)} masks of one rater: {plain[0].path.name}, {plain[1].path.name}"
                    )
                if plain:
                    yield (folder.name, visit, label), plain[0].path


def _merge(key: Key, paths: Sequence[Path | None], raters: Sequence[Path], out: Path, method: Method) -> MergedMask:
    if lacking := [str(root) for root, path in zip(raters, paths, strict=True) if path is None]:
        return MergedMask(*key, f"no mask in {', '.join(lacking)}")
    images: list[nib.Nifti1Image] = []
    for path in paths:
        assert path is not None
        try:
            if not path.is_file():
                raise CaseError("expected a file, found a pipe, a folder or a link to nothing")
            volume = read_volume(path)
            faults = [one.text for one in grid_rules(volume) if one.level == "fail"]
            faults = faults or [one.text for one in mask_rules(volume) if one.level == "fail"]
            if faults:
                raise CaseError(faults[0])
            images.append(read_mask(path))
        except CaseError as error:
            return MergedMask(*key, f"{path}: {error}")
        except OSError as error:
            return MergedMask(*key, f"{path}: {unreadable(error)}")
        if not share_grid(images[0], images[-1]):
            return MergedMask(*key, f"{path}: lies on another grid than that of {raters[0]}; draw both on one image")
    masks: list[Mask] = [np.asarray(image.dataobj) > 0 for image in images]
    done = merge_masks(masks, method)
    spacing_mm: tuple[float, float, float] = tuple(map(float, voxel_sizes(images[0].affine)))  # type: ignore[assignment]
    subject, visit, label = key
    name = "_".join(part for part in (subject, visit, f"label-{label}_mask.nii.gz") if part)
    save_image(out / subject / (visit or "") / "anat" / name, done.mask_DHW.astype(np.uint8), images[0].affine)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return MergedMask(
        *key,
        volumes_ml=tuple(float(mask.sum()) * voxel_ml for mask in [*masks, done.mask_DHW]),
        between=mean_agreement(masks, spacing_mm),
        with_merged=tuple(agreement(mask, done.mask_DHW, spacing_mm) for mask in masks),
        sensitivity=done.sensitivity_R,
        specificity=done.specificity_R,
    )


def _describe(out: Path, raters: Sequence[Path], method: Method) -> None:
    write_json(
        out / "dataset_description.json",
        {
            "Name": f"Lesion masks of {len(raters)} raters, merged by {method}",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "msfl", "Version": __version__}],
        },
    )


def _lines(merged: Sequence[MergedMask], raters: Sequence[str]) -> Iterator[list[object]]:
    """A line for each rater of each case."""
    yield ["participant_id", "session_id", "label", "rater", "volume_ml", "merged_ml", "dsc", "lesion_f1",
           "dsc_between", "lesion_f1_between", "sensitivity", "specificity"]  # fmt: skip
    for one in merged:
        if one.fault:
            continue
        assert one.between is not None
        for number, rater in enumerate(raters):
            figures = (
                one.volumes_ml[number], one.volumes_ml[-1], *one.with_merged[number].values(), *one.between.values(),
                one.sensitivity[number], one.specificity[number],
            )  # fmt: skip
            told = ("n/a" if np.isnan(figure) else f"{figure:.6g}" for figure in figures)
            yield [one.subject, one.visit or "n/a", one.label, rater, *told]
