"""Trained models, put to use."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msfl.extras import needs
from msfl_common.config.base import Task
from msfl_common.models.model_card import ModelCard
from msfl_common.models.model_folder import read_card
from msfl_common.models.model_signature import check_origin, fingerprint_of
from msfl_common.system.progress import silence


@dataclass(frozen=True)
class Model:
    """A trained model on disk. Research use only; not a medical device.

    Attributes:
        folder: with its weights and its card.
        card: what it is: its study, inputs, classes and threshold.
        origin: who vouches for it, in a sentence.
    """

    folder: Path
    card: ModelCard
    origin: str

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return self.card.study.task

    def predict(
        self,
        bids: str | Path,
        output: str | Path,
        *,
        device: str = "auto",
        every_visit: bool = False,
        workers: int | None = None,
        force: bool = False,
    ) -> pd.DataFrame:
        """Outline the lesions, or predict the outcome, of the patients in a BIDS folder.

        Args:
            bids: the folder, as `msfl-client check` describes it.
            output: BIDS derivative folder to write: masks, maps and tables, as `msfl-client predict` writes them.
            device: auto, cpu, mps, cuda or cuda:N.
            every_visit: of an outcome, a row for every visit, not for each patient's last alone.
            workers: cases at the same time; None for one a core.
            force: predict what cannot be right, too: an image whose sform and qform disagree, say.

        Returns:
            A row for each case (`lesions.tsv`), or for each patient or visit (`predictions.tsv`), also of earlier runs
            into `output`; the column `status` says why one could not be used, `warnings` what deserves a look.

        Raises:
            InputError: the folder, or all of its cases, cannot be used; or `every_visit` is asked of lesions.
        """
        from msfl_common.errors import InputError

        at_once = workers or os.cpu_count() or 1
        with needs("client", "predict"), silence():
            if self.card.study.classification is not None:
                return _predict_outcomes(self, Path(bids), Path(output), device, every_visit, at_once, force)
            if every_visit:
                raise InputError("every_visit: lesions are outlined at every visit in any case; leave it out")
            return _outline_lesions(self, Path(bids), Path(output), device, at_once, force)


def load_model(folder: str | Path, authority: str | None = None) -> Model:
    """A model folder, such as `run.folder / "model"`; its files are held against their list and its signature.

    Args:
        folder: the model folder.
        authority: take no model but one signed for this authority: its certificate's file, or its SHA-256.

    Raises:
        ModelFolderError: a file is missing or altered, or no server of that authority signed it.
    """
    path = Path(folder)
    card = read_card(path)
    origin = check_origin(path, fingerprint_of(authority) if authority is not None else None)
    return Model(path, card, origin.sentence)


def _outline_lesions(model: Model, bids: Path, output: Path, device: str, workers: int, force: bool) -> pd.DataFrame:
    from msfl_client.prediction.features import measure_predictions, reference_of_model
    from msfl_client.prediction.lesions import predict_folder
    from msfl_client.prediction.lesions_table import TABLE

    predict_folder(model.folder, bids, output, device, origin=model.origin, force=force)
    if (reference := reference_of_model(model.folder)) is not None:
        measure_predictions(model.folder, reference, bids, output, device, workers, force=force)
    return _read_table(output / TABLE)


def _predict_outcomes(
    model: Model, bids: Path, output: Path, device: str, every_visit: bool, workers: int, force: bool
) -> pd.DataFrame:
    from msfl_client.cli.outcomes_view import write_predictions
    from msfl_client.prediction.outcomes import predict_outcomes

    found = predict_outcomes(model.folder, bids, output, device, every_visit, workers, force=force)
    path = write_predictions(output, found, model.origin)
    found.raise_if_none(bids, path)
    return _read_table(path)


def _read_table(path: Path) -> pd.DataFrame:
    """Ids and classes stay text, whatever they look like."""
    text = {"participant_id": str, "session_id": str, "class": str, "status": str}
    return pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype=text, keep_default_na=False, na_values=["n/a"])
