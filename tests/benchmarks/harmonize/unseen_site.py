"""Images: does making intensities alike, and varying them in training, help at a site that was not trained on?

One network for each arm and seed, trained on three simulated sites, measured at a fourth with scanners of its own
and, where they are at hand, on two real patients (Lesjak et al., Neuroinformatics 2017, CC-BY), whose scanner counts
in units of its own as every real one does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from msfl_client.data.bids import Case, find_cases
from msfl_client.imaging.resampling import FloatImage
from msfl_client.segmentation.loop import train_round, validate
from msfl_client.segmentation.network_input import NetworkInput, make_network_input
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Augmentation, Inputs, Rounds, StudyConfig, Training
from msfl_common.models.network import build_network
from msfl_common.system.devices import pick_device
from msfl_common.system.seeds import derive_seed
from msfl_server.research.simulated_cohort import make_cohort
from tests.benchmarks.figure import Figure

SEEDS = (0, 1, 2)
CASES, STEPS = 12, 1500
GEOMETRY_ONLY = Augmentation(gamma=0, bias=0, noise=0, low_resolution=0)
ARMS: Mapping[str, tuple[bool, Augmentation]] = {
    "one scale for all": (False, GEOMETRY_ONLY),
    "z-score": (True, GEOMETRY_ONLY),
    "z-score and augmentation": (True, Augmentation()),
}
REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "open_ms"
PATIENTS = ("sub-07", "sub-19")


def measure() -> list[Figure]:
    """DSC at the unseen site, mean and spread over seeds; each seed has its own cohort, weights and patches."""
    scores: dict[str, dict[str, list[float]]] = {arm: {"an unseen site": []} for arm in ARMS}
    real = [case for case in _first_sessions(REAL) if case.subject in PATIENTS] if REAL.is_dir() else []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            cohort = Path(folder) / str(seed)
            make_cohort(cohort, num_sites=4, cases_per_site=CASES, seed=seed)
            *known, unseen = [_first_sessions(path) for path in sorted(cohort.glob("site-*"))]
            tests = {"an unseen site": unseen, **({"two real patients": real} if real else {})}
            for arm, (z_score, augmentation) in ARMS.items():
                cases = [case for site in known for case in site]
                for where, dsc in _dsc(cases, tests, _study(seed, augmentation), z_score).items():
                    scores[arm].setdefault(where, []).append(dsc)
    how = f"trained on {CASES} cases at each of 3 sites, {STEPS} steps, seeds {SEEDS}"
    figures = [
        Figure(f"DSC at {where}: {arm}", float(np.mean(values)), "", None, "at_least", "", _each(how, values))
        for arm, found in scores.items()
        for where, values in found.items()
    ]
    for arm, against in (("z-score", "one scale for all"), ("z-score and augmentation", "z-score")):
        for where in scores[arm]:
            gained = np.array(scores[arm][where]) - np.array(scores[against][where])
            name = f"DSC gained at {where}: {arm} over {against}"
            figures.append(Figure(name, float(gained.mean()), "", 0.0, "at_least", against, _each(how, gained)))
    return figures


def _each(how: str, values: Sequence[float]) -> str:
    return f"{how}; each: {', '.join(f'{value:.3f}' for value in values)}"


def _first_sessions(root: Path) -> list[Case]:
    cases, _ = find_cases(SiteConfig(name="bench", data=(root,), state=root), Inputs().contrasts)
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.subject, case)
    return list(first.values())


def _study(seed: int, augmentation: Augmentation) -> StudyConfig:
    return StudyConfig(
        name="unseen-site",
        seed=seed,
        training=Training(steps_per_round=STEPS // 20, patch_voxels=32, learning_rate=0.005, augmentation=augmentation),
        rounds=Rounds(num_rounds=20),
    )


def _dsc(
    known: Sequence[Case], tests: Mapping[str, Sequence[Case]], study: StudyConfig, z_score: bool
) -> dict[str, float]:
    prepare = _z_scored if z_score else _scaled_alike(known, study.inputs)
    training = [prepare(case, study.inputs) for case in known]
    device = pick_device("auto")
    network = build_network(study)
    loader = PatchLoader(PatchDataset(training, study.training, derive_seed(study.seed, "site", "pooled")), device)
    for number in range(1, study.rounds.num_rounds + 1):
        train_round(network, loader, study, number, device, lambda *_: None)
    found = {}
    for where, cases in tests.items():
        rows = validate(network, [prepare(case, study.inputs) for case in cases], study, device, lambda *_: None)
        found[where] = float(np.nanmean([row["dsc"] for row in rows]))
    return found


def _z_scored(case: Case, inputs: Inputs) -> NetworkInput:
    return make_network_input(case, inputs)


def _scaled_alike(cases: Sequence[Case], inputs: Inputs) -> Callable[[Case, Inputs], NetworkInput]:
    """Intensities as they come but for one shift and scale for everybody, from the training cases."""
    images = [_raw(case, inputs) for case in cases]
    inside = [[image[channel][image[channel] > 0] for image in images] for channel in range(len(inputs.contrasts))]
    means = [float(np.mean([values.mean() for values in channel])) for channel in inside]
    scales = [float(np.mean([values.std() for values in channel])) for channel in inside]

    def prepare(case: Case, inputs: Inputs) -> NetworkInput:
        prepared, raw_CDHW = make_network_input(case, inputs), _raw(case, inputs)
        image_CDHW = np.stack(
            [np.where(raw > 0, (raw - m) / s, -m / s) for raw, m, s in zip(raw_CDHW, means, scales, strict=True)]
        )
        return NetworkInput(image_CDHW.astype(np.float32), prepared.label_DHW, prepared.affine)

    return prepare


def _raw(case: Case, inputs: Inputs) -> FloatImage:
    """What `make_network_input` makes, without its normalisation."""
    from msfl_client.segmentation import network_input

    z_score, network_input.normalise = network_input.normalise, lambda image_DHW: image_DHW
    try:
        return network_input.make_network_input(case, inputs).image_CDHW
    finally:
        network_input.normalise = z_score
