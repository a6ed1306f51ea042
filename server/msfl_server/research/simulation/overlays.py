"""Example overlays for the report: only in simulation, where the cases are this machine's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.trainer import split_segmentation
from msfl_client.data.checks import check_site
from msfl_client.segmentation.loop import predict_probability
from msfl_client.segmentation.network_input import NetworkInput, make_network_inputs, target_contrast
from msfl_common.models.model_folder import load_model
from msfl_common.models.network import build_network, set_weights
from msfl_common.system.devices import pick_device
from msfl_server.report.page import Overlay
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.rounds.stage import StageRun

MOST_SITES = 6


def example_overlays(setup: RunSetup, stage_run: StageRun) -> list[Overlay]:
    """For each of the first sites the case held out with the median lesion volume of those with any, fullest slice.

    It is a test case, where the study keeps some, else one that validates.
    Of a classification there is nothing to overlay, nor of a model whose layers stay at the sites.
    """
    study = stage_run.settings
    if study.classification is not None or (study.strategy is not None and study.strategy.is_personal):
        return []
    card, weights = load_model(stage_run.out / "model")
    network = build_network(study)
    set_weights(network, weights)
    channel = study.inputs.channels.index(target_contrast(study.inputs))
    overlays = []
    for site in setup.sites[:MOST_SITES]:
        cases = check_site(site, study.inputs).cases
        split = split_segmentation(site, stage_run.study, cases)
        name, held = ("test", split.test) if study.has_test else ("validation", split.validation)
        prepared = [
            case for case in make_network_inputs(held, study.inputs, site.state / "cache", 1) if case is not None
        ]
        if not prepared:
            continue
        some = [case for case in prepared if _label(case).any()] or prepared
        chosen = sorted(some, key=lambda case: int(_label(case).sum()))[len(some) // 2]
        predicted_DHW = (
            predict_probability(network, chosen.image_CDHW, study, pick_device(site.device)) >= card.threshold
        )
        level = int(_label(chosen).sum(axis=(0, 1)).argmax())
        overlays.append(
            Overlay(
                site=site.name,
                caption=f"{name} case of median lesion volume, axial slice with most lesion, on the study's grid",
                image_HW=_upright(chosen.image_CDHW[channel, :, :, level]),
                reference_HW=_upright(_label(chosen)[:, :, level] > 0),
                prediction_HW=_upright(predicted_DHW[:, :, level]),
            )
        )
    return overlays


def _label(case: NetworkInput) -> NDArray[np.uint8]:
    """1 in lesions, whatever their class."""
    assert case.label_DHW is not None
    return (case.label_DHW > 0).astype(np.uint8)


def _upright(slice_DH: NDArray[Any]) -> NDArray[Any]:
    """RAS axes to a picture: front up, the patient's right at the left."""
    return slice_DH.T[::-1, ::-1]
