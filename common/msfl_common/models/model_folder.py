"""A trained model on disk: `model.safetensors` and `model.json`, never a pickle.

Where the study harmonized its features, `harmonization.json` is the reference that they were brought to. Where it
trained a model of lesions for them first, the folder `segmentation` is that model's own. `signature.json` lists all of
them; see `model_signature`.
"""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load

from msfl_common import __version__
from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError, ModelFolderError, UpdateError
from msfl_common.feature_models import check_state
from msfl_common.harmonization import Reference
from msfl_common.metrics.prediction_error import PredictionError
from msfl_common.metrics.reliability import Reliability
from msfl_common.models.model_card import (
    LESION_THRESHOLD,
    Choice,
    ModelCard,
    Provenance,
    Tested,
    labels_of,
    normalisation_of,
    scales_rows,
)
from msfl_common.models.model_signature import (
    CARD_FILE,
    FILES,
    REFERENCE_FILE,
    SEGMENTATION_FOLDER,
    WEIGHTS_FILE,
    ModelSigner,
    check_origin,
    write_signature,
)
from msfl_common.models.started_from import StartedFrom
from msfl_common.models.weights import Weights, check_header, check_weights, most_bytes, to_safetensors
from msfl_common.privacy_accounting import PrivacyPromise
from msfl_common.system.files import whole_folder, write_bytes, write_text
from msfl_common.system.reading import read_bounded, read_record

__all__ = [
    "CARD_FILE",
    "LESION_THRESHOLD",
    "REFERENCE_FILE",
    "SEGMENTATION_FOLDER",
    "WEIGHTS_FILE",
    "ModelCard",
    "Provenance",
    "load_model",
    "read_card",
    "read_reference",
    "save_model",
]


def save_model(
    folder: Path,
    study: StudyConfig,
    weights: Weights,
    provenance: Provenance,
    reference: Reference | None = None,
    threshold: float | None = None,
    reliability: Reliability | None = None,
    error: PredictionError | None = None,
    segmentation: Path | None = None,
    signer: ModelSigner | None = None,
    privacy: PrivacyPromise | None = None,
    own_of: str | None = None,
    choice: Choice | None = None,
    tested: Tested | None = None,
    started_from: StartedFrom | None = None,
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
        error: of a regression, how far off predictions were for patients that the model was not trained on.
        segmentation: folder of the model whose lesions the features are of; a copy goes into this one.
        signer: of a study with an authority, its server.
        privacy: of a study with differential privacy, what that promises.
        own_of: the site whose own model it is.
        choice: of a study that hands out the model of its best round, how that was chosen.
        tested: of a segmentation, what test patients said of it.
        started_from: what its study's first weights are of, where those are not random.
    """
    content = to_safetensors(weights)
    card = ModelCard(
        study=study,
        normalisation=normalisation_of(study),
        labels=labels_of(study),
        threshold=LESION_THRESHOLD if threshold is None else threshold,
        weights_sha256=hashlib.sha256(content).hexdigest(),
        harmonization=reference.version if reference else None,
        reliability=reliability,
        prediction_error=error,
        row_scaling="features" if scales_rows(study) else None,
        segmentation=read_card(segmentation).weights_sha256 if segmentation else None,
        versions={"msfl": __version__, **{name: version(name) for name in ("torch", "monai", "flwr")}},
        provenance=provenance,
        privacy=privacy,
        own_of=own_of,
        choice=choice,
        tested=tested,
        started_from=started_from,
    )
    with whole_folder(folder) as temporary:
        write_bytes(temporary / WEIGHTS_FILE, content)
        write_text(temporary / CARD_FILE, card.model_dump_json(indent=2) + "\n")
        if reference is not None:
            write_text(temporary / REFERENCE_FILE, reference.model_dump_json(indent=1) + "\n")
        if segmentation is not None:
            for name in FILES:
                if name.startswith(f"{SEGMENTATION_FOLDER}/") and (source := segmentation / Path(name).name).is_file():
                    (temporary / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(source, temporary / name)
        write_signature(temporary, signer)
    return card


def read_reference(path: Path) -> Reference:
    """The reference of a harmonization, from its file.

    Raises:
        ModelFolderError: it is missing, damaged or of another format.
    """
    try:
        return read_record(Reference, path)
    except ConfigError as error:
        if not path.exists():
            raise ModelFolderError(f"{path}: no such file; expected the reference of a study's harmonization") from None
        raise ModelFolderError(f"{path}: not a reference of this version: {error.faults[0]}; copy it again") from None


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder; whether the weights beside it are those that it names, `load_model` looks.

    Raises:
        ModelFolderError: a file is missing, or the card is of another format.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise ModelFolderError(f"{folder}: {what}; name a model folder, such as RUN_DIR/model of a run")
    for name in (CARD_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            inside = folder / "model"
            fix = f"a model folder holds {CARD_FILE} and {WEIGHTS_FILE}"
            fix = f"name {inside}" if (inside / CARD_FILE).is_file() else fix
            raise ModelFolderError(f"{folder}: {name} is missing; {fix}")
    try:
        return read_record(ModelCard, folder / CARD_FILE)
    except ConfigError as error:
        fault = error.faults[0]
        what = "" if fault.startswith("cannot be read:") else "not a model card of this version: "
        raise ModelFolderError(f"{folder / CARD_FILE}: {what}{fault}") from None


def load_model(folder: Path) -> tuple[ModelCard, Weights]:
    """Read a model folder. Nothing is made as large as a card or a header says before the file itself is that large.

    Raises:
        ModelFolderError: a file is missing, altered, or of another format, or layers stay at the sites.
    """
    card = read_card(folder)
    check_origin(folder)
    if card.study.strategy is not None and card.study.strategy.is_personal:
        raise ModelFolderError(
            f"{folder}: layers of this model stay at its sites ({card.study.strategy.kind}) and are not in the folder, "
            "so nobody can use it; a site uses its own, made there by `msfl-client gain`, or train by a strategy that "
            "shares all of them, such as fedavg"
        )
    if card.harmonization is not None and read_reference(folder / REFERENCE_FILE).version != card.harmonization:
        raise ModelFolderError(
            f"{folder / REFERENCE_FILE}: is not the one that {CARD_FILE} names; copy the folder again"
        )
    lesions = folder / SEGMENTATION_FOLDER
    if card.segmentation is not None and read_card(lesions).weights_sha256 != card.segmentation:
        raise ModelFolderError(f"{lesions}: is not the model that {CARD_FILE} names; copy the folder again")
    from msfl_common.models.expected_weights import weights_like  # heavy, and not needed to write a folder

    file = folder / WEIGHTS_FILE
    try:
        expected = weights_like(card.study)
        content = read_bounded(file, most_bytes(expected))
        if hashlib.sha256(content).hexdigest() != card.weights_sha256:
            raise ModelFolderError(
                f"{file}: altered or damaged, its SHA-256 is not the one in {CARD_FILE}; copy the folder again"
            )
        check_header(content, expected)
        weights: Weights = load(content)
        weights = {name: weights[name] for name in expected}
        check_weights(weights, expected)
        if card.study.classification is not None and not isinstance(card.study.classification.model, DeepModel):
            check_state(card.study.classification, weights)
    except (SafetensorError, UpdateError, ConfigError) as error:
        raise ModelFolderError(f"{file}: does not fit the architecture in {CARD_FILE}: {error}") from None
    return card, weights
