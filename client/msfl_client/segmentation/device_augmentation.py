"""Augmentation of a whole batch on the network's own device: what `PatchAugmentation` does to a patch, as batched ops.

A GPU would wait for the cores that augment its patches one by one. What a patch goes through follows from its seed
alone, whatever batch it is in: the draws are NumPy's, and noise is the device's, seeded by the patch.

Legend: B batch, C contrast, R regions of lesions, D/H/W voxels, K control points, N degrees of a polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from msfl_client.segmentation.augmentation import flipped_axes
from msfl_common.config.training import Augmentation

_TURN, _SCALE = math.radians(15), 0.15
_POINTS, _GAMMA = (6, 10), (0.7, 1.5)
_DEGREE, _BIAS = 3, 0.15
_ZOOM, _NOISE_SD = (0.5, 1.0), 0.2

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Draws:
    """What one patch goes through.

    Attributes:
        seed: of its noise.
        flips: axes of D, H and W, 0 to 2, that it is mirrored along.
        affine: 3 x 3, from where a voxel lies to where its value is taken from; None: it stays.
        curves: of each contrast, the K values from 0 to 1 that evenly spaced intensities are brought to.
        gammas: of each contrast; 1 changes nothing.
        bias_CNNN: coefficients of Legendre polynomials along D, H and W, whose sum is the log of the field.
        zooms: of each contrast; 1 changes nothing.
        noise_sd: of each contrast; 0 adds nothing.
    """

    seed: int
    flips: tuple[int, ...]
    affine: NDArray[np.float64] | None
    curves: tuple[Floats, ...]
    gammas: tuple[float, ...]
    bias_CNNN: Floats
    zooms: tuple[float, ...]
    noise_sd: tuple[float, ...]


def draw(settings: Augmentation, seed: int, num_contrasts: int) -> Draws:
    """Draw what a patch goes through; equal seeds give equal draws."""
    rng = np.random.default_rng(seed)
    flips = tuple(axis for axis in flipped_axes(settings) if rng.random() < settings.flip)
    affine = _turn_and_scale(rng) if rng.random() < settings.affine else None
    curves, gammas, zooms, noise_sd = [], [], [], []
    bias_CNNN = np.zeros((num_contrasts, *(_DEGREE + 1,) * 3), dtype=np.float32)
    for contrast in range(num_contrasts):
        curves.append(_curve(rng, rng.random() < settings.gamma))
        gammas.append(rng.uniform(*_GAMMA) if rng.random() < settings.gamma else 1.0)
        if rng.random() < settings.bias:
            bias_CNNN[contrast] = np.where(_LOW_DEGREES, rng.uniform(0, _BIAS, _LOW_DEGREES.shape), 0)
        zooms.append(rng.uniform(*_ZOOM) if rng.random() < settings.low_resolution else 1.0)
        noise_sd.append(rng.uniform(0, _NOISE_SD) if rng.random() < settings.noise else 0.0)
    return Draws(seed, flips, affine, tuple(curves), tuple(gammas), bias_CNNN, tuple(zooms), tuple(noise_sd))


def augment_batch(
    settings: Augmentation,
    image_BCDHW: torch.Tensor,
    floor_BC111: torch.Tensor,
    label_BRDHW: torch.Tensor,
    seeds: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment cubic patches where they lie.

    Multiplicative effects act on intensities above a contrast's floor, where the background is 0 and stays so.

    Args:
        settings: probabilities.
        image_BCDHW: float32.
        floor_BC111: each contrast's lowest value in its whole image.
        label_BRDHW: 1 in the lesions of a region, else 0; float32.
        seeds: one of each patch.
    """
    draws = [draw(settings, seed, image_BCDHW.shape[1]) for seed in seeds]
    moved_BCDHW, label_BRDHW = move(image_BCDHW - floor_BC111, label_BRDHW, draws)
    changed_BCDHW = change_intensities(moved_BCDHW, draws)
    return torch.where(moved_BCDHW > 0, changed_BCDHW, 0.0) + floor_BC111, label_BRDHW


def move(
    image_BCDHW: torch.Tensor, label_BRDHW: torch.Tensor, draws: Sequence[Draws]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror, turn and scale images and labels; what comes from outside is 0."""
    for axis in range(3):
        flipped = _at(image_BCDHW, [axis in one.flips for one in draws])
        image_BCDHW = torch.where(flipped, image_BCDHW.flip(2 + axis), image_BCDHW)
        label_BRDHW = torch.where(flipped, label_BRDHW.flip(2 + axis), label_BRDHW)
    turned = [number for number, one in enumerate(draws) if one.affine is not None]
    if not turned:
        return image_BCDHW, label_BRDHW
    affines = [one.affine for one in draws if one.affine is not None]
    # `affine_grid` names the last axis first.
    theta = torch.as_tensor(np.stack(affines)[:, ::-1, ::-1].copy(), dtype=torch.float32, device=image_BCDHW.device)
    theta = functional.pad(theta, (0, 1))
    image_BCDHW, label_BRDHW = image_BCDHW.clone(), label_BRDHW.clone()
    for patches, mode in ((image_BCDHW, "bilinear"), (label_BRDHW, "nearest")):
        some = patches[turned]
        grid = functional.affine_grid(theta, list(some.shape), align_corners=False)
        patches[turned] = functional.grid_sample(some, grid, mode, "zeros", align_corners=False)
    return image_BCDHW, label_BRDHW


def change_intensities(image_BCDHW: torch.Tensor, draws: Sequence[Draws]) -> torch.Tensor:
    """Bend intensities between the lowest and the highest, multiply by a field, blur, add noise."""
    lowest, highest = image_BCDHW.amin((2, 3, 4), keepdim=True), image_BCDHW.amax((2, 3, 4), keepdim=True)
    spread = highest - lowest
    share_BCDHW = (image_BCDHW - lowest) / spread.clamp(min=1e-7)
    bent_BCDHW = _bend(share_BCDHW, [one.curves for one in draws])
    bent_BCDHW = bent_BCDHW ** _of_contrasts(image_BCDHW, [one.gammas for one in draws])
    changed_BCDHW = (bent_BCDHW * spread + lowest) * _fields(image_BCDHW, draws)
    _coarsen(changed_BCDHW, draws)
    _add_noise(changed_BCDHW, draws)
    return changed_BCDHW


def _turn_and_scale(rng: np.random.Generator) -> NDArray[np.float64]:
    """By at most 15 degrees about each axis, and by at most 15%."""
    matrix = np.eye(3)
    for axis, angle in enumerate(rng.uniform(-_TURN, _TURN, 3)):
        turn, (one, other) = np.eye(3), [left for left in range(3) if left != axis]
        turn[one, one] = turn[other, other] = math.cos(angle)
        turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix @ np.diag(1 + rng.uniform(-_SCALE, _SCALE, 3))


def _curve(rng: np.random.Generator, is_bent: bool) -> Floats:
    """As MONAI's `RandHistogramShift`: each inner point lies anywhere between the one before and the one after."""
    points = np.linspace(0, 1, int(rng.integers(_POINTS[0], _POINTS[1] + 1)) if is_bent else 2)
    for inner in range(1, len(points) - 1):
        points[inner] = rng.uniform(points[inner - 1], points[inner + 1])
    return points.astype(np.float32)


def _bend(share_BCDHW: torch.Tensor, curves: Sequence[tuple[Floats, ...]]) -> torch.Tensor:
    """Intensities from 0 to 1 along each contrast's curve, straight between its points."""
    each = [curve for of in curves for curve in of]
    most = max(map(len, each))
    table = np.stack([np.pad(curve, (0, most - len(curve)), mode="edge") for curve in each])
    table_RK = torch.as_tensor(table, device=share_BCDHW.device)
    last_R1 = torch.as_tensor([[len(curve) - 1.0] for curve in each], dtype=torch.float32, device=share_BCDHW.device)
    place_RV = share_BCDHW.flatten(0, 1).flatten(1) * last_R1
    below_RV = torch.minimum(place_RV.floor(), last_R1 - 1).clamp(min=0)
    low_RV, high_RV = (table_RK.gather(1, (below_RV + more).long()) for more in (0, 1))
    return (low_RV + (high_RV - low_RV) * (place_RV - below_RV)).reshape(share_BCDHW.shape)


def _fields(image_BCDHW: torch.Tensor, draws: Sequence[Draws]) -> torch.Tensor:
    """Smooth fields to multiply by; 1 where none was drawn."""
    bias = torch.as_tensor(np.stack([one.bias_CNNN for one in draws]), device=image_BCDHW.device)
    along_D, along_H, along_W = (_legendre(size).to(image_BCDHW.device) for size in image_BCDHW.shape[2:])
    log = torch.einsum("bcijk,di->bcdjk", bias, along_D)
    log = torch.einsum("bcdjk,hj->bcdhk", log, along_H)
    return torch.einsum("bcdhk,wk->bcdhw", log, along_W).exp()


def _legendre(size: int) -> torch.Tensor:
    """Of evenly spaced places from -1 to 1, the polynomials of each degree (Bonnet's recursion)."""
    place = torch.linspace(-1, 1, size)
    found = [torch.ones_like(place), place]
    for degree in range(2, _DEGREE + 1):
        found.append(((2 * degree - 1) * place * found[-1] - (degree - 1) * found[-2]) / degree)
    return torch.stack(found, dim=1)


def _coarsen(image_BCDHW: torch.Tensor, draws: Sequence[Draws]) -> None:
    """Take fewer voxels and interpolate between them, in place, as nnU-Net's simulation of low resolution does."""
    shape = image_BCDHW.shape[2:]
    for number, one in enumerate(draws):
        for contrast, zoom in enumerate(one.zooms):
            if zoom < 1:
                coarse = [max(1, round(size * zoom)) for size in shape]
                image_11DHW = image_BCDHW[number, contrast][None, None]
                fewer = functional.interpolate(image_11DHW, coarse, mode="nearest")
                image_BCDHW[number, contrast] = functional.interpolate(fewer, list(shape), mode="trilinear")[0, 0]


def _add_noise(image_BCDHW: torch.Tensor, draws: Sequence[Draws]) -> None:
    """Gaussian noise, in place."""
    generator = torch.Generator(image_BCDHW.device)
    for number, one in enumerate(draws):
        for contrast, deviation in enumerate(one.noise_sd):
            if deviation:
                generator.manual_seed(one.seed + contrast)
                shape, device = image_BCDHW.shape[2:], image_BCDHW.device
                image_BCDHW[number, contrast] += deviation * torch.randn(shape, generator=generator, device=device)


def _at(like_BCDHW: torch.Tensor, chosen: Sequence[bool]) -> torch.Tensor:
    return torch.as_tensor(list(chosen), device=like_BCDHW.device).reshape(-1, 1, 1, 1, 1)


def _of_contrasts(like_BCDHW: torch.Tensor, values: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=like_BCDHW.device)[..., None, None, None]


# Which products of polynomials have at most the degree in all.
_LOW_DEGREES = np.add.outer(np.add.outer(range(_DEGREE + 1), range(_DEGREE + 1)), range(_DEGREE + 1)) <= _DEGREE
