"""A factory of tiny, real BIDS sites: 24 x 28 x 20 voxels of 6 mm, a head of about 1.5 litres."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from msfl_client.data.bids import Case, find_cases
from msfl_common.config.base import Contrast
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs, Rounds, StudyConfig, Training
from msfl_common.networks.registry import UNet

SHAPE = (24, 28, 20)
AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])


@dataclass(frozen=True)
class BidsSite:
    """One BIDS folder with ways to fill it."""

    root: Path

    @staticmethod
    def head(seed: str, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float32]:
        """A bright ellipsoid with noise and, as a brain has, a rim of dark fluid; another seed, other noise."""
        axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
        radius = sum(axis**2 for axis in axes)
        noise = np.random.default_rng(crc32(seed.encode())).normal(0, 2, shape)
        return ((radius < 0.8) * np.where(radius > 0.65, 0.05, 1.0) * (100 + noise)).astype(np.float32)

    @staticmethod
    def lesions(num_voxels: int, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
        """A mask with `num_voxels` lesion voxels in a row."""
        mask = np.zeros(shape, np.uint8)
        mask[8 : 8 + num_voxels, 14, 10] = 1
        return mask

    @staticmethod
    def save(path: Path, voxels: NDArray[Any], affine: NDArray[Any] = AFFINE) -> None:
        """Write a NIfTI file."""
        nib.save(nib.Nifti1Image(voxels, affine), path)

    def place(self, subject: str, visit: str | None = None, masks: bool = False) -> Path:
        """The anat folder of a case; created."""
        base = self.root / "derivatives" / "lesions" if masks else self.root
        folder = base / subject / (visit or "") / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def image(self, subject: str, contrast: str, visit: str | None = None) -> Path:
        """Path of an image, which need not be there yet."""
        stem = "_".join(part for part in (subject, visit, contrast) if part)
        return self.place(subject, visit) / f"{stem}.nii.gz"

    def mask(self, subject: str, visit: str | None = None) -> Path:
        """Path of a mask, which need not be there yet."""
        stem = "_".join(part for part in (subject, visit) if part)
        return self.place(subject, visit, masks=True) / f"{stem}_label-lesion_mask.nii.gz"

    def add(self, subject: str, visit: str | None = None, contrasts: Sequence[str] = ("T1w", "FLAIR")) -> None:
        """A good case: every contrast and a mask with one lesion."""
        for contrast in contrasts:
            path = self.image(subject, contrast, visit)
            self.save(path, self.head(f"{self.root.name}{path.name}"))
        self.save(self.mask(subject, visit), self.lesions(4))

    @staticmethod
    def turn(path: Path) -> None:
        """Store an image from right to left, and without its two lowest slices; its voxels stay where they are."""
        image = nib.load(path)
        affine = image.affine @ np.diag([-1, 1, 1, 1])
        affine[0, 3] = image.affine[0, 0] * (image.shape[0] - 1)
        affine[2, 3] += 2 * image.affine[2, 2]
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1, :, 2:], affine), path)

    def config(self, *more: Path, **settings: Any) -> SiteConfig:
        """The site's config, its state beside the folder; `more` adds BIDS folders."""
        state = self.root.parent / "state"
        return SiteConfig(name="here", data=(self.root, *more), state=state, **settings)

    def cases(self, contrasts: Sequence[Contrast] = ("T1w", "FLAIR")) -> dict[str, Case]:
        """Case by key."""
        return {case.key: case for case in find_cases(self.config(), contrasts)[0]}


def pytest_configure() -> None:
    """No test cuts the machine's power: nothing that its own process writes needs to reach the disk at once."""
    os.fsync = lambda _: None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the longest first, so that no core is left with one of them at the end."""
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    whole = ("integration", "attacks", "deploy")
    items.sort(key=lambda item: ([folder not in item.path.parts for folder in whole], -num_slow[item.path]))


def pytest_collection_finish() -> None:
    """Collections need not look through thousands of tests and what they import."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _sites_closed() -> Iterator[None]:
    """What a module's sites have open in this process is closed with it."""
    yield
    if (opened := sys.modules.get("msfl_client.rounds.site_context")) is not None:
        opened.open_context.cache_clear()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What a command that is run in the tests' own process does to its environment ends with the test."""
    before = dict(os.environ)
    yield
    now = os.environ.pop("PYTEST_CURRENT_TEST", None)
    before.pop("PYTEST_CURRENT_TEST", None)
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)
    if now is not None:
        os.environ["PYTEST_CURRENT_TEST"] = now


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., BidsSite]:
    """Call it with a folder name and the subjects that it starts with."""

    def make(name: str = "bids", subjects: Sequence[str] = ()) -> BidsSite:
        site = BidsSite(tmp_path / name)
        site.root.mkdir()
        for subject in subjects:
            site.add(subject)
        return site

    return make


@pytest.fixture
def site(make_site: Callable[..., BidsSite]) -> BidsSite:
    """A site of three good cases: sub-01, sub-02, sub-03."""
    return make_site(subjects=("sub-01", "sub-02", "sub-03"))


@pytest.fixture
def tiny_study(tiny: StudyConfig) -> StudyConfig:
    """A study that trains for a second on sites of `make_site`."""
    return tiny


@pytest.fixture(scope="session")
def tiny() -> StudyConfig:
    """`tiny_study`, for fixtures that live longer than a test."""
    return tiny_settings()


def tiny_settings() -> StudyConfig:
    """A study that trains for a second."""
    return StudyConfig(
        name="tiny",
        inputs=Inputs(spacing_mm=4.0),
        network=UNet(channels=(4, 8)),
        training=Training(steps_per_round=2, batch_size=2, patch_voxels=16),
        rounds=Rounds(num_rounds=3, quorum=2, deadline_s=120),
        min_patients=1,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many kilobytes."""
    folder = tmp_path / "disk"

    def mounted(kilobytes: int) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("making a small file system needs root and mount")
        return folder

    yield mounted
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def ready_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store that holds nothing yet, to be copied: MLflow takes seconds to make its tables."""
    from msfl_server.tracking.mlflow_tracker import make_store

    folder = tmp_path_factory.mktemp("store")
    make_store(folder)
    return folder / "mlflow.db"


@pytest.fixture
def open_ms() -> Path:
    """Real patients (Lesjak et al. 2017), where a copy lies beside the repository."""
    folder = Path(__file__).parents[1].parent / "shared" / "data" / "open_ms"
    if not folder.is_dir():
        pytest.skip("the open_ms data are not there")
    return folder
