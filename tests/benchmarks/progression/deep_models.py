"""The deep models at full size: parameters, and one step forward and backward of a patient with two visits."""

from __future__ import annotations

import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

from msfl_client.classification.deep_loop import train_round
from msfl_client.classification.visit_sequences import VisitSequence
from msfl_common.config.study import StudyConfig, Training
from msfl_common.models.deep_models import build_classifier, deep_settings
from tests.benchmarks.figure import Figure
from tests.deep import KINDS, full_study

NUM_VISITS = 2
MOST_SECONDS = 120.0  # 30 steps in an hour, without a GPU
MOST_GB = 8.0  # the paper's GPU


def measure() -> list[Figure]:
    """Of each model, in a process of its own."""
    figures = []
    for kind in KINDS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            parameters, trained, seconds, gigabytes = process.submit(one_step, kind).result()
        size = f"{kind}, width 64, T1w of 50 x 128 x 128, eight subscores"
        step = f"{size}; one patient with {NUM_VISITS} visits, forward, backward and optimiser step, CPU, one thread"
        figures += [
            Figure(f"{kind}, parameters", parameters / 1e6, "M", None, "at_most", "", size),
            Figure(f"{kind}, parameters trained", trained / 1e6, "M", None, "at_most", "", size),
            Figure(f"{kind}, a step", seconds, "CPU s", MOST_SECONDS, "at_most", "", step),
            Figure(f"{kind}, peak memory", gigabytes, "GB", MOST_GB, "at_most", "", f"{step}; the whole process"),
        ]
    return figures


def one_step(kind: str) -> tuple[int, int, float, float]:
    """Parameters, those that are trained, CPU seconds of a step, and the process's peak memory in GB."""
    torch.set_num_threads(1)
    study = full_study(kind, "T1w").model_copy(update={"training": Training(steps_per_round=1, batch_size=1)})
    network = build_classifier(study)
    start = time.process_time()
    train_round(network, [_patient(study)], study, 1, torch.device("cpu"), lambda *_: None)
    seconds = time.process_time() - start
    counts = [parameter.numel() for parameter in network.parameters()]
    trained = [parameter.numel() for parameter in network.parameters() if parameter.requires_grad]
    return sum(counts), sum(trained), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def _patient(study: StudyConfig) -> VisitSequence:
    settings, model = deep_settings(study)
    rng = np.random.default_rng(0)
    shape = (NUM_VISITS, len(study.inputs.contrasts), model.slices, model.pixels, model.pixels)
    volumes = rng.integers(1, 256, shape).astype(np.uint8)
    clinical = rng.uniform(0, 1, (NUM_VISITS, len(settings.inputs))).astype(np.float32)
    return VisitSequence(tuple(volumes), clinical, np.ones(NUM_VISITS, bool), 1, "a")
