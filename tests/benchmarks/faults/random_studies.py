"""Small random studies with their sites: of images, and of every kind of feature model, with folds and scanners."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msfl_common.config.message_kinds import KINDS
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.feature_models import FEATURE_MODELS
from tests.clinical_site import Tables
from tests.conftest import SHAPE, BidsSite

USUAL = {"bpf": (0.78, 0.03), "log_lesion_volume": (2.1, 0.5), "gm_volume_ml": (620.0, 50.0)}  # mean, SD
FEATURES = tuple(USUAL)
BROKEN = 0.08  # share of sites whose table has a value that cannot be
IMAGES_EVERY = 5  # one study in so many is of images
Rng = np.random.Generator


def random_study(seed: int, folder: Path) -> tuple[StudyConfig, tuple[SiteConfig, ...]]:
    """A study and its sites, whose folders lie in `folder`; equal seeds give equal ones."""
    rng = np.random.default_rng(seed)
    names = [f"site-{letter}" for letter in "abcde"[: rng.integers(3, 6)]]
    if seed % IMAGES_EVERY == 0:
        return _segmentation(rng), tuple(_imaged(rng, name, folder) for name in names)
    study = _classification(rng, seed, names)
    return study, tuple(_tabled(rng, name, folder, study) for name in names)


def _classification(rng: Rng, seed: int, names: Sequence[str]) -> StudyConfig:
    kinds = list(FEATURE_MODELS)
    model: dict[str, Any] = {"kind": kinds[seed % len(kinds)]}
    if model["kind"].startswith("svm-"):
        model["num_features"] = 10
    num_classes = int(rng.choice([2, 2, 2, 3]))
    folds: list[dict[str, Any] | None] = [None, None, {"number": 1, "of": int(rng.integers(2, 6))}, {"site": names[-1]}]
    harmonizes = bool(rng.random() < 0.35)
    classification = {
        "outcome": {
            "column": "course",
            "classes": [f"c{label}" for label in range(num_classes)],
            "observations": str(rng.choice(["first", "every"])),
        },
        "clinical": [["edss"], ["age", "edss"], ["age", "sex", "edss"]][rng.integers(3)],
        "features": list(FEATURES[: rng.integers(1, 4)]) if harmonizes or rng.random() < 0.5 else [],
        "model": model,
        "fold": folds[rng.integers(4)],
        "test_fraction": float(rng.choice([0.2, 0.25, 0.4])),
    }
    harmonization = {"method": "combat", "features": list(FEATURES), "min_cases": int(rng.integers(3, 9))}
    content = {
        "name": "random",
        "task": "classification",
        "seed": int(rng.integers(1000)),
        "min_patients": int(rng.integers(1, 7)),
        "classification": classification,
        "rounds": {"num_rounds": 6, "quorum": 1},
        "validation": {"bootstrap_samples": 100, "fraction": float(rng.choice([0.2, 0.25, 0.4]))},
    }
    return StudyConfig.model_validate(content | ({"harmonization": harmonization} if harmonizes else {}))


def _tabled(rng: Rng, name: str, folder: Path, study: StudyConfig) -> SiteConfig:
    """A site of tables: values missing or impossible, several visits of some patients, rare classes."""
    assert study.classification is not None
    tables, classes = Tables(folder / name), study.classification.outcome.classes
    num_patients, num_scanners = int(rng.choice([12, 40, 60, 90, 130, 180])), int(rng.integers(1, 4))
    shares = rng.dirichlet(np.full(len(classes), 2.0))
    people, features = [], []
    for number in range(num_patients):
        patient, label = f"sub-{number:03d}", int(rng.choice(len(classes), p=shares))
        sex, scanner = ("F" if rng.random() < 0.7 else "M"), f"s{rng.integers(num_scanners)}"
        people.append((patient, round(rng.uniform(20, 65), 1), sex, scanner))
        visits = []
        for visit in range(int(rng.integers(1, 4))):
            edss = "n/a" if rng.random() < 0.05 else round(2 * rng.uniform(0, 7) + label) / 2
            visits.append((f"ses-{visit}", 365 * visit, edss, classes[label], scanner))
            values = [round(mean + sd * (rng.normal() + 0.3 * label), 4) for mean, sd in USUAL.values()]
            features.append((patient, f"ses-{visit}", scanner, *values))
        tables.sessions(patient, ("session_id", "days", "edss", "course", "scanner"), *visits)
    if rng.random() < BROKEN:
        features[-1] = (*features[-1][:-1], 0.0)  # no brain is without grey matter
    tables.participants(("participant_id", "age", "sex", "scanner"), *people)
    if study.classification.features:
        columns = ("participant_id", "session_id", "scanner", *FEATURES)
        tables.write("features/features.tsv", columns, *features)
    return _site(rng, name, folder, ("classification",))


def _segmentation(rng: Rng) -> StudyConfig:
    content = {
        "name": "random",
        "seed": int(rng.integers(1000)),
        "min_patients": int(rng.integers(1, 5)),
        "inputs": {"contrasts": ["FLAIR"], "spacing_mm": 4.0},
        "network": {"kind": "unet", "channels": [4, 8]},
        "training": {"steps_per_round": int(rng.integers(1, 4)), "batch_size": 2, "patch_voxels": 16},
        "rounds": {"num_rounds": 3, "quorum": 1},
        "validation": {"bootstrap_samples": 100, "fraction": float(rng.choice([0.2, 0.4]))},
    }
    return StudyConfig.model_validate(content)


def _imaged(rng: Rng, name: str, folder: Path) -> SiteConfig:
    """A site of small heads; some have no lesion, some two visits."""
    site = BidsSite(folder / name)
    site.root.mkdir(parents=True)
    for number in range(int(rng.integers(2, 25))):
        visits = ("ses-1", "ses-2") if rng.random() < 0.3 else (None,)
        for visit in visits:
            subject = f"sub-{number}"
            site.add(subject, visit)
            if rng.random() < 0.3:
                site.save(site.mask(subject, visit), np.zeros(SHAPE, np.uint8))
    return _site(rng, name, folder, ("lesion-segmentation",))


def _site(rng: Rng, name: str, folder: Path, tasks: tuple[str, ...]) -> SiteConfig:
    """A site, whose policy now and then keeps something back."""
    kept = {"harmonization_sums"} if rng.random() < 0.05 else {"validation_metrics"} if rng.random() < 0.1 else set()
    content = {
        "tasks": tasks,
        "min_patients": int(rng.choice([1, 3, 5, 5, 5, 8])),
        "allow": [kind for kind in KINDS if kind not in kept],
        "refuse_models": [] if rng.random() < 0.9 else ["logistic", "linear-svm", "mlp", "gradient-boosting"],
    }
    policy = Policy.model_validate(content)
    return SiteConfig(name=name, data=(folder / name,), state=folder / "states" / name, device="cpu", policy=policy)
