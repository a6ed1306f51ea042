"""Preprocessed cases on disk: a BIDS derivative in the site's state folder, and which of it is current.

`preprocessed/[data-1/]sub-*/[ses-*/]anat` holds a case's images, its brain, its lesion mask and one JSON file that
says what they were made from and how; `data-1` is the site's second data folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from msfl_client.data.bids import Case
from msfl_client.data.qc_record import Quality
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.imaging.nifti_writer import save_image
from msfl_client.imaging.resampling import read_image
from msfl_common import __version__
from msfl_common.config.base import Frozen, Preprocessed
from msfl_common.config.contrasts import Channel
from msfl_common.config.inputs import Denoising
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs
from msfl_common.system.files import whole_folder, write_json, write_text

FOLDER = "preprocessed"
FORMAT = 4  # raise it whenever preprocessing's results change
SPACE = "space-MNI152"
_PACKAGES = ("simpleitk", "deepbet", "nilearn", "nibabel", "torch")

Matrix = tuple[tuple[float, float, float, float], ...]


class InputFile(Frozen):
    """A file that a case was made from."""

    size: int = Field(description="bytes")
    mtime_ns: int = Field(description="when it was last written")
    sha256: str = Field(description="digest of its content")


class Sidecar(Frozen):
    """What a preprocessed case was made from, and how."""

    schema_version: int = Field(1, description="version of this file's format")
    settings: str = Field(description="digest of the settings that decide the result")
    inputs: dict[str, InputFile] = Field(description="the images by contrast, and the mask")
    found: Preprocessed = Field(description="what the images were before")
    anchor: Channel = Field(description="contrast that the brain and the template were matched on")
    to_anchor: dict[Channel, Matrix] = Field(description="4 x 4, RAS mm of each image to RAS mm of the anchor")
    native_to_mni: Matrix = Field(description="4 x 4, RAS mm of the anchor to MNI152 mm")
    software: dict[str, str] = Field(description="versions of the packages")
    without_black: tuple[Channel, ...] = Field((), description="contrasts whose brightness could not be told")
    scales: dict[Channel, float] = Field(
        default_factory=dict,
        description="of each contrast that is a quantity, what its numbers were multiplied with",
        exclude_if=lambda value: not value,
    )
    denoising: Denoising = Field(
        "none",
        description="how noise was taken out of the images before the rest",
        exclude_if=lambda value: value == "none",
    )
    quality: Quality


def root_of(site: SiteConfig, dataset: int = 0) -> Path:
    """The derivative of one of a site's data folders."""
    root = site.state / FOLDER
    return root / f"data-{dataset}" if dataset else root


def write_description(root: Path) -> None:
    """Make a folder a BIDS derivative."""
    write_json(
        root / "dataset_description.json",
        {
            "Name": "Scans in the MNI152 space",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "msfl", "Version": __version__}],
        },
    )


def write_case(case: Case, site: SiteConfig, done: CommonSpaceCase, sidecar: Sidecar) -> None:
    """Write a preprocessed case in one step; an earlier one is replaced."""
    with whole_folder(_folder(case, site)) as folder:
        for contrast, image_DHW in done.images_DHW.items():
            voxels_DHW = image_DHW.astype(np.int16)
            save_image(folder / _name(case, f"desc-preproc_{contrast}.nii.gz"), voxels_DHW, done.affine, in_mni=True)
        lesions_DHW = done.lesion_DHW if done.label_DHW is None else done.label_DHW
        for what, mask_DHW in (("desc-brain", done.brain_DHW), (f"label-{case.mask_label}", lesions_DHW)):
            if mask_DHW is not None:
                name = _name(case, f"{what}_mask.nii.gz")
                save_image(folder / name, mask_DHW.astype(np.uint8), done.affine, in_mni=True)
        write_text(folder / _name(case, "desc-preproc_provenance.json"), sidecar.model_dump_json(indent=2) + "\n")


def read_sidecar(case: Case, site: SiteConfig) -> Sidecar | None:
    """What is known of a preprocessed case, current or not; None when it is not there."""
    return _sidecar(_path(case, site, "desc-preproc_provenance.json"))


def current(case: Case, site: SiteConfig, inputs: Inputs) -> Sidecar | None:
    """The sidecar of a case whose files and settings are what it was preprocessed from; else None."""
    sidecar = read_sidecar(case, site)
    if sidecar is None or sidecar.settings != settings_digest(site, inputs):
        return None
    try:
        files = dict(input_paths(case, inputs))
        same = files.keys() == sidecar.inputs.keys() and all(
            _is_same(path, sidecar.inputs[role]) for role, path in files.items()
        )
    except OSError:
        return None
    return sidecar if same else None


def from_derivative(case: Case, site: SiteConfig) -> Case:
    """The case with the derivative's files in place of its own."""
    images = {contrast: _path(case, site, f"desc-preproc_{contrast}.nii.gz") for contrast in case.images}
    mask = _path(case, site, f"label-{case.mask_label}_mask.nii.gz") if case.mask else None
    return replace(case, images=images, mask=mask)


def is_derived(case: Case) -> bool:
    """Whether a case is one of `from_derivative`, whose images share a grid and were co-registered."""
    return all(path.name.startswith(_name(case, "desc-preproc_")) for path in case.images.values())


def read_derived(case: Case) -> CommonSpaceCase | None:
    """A case of `from_derivative` with its brain, and where it came from; None for a case of any other files."""
    first = next(iter(case.images.values()))
    sidecar = _sidecar(first.with_name(_name(case, "desc-preproc_provenance.json")))
    if sidecar is None or not is_derived(case):
        return None
    brain = read_image(first.with_name(_name(case, "desc-brain_mask.nii.gz")))
    return CommonSpaceCase(
        images_DHW={name: np.asarray(read_image(path).dataobj) for name, path in case.images.items()},
        brain_DHW=np.asarray(brain.dataobj) > 0,
        lesion_DHW=np.asarray(read_image(case.mask).dataobj) > 0 if case.mask else None,
        affine=np.asarray(brain.affine, dtype=np.float64),
        native_to_mni=np.array(sidecar.native_to_mni),
        without_black=frozenset(sidecar.without_black),
        scales=sidecar.scales,
    )


def settings_digest(site: SiteConfig, inputs: Inputs) -> str:
    """Digest of everything but the files that a result depends on."""
    decides = (FORMAT, sorted(inputs.channels), inputs.spacing_mm, site.preprocessed)
    denoised = () if inputs.denoising == "none" else (inputs.denoising,)
    classes = (inputs.num_classes,) if inputs.num_classes > 1 else ()
    return hashlib.sha256(repr((*decides, *denoised, *classes)).encode()).hexdigest()


def input_paths(case: Case, inputs: Inputs) -> Iterator[tuple[str, Path]]:
    """Role and path of each file that a case is made from."""
    for contrast in inputs.channels:
        if contrast in case.images:
            yield contrast, case.images[contrast]
    if case.mask:
        yield "mask", case.mask


def describe_inputs(case: Case, inputs: Inputs) -> dict[str, InputFile]:
    """The files as they are now; to be taken before they are read."""
    described = {}
    for role, path in input_paths(case, inputs):
        stat = path.stat()
        described[role] = InputFile(size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256_of(path))
    return described


def software() -> Mapping[str, str]:
    """Versions of what the result comes from."""
    return {"msfl": __version__, **{name: version(name) for name in _PACKAGES}}


def _sidecar(path: Path) -> Sidecar | None:
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _is_same(path: Path, known: InputFile) -> bool:
    """By size and time, without reading it; when only the time differs, by content."""
    stat = path.stat()
    if stat.st_size != known.size:
        return False
    return stat.st_mtime_ns == known.mtime_ns or sha256_of(path) == known.sha256


def sha256_of(path: Path) -> str:
    """Digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folder(case: Case, site: SiteConfig) -> Path:
    return root_of(site, case.dataset) / case.subject / (case.visit_id or "") / "anat"


def _name(case: Case, rest: str) -> str:
    return "_".join(part for part in (case.subject, case.visit_id, SPACE, rest) if part)


def _path(case: Case, site: SiteConfig, rest: str) -> Path:
    return _folder(case, site) / _name(case, rest)
