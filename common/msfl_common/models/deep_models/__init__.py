"""Networks over sequences of visits, images and clinical values together.

Three are of Barulina et al. 2026, "Predicting Multiple Sclerosis Disease Activity from Longitudinal MRI and EDSS Data
Using Multimodal Deep Learning" (Preprints, doi 10.20944/preprints202604.1490.v1); where the paper is silent or
contradicts itself, each module says what was chosen. It speaks of seven subscores and names eight: a study lists its
own. The fourth is MSFL's.

Parameters at full size: width 64, 50 slices of 128 x 128 pixels, two classes, eight subscores, and for
lesion-encoder a U-Net of 16, 32, 64 and 128 maps. Of its parameters 58 thousand are trained, the network's are not.

| model               | T1w alone, as in the paper | T1w and FLAIR |
|---------------------|---------------------------:|--------------:|
| resnet3d            |                 33,243,586 |    33,265,666 |
| pretrained-resnet2d |                 11,287,401 |    11,314,529 |
| resnext             |                  2,590,914 |     2,612,994 |
| lesion-encoder      |                  1,245,214 |     1,246,206 |

The first two normalise by batch. The running means and variances of a batch normalisation are averaged over sites
like weights. That is exact for means; of variances, how far the sites' means lie apart is lost. Intensities from 0
to 255 in every scan keep them near each other. Server momentum would carry variances beyond what any site saw, even
below zero, and must not be applied to these models. The other two have no batch statistics.

Legend: B batch, V visits, C contrast, E clinical values and features, D slices, H/W pixels, K classes.
"""

from __future__ import annotations

import torch

from msfl_common.config.classification import Classification, DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.models.deep_models.lesion_encoder import LesionEncoder
from msfl_common.models.deep_models.pretrained_resnet2d import PretrainedResNet2D
from msfl_common.models.deep_models.resnet3d import ResNet3D
from msfl_common.models.deep_models.resnext3d import ResNeXt3D, initialise_self_normalising
from msfl_common.models.deep_models.visit_classifier import VisitClassifier
from msfl_common.system.seeds import derive_seed

__all__ = ["VisitClassifier", "build_classifier", "deep_settings"]

_HIDDEN_PER_WIDTH = 2


def deep_settings(study: StudyConfig) -> tuple[Classification, DeepModel]:
    """The study's classification and its deep model; other studies have no business here."""
    assert study.classification is not None
    assert isinstance(study.classification.model, DeepModel)
    return study.classification, study.classification.model


def build_classifier(study: StudyConfig) -> VisitClassifier:
    """The study's network from images_BVCDHW, clinical_BVE and present_BV to logits_BK, with its first weights.

    The E columns are the study's `classification.inputs`: features, standardised over all sites, then clinical
    values, scaled by `clinical_inputs.scale_clinical`.
    """
    settings, model = deep_settings(study)
    num_contrasts = len(study.inputs.network_channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(study.seed, "weights"))
        encoder = _build_encoder(study, model, num_contrasts)
        network = VisitClassifier(
            encoder,
            encoder.num_features,
            num_contrasts,
            num_values=len(settings.inputs),
            num_hidden=_HIDDEN_PER_WIDTH * model.width,
            num_classes=len(settings.outcome.classes),
        )
        if model.kind == "resnext":
            initialise_self_normalising(network)
    return network


def _build_encoder(
    study: StudyConfig, model: DeepModel, num_contrasts: int
) -> ResNet3D | PretrainedResNet2D | ResNeXt3D | LesionEncoder:
    if model.kind == "resnet3d":
        return ResNet3D(num_contrasts, model.width)
    if model.kind == "pretrained-resnet2d":
        return PretrainedResNet2D(num_contrasts, model.slices, model.width)
    if model.kind == "resnext":
        return ResNeXt3D(num_contrasts, model.width, model.dropout)
    return LesionEncoder(study, model)
