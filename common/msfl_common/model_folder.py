"""A trained model on disk: `model.safetensors` and `model.json`, never a pickle.

Where the study harmonized its features, `harmonization.json` is the reference that they were brought to. Where it
trained a model of lesions for them first, the folder `segmentation` is that model's own.
"""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from msfl_common import __version__
from msfl_common.config import StudyConfig
from msfl_common.config_classification import DeepModel
from msfl_common.errors import ModelFolderError, UpdateError
from msfl_common.feature_models.checks import check_state
from msfl_common.files import whole_folder, write_bytes, write_text
from msfl_common.harmonization import Reference
from msfl_common.reliability import Reliability
from msfl_common.weights import Weights, check_weights, to_safetensors

# A voxel is lesion from this probability on. On simulated validation cases DSC is the same from 0.3 to 0.5 and
# more lesions are found at 0.3; on scanners the model has not seen, probabilities run low.
LESION_THRESHOLD = 0.3

LESION_LABELS = {0: "background", 1: "lesion"}
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
REFERENCE_FILE = "harmonization.json"
SEGMENTATION_FOLDER = "segmentation"


class Provenance(BaseModel):
    """Where the weights come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds_completed: int = Field(ge=0, description="rounds of training behind the weights")
    sites: dict[str, int] = Field(description="training cases per site, as declared with the last update")


class ModelCard(BaseModel):
    """What one needs to know to use the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    notice: str = "Research use only. Not a medical device."
    study: StudyConfig = Field(description="task, architecture, inputs and spacing")
    orientation: Literal["RAS"] = "RAS"
    normalisation: Literal["brain-zscore", "0-255", "none"] = Field(
        "brain-zscore", description="of images: see msfl_client.preprocess and msfl_client.visit_volumes"
    )
    labels: dict[int, str] = LESION_LABELS
    threshold: float = Field(LESION_THRESHOLD, description="lesion, or the last of two classes, from this probability")
    weights_sha256: str = Field(description="SHA-256 of model.safetensors")
    harmonization: str | None = Field(None, description="version of the reference in harmonization.json")
    reliability: Reliability | None = Field(None, description="what came of the study's patients, by their scores")
    segmentation: str | None = Field(
        None, description="SHA-256 of segmentation/model.safetensors, whose lesions the features are of"
    )
    versions: dict[str, str] = Field(description="package versions that made the model")
    provenance: Provenance


def save_model(
    folder: Path,
    study: StudyConfig,
    weights: Weights,
    provenance: Provenance,
    reference: Reference | None = None,
    threshold: float | None = None,
    reliability: Reliability | None = None,
    segmentation: Path | None = None,
) -> ModelCard:
    """Write a model folder in one step; an existing one is replaced only when the new one is whole.

    Args:
        folder: where.
        study: what was trained.
        weights: of the network, or the state of a model of features.
        provenance: where they come from.
        reference: what features were harmonized to, in a study that did.
        threshold: of a classification, chosen on validation.
        reliability: of a classification, what came of its patients.
        segmentation: folder of the model whose lesions the features are of; a copy goes into this one.
    """
    content, settings = to_safetensors(weights), study.classification
    normalisation: Literal["brain-zscore", "0-255", "none"] = "brain-zscore"
    if settings is not None:
        normalisation = "0-255" if isinstance(settings.model, DeepModel) else "none"
    card = ModelCard(
        study=study,
        normalisation=normalisation,
        labels=dict(enumerate(settings.outcome.classes)) if settings else LESION_LABELS,
        threshold=LESION_THRESHOLD if threshold is None else threshold,
        weights_sha256=hashlib.sha256(content).hexdigest(),
        harmonization=reference.version if reference else None,
        reliability=reliability,
        segmentation=read_card(segmentation).weights_sha256 if segmentation else None,
        versions={"msfl": __version__, **{name: version(name) for name in ("torch", "monai", "flwr")}},
        provenance=provenance,
    )
    with whole_folder(folder) as temporary:
        write_bytes(temporary / WEIGHTS_FILE, content)
        write_text(temporary / CARD_FILE, card.model_dump_json(indent=2) + "\n")
        if reference is not None:
            write_text(temporary / REFERENCE_FILE, reference.model_dump_json(indent=1) + "\n")
        if segmentation is not None:
            shutil.copytree(segmentation, temporary / SEGMENTATION_FOLDER)
    return card


def read_reference(path: Path) -> Reference:
    """The reference of a harmonization, from its file.

    Raises:
        ModelFolderError: it is missing, damaged or of another format.
    """
    try:
        return Reference.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{path}: no such file; expected the reference of a study's harmonization") from None
    except (ValidationError, UnicodeDecodeError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not text"
        raise ModelFolderError(f"{path}: not a reference of this version: {detail}; copy it again") from None


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder; whether the weights beside it are those that it names, `load_model` looks.

    Raises:
        ModelFolderError: a file is missing, or the card is of another format.
    """
    for name in (CARD_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder}: {name} is missing; a model folder holds {CARD_FILE} and {WEIGHTS_FILE}")
    try:
        return ModelCard.model_validate_json((folder / CARD_FILE).read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not text"
        raise ModelFolderError(f"{folder / CARD_FILE}: not a model card of this version: {detail}") from None


def load_model(folder: Path) -> tuple[ModelCard, Weights]:
    """Read a model folder.

    Raises:
        ModelFolderError: a file is missing, altered, or of another format.
    """
    card = read_card(folder)
    if card.harmonization is not None and read_reference(folder / REFERENCE_FILE).version != card.harmonization:
        raise ModelFolderError(
            f"{folder / REFERENCE_FILE}: is not the one that {CARD_FILE} names; copy the folder again"
        )
    lesions = folder / SEGMENTATION_FOLDER
    if card.segmentation is not None and read_card(lesions).weights_sha256 != card.segmentation:
        raise ModelFolderError(f"{lesions}: is not the model that {CARD_FILE} names; copy the folder again")
    from msfl_common.network import starting_weights  # heavy, and not needed to write a folder

    content = (folder / WEIGHTS_FILE).read_bytes()
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise ModelFolderError(
            f"{folder / WEIGHTS_FILE}: altered or damaged, its SHA-256 is not the one in {CARD_FILE}; "
            "copy the folder again"
        )
    try:
        weights: Weights = load(content)
        expected = starting_weights(card.study)
        weights = {name: weights[name] for name in expected if name in weights} | weights
        check_weights(weights, expected)
        if card.study.classification is not None and not isinstance(card.study.classification.model, DeepModel):
            check_state(card.study.classification, weights)
    except (SafetensorError, UpdateError) as error:
        raise ModelFolderError(
            f"{folder / WEIGHTS_FILE}: does not fit the architecture in {CARD_FILE}: {error}"
        ) from None
    return card, weights
