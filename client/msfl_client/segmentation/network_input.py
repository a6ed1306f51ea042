"""From a case's files to what the network sees, cached.

Orientation is RAS throughout. Legend: C contrast, D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spaces import vox2out_vox
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy import ndimage

from msfl_client.data.aligned_images import read_aligned
from msfl_client.data.bids import Case
from msfl_client.data.cache_limits import keep_newest, mark_used
from msfl_client.imaging.masks import carry_labels
from msfl_client.imaging.resampling import FloatImage, normalise, resample
from msfl_common.config.contrasts import Contrast, outlined_on
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError
from msfl_common.system.files import write_bytes

CACHE_FORMAT = 6  # raise it whenever this module's results change


@dataclass(frozen=True)
class NetworkInput:
    """One case on the study's grid, cropped to the head.

    Attributes:
        image_CDHW: channels in the study's order, z-scored inside the brain, dark outside; float32.
        label_DHW: in lesions the number of their class, 1 where classes are not told apart; else 0; uint8. None for a
            case without a mask.
        affine: 4 x 4, voxel indices to RAS millimetres.
    """

    image_CDHW: FloatImage
    label_DHW: NDArray[np.uint8] | None
    affine: NDArray[np.float64]


def target_contrast(inputs: Inputs) -> Contrast:
    """The contrast on whose grid lesions are outlined: FLAIR where the study uses it."""
    return outlined_on(inputs.contrasts)


def make_network_input(case: Case, inputs: Inputs) -> NetworkInput:
    """Reorient, co-register and denoise where needed, resample to the study's spacing, crop to the head and normalise.

    Raises:
        CaseError: an image cannot be read or holds nothing, or the images do not lie on one another.
    """
    read = read_aligned(case, inputs.channels, target_contrast(inputs), inputs.denoising, inputs.num_classes)
    return network_input_of_images(case.key, read.images, read.mask, inputs)


def network_input_of_images(
    key: str, images: Mapping[Contrast, nib.Nifti1Image], mask: nib.Nifti1Image | None, inputs: Inputs
) -> NetworkInput:
    """`make_network_input` for images in memory: in RAS order, above 0 in the brain and 0 outside (`brain_signal`).

    Raises:
        CaseError: the images hold nothing; `key` names the case.
    """
    grid = _study_grid(images[target_contrast(inputs)], inputs.spacing_mm)
    resampled = [resample(images[contrast], grid) for contrast in inputs.channels]
    foreground_DHW = np.any([image_DHW > 0 for image_DHW in resampled], axis=0)
    if not foreground_DHW.any():
        raise CaseError(f"{key}: expected positive intensities, found none")
    box = ndimage.find_objects(foreground_DHW.astype(np.uint8))[0]
    image_CDHW = np.stack([normalise(image_DHW[box]) for image_DHW in resampled])
    label_DHW = None
    if mask is not None:
        label_DHW = carry_labels(mask, grid, inputs.num_classes)[box]
    affine = np.asarray(grid[1], dtype=np.float64).copy()
    affine[:3, 3] += affine[:3, :3] @ [axis.start for axis in box]
    return NetworkInput(image_CDHW, label_DHW, affine)


def _study_grid(reference: nib.Nifti1Image, spacing_mm: float) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """The field of view of an image in RAS voxels of one size; one that has these keeps its own grid exactly."""
    if np.allclose(reference.affine[:3, :3], np.eye(3) * spacing_mm, rtol=0, atol=1e-5):
        return reference.shape, reference.affine
    shape, affine = vox2out_vox(reference, (spacing_mm,) * 3)
    return shape, affine


def cached_network_input(case: Case, inputs: Inputs, cache: Path) -> NetworkInput:
    """`make_network_input`, kept at `cached_path`."""
    path = cached_path(case, inputs, cache)
    try:
        stored = load_file(path)
        mark_used(path)
        return NetworkInput(stored["image"], stored.get("label"), stored["affine"])
    except (FileNotFoundError, SafetensorError, KeyError):
        prepared = make_network_input(case, inputs)
    save_network_input(path, prepared)
    return prepared


def save_network_input(path: Path, prepared: NetworkInput) -> None:
    """Write a case as one file: `image`, `affine` and, where there is a mask, `label`."""
    tensors: dict[str, NDArray[np.generic]] = {"image": prepared.image_CDHW, "affine": prepared.affine}
    if prepared.label_DHW is not None:
        tensors["label"] = prepared.label_DHW
    write_bytes(path, save({name: np.ascontiguousarray(value) for name, value in tensors.items()}))


def make_network_inputs(
    cases: Sequence[Case], inputs: Inputs, cache: Path, num_workers: int, on_case: Callable[[], None] = lambda: None
) -> list[NetworkInput | None]:
    """Prepare cases in parallel; the result keeps their order, with None for a case that cannot be prepared."""

    def prepare(case: Case) -> NetworkInput | None:
        try:
            return cached_network_input(case, inputs, cache)
        except (CaseError, FileNotFoundError):
            return None
        finally:
            on_case()

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        prepared = list(pool.map(prepare, cases))
    keep_newest(cache, len(cases), ".safetensors")
    return prepared


def cached_path(case: Case, inputs: Inputs, cache: Path) -> Path:
    """Where a prepared case lies under `cache`: named by a hash of its files' identity and the settings."""
    files = [case.images[channel] for channel in inputs.channels] + ([case.mask] if case.mask else [])
    identity = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    text = json.dumps([CACHE_FORMAT, inputs.model_dump(mode="json"), identity])
    return cache / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
