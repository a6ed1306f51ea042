"""Seconds of training until a mean DSC, against a plain MONAI loop on the same simulated cases and network.

The plain loop is what MONAI's tutorials of segmentation write: patches of lesions and others alike, flips and shifts of
intensity, Dice and cross-entropy, Adam at a constant rate. Both have the same patches' size and number a step, and are
measured on the same held-out cases by the same sliding windows; validation does not count as training.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SpatialPadd,
)

from msfl_client.data.patient_split import split_by_patient
from msfl_client.segmentation.loop import train_round, validate
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import Patch, PatchDataset, PatchLoader
from msfl_client.segmentation.usable_cases import usable_cases
from msfl_common.config.study import Inputs, Rounds, StudyConfig, Training, Validation
from msfl_common.models.network import build_network
from msfl_common.monai_parts import DiceCELoss
from msfl_common.networks.registry import DynUNet
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import sites_of_cohort
from tests.benchmarks.figure import Figure

TARGET = 0.5
CPU = torch.device("cpu")
STUDY = StudyConfig(
    name="time-to-dsc",
    inputs=Inputs(spacing_mm=3.0),
    network=DynUNet(channels=(8, 16, 32, 32), deep_supervision=True),
    training=Training(steps_per_round=20, batch_size=2, patch_voxels=32),
    validation=Validation(mirroring=False),
    rounds=Rounds(num_rounds=15, quorum=1),
    min_patients=1,
)


@dataclass(frozen=True)
class Course:
    """How a training went.

    Attributes:
        seconds: of training, up to each validation.
        dsc: mean over the held-out cases.
    """

    seconds: list[float]
    dsc: list[float]

    @property
    def reached_s(self) -> float | None:
        """Seconds until the target; None: never."""
        return next((s for s, dsc in zip(self.seconds, self.dsc, strict=True) if dsc >= TARGET), None)


def measure() -> list[Figure]:
    """Both loops, one round of each in turn, so that both meet whatever else the machine does."""
    train, held_out = _cases()
    network, plain = build_network(STUDY), build_network(STUDY)
    loader = PatchLoader(PatchDataset(train, STUDY.training, seed=0), CPU)
    plain_round = _plain_loop(plain, train)
    courses = {"msfl": Course([], []), "monai": Course([], [])}
    for number in range(1, STUDY.rounds.num_rounds + 1):
        steps: dict[str, tuple[torch.nn.Module, Callable[[], object]]] = {
            "msfl": (network, lambda n=number: train_round(network, loader, STUDY, n, CPU, lambda *_: None)),
            "monai": (plain, plain_round),
        }
        for name, (model, train_once) in steps.items():
            _advance(courses[name], model, train_once, held_out)
    return _figures(courses["msfl"], courses["monai"], len(train), len(held_out))


def _advance(
    course: Course, model: torch.nn.Module, train_once: Callable[[], object], held_out: Sequence[NetworkInput]
) -> None:
    start = time.perf_counter()
    train_once()
    course.seconds.append((course.seconds or [0.0])[-1] + time.perf_counter() - start)
    rows = validate(model, held_out, STUDY, CPU, lambda *_: None)
    course.dsc.append(float(np.mean([row["dsc"] for row in rows])))


def _figures(ours: Course, plain: Course, num_train: int, num_held_out: int) -> list[Figure]:
    how = f"{num_train} simulated cases of 3 mm, {num_held_out} held out, DynUNet, CPU; {TARGET:g} DSC"
    never = f"never in {ours.seconds[-1]:.0f} s (best {max(ours.dsc):.3f}); plain best {max(plain.dsc):.3f}"
    plain_s = plain.reached_s or plain.seconds[-1]
    reached = "" if plain.reached_s else f"; the plain loop never reaches it (best {max(plain.dsc):.3f})"
    ratio = None if ours.reached_s is None else ours.reached_s / plain_s
    return [
        Figure(
            f"seconds to a DSC of {TARGET:g}",
            ratio,
            "",
            1.0,
            "at_most",
            "plain MONAI loop",
            f"{how}; {ours.reached_s:.0f} against {plain_s:.0f} s{reached}" if ours.reached_s else f"{how}; {never}",
        ),
        Figure("DSC at the end", ours.dsc[-1], "", None, "at_least", f"{plain.dsc[-1]:.3f}", how),
    ]


def _cases() -> tuple[list[NetworkInput], list[NetworkInput]]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_cohort(base / "cohort", num_sites=1, cases_per_site=16, seed=0, spacing_mm=3.0)
        (site,) = sites_of_cohort(base / "cohort", base / "state", STUDY)
        cases, prepared, _ = usable_cases(site, STUDY, lambda *_: None)
        train, held_out = split_by_patient(cases, 0.4, seed=0)
        first = [case for case in held_out if case.visit_id in (None, "ses-01")]
        return [prepared[case.key] for case in train], [prepared[case.key] for case in first]


def _plain_loop(network: torch.nn.Module, cases: Sequence[NetworkInput]) -> Callable[[], None]:
    training = STUDY.training
    size, keys = (training.patch_voxels,) * 3, ("image", "label")
    transform = Compose(
        [
            SpatialPadd(keys, size),
            RandCropByPosNegLabeld(keys, "label", size, pos=1, neg=1, num_samples=1),
            *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandScaleIntensityd("image", factors=0.1, prob=0.5),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
        ]
    ).set_random_state(seed=0)
    order, optimizer = np.random.default_rng(0), torch.optim.Adam(network.parameters(), 1e-3)
    loss_of = DiceCELoss(sigmoid=True, batch=True)
    data = [
        {"image": torch.as_tensor(case.image_CDHW), "label": torch.as_tensor(case.label_DHW)[None].float()}
        for case in cases
    ]

    def batches() -> Iterator[Patch]:
        for _ in range(training.steps_per_round):
            chosen = order.choice(len(data), training.batch_size)
            made = [transform(data[case])[0] for case in chosen]
            yield torch.stack([one["image"] for one in made]), torch.stack([one["label"] for one in made])

    def one_round() -> None:
        network.train()
        for image, label in batches():
            optimizer.zero_grad()
            loss_of(network(image)[:, :1], label).backward()
            optimizer.step()

    return one_round
