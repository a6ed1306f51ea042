"""The models that a site compares: the shared one, those that it made of it for itself, and one of this site alone.

What takes long is trained in rounds, as a study's are, and written down after each: run again, it goes on from there.
Nothing of it leaves the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from msfl_client.personal.record import LOCAL, PERSONAL, SHARED, TUNED
from msfl_client.rounds.own_model import alone, train_alone
from msfl_client.rounds.site_context import SiteContext, build_context
from msfl_client.segmentation.trained_patients import remember_model
from msfl_client.site.devices import Clock
from msfl_client.site.folder import OWN_MODELS
from msfl_client.trainer import OnProgress
from msfl_client.training.site_strategy import SiteStrategy, site_strategy
from msfl_common.config.optimisation import optimisation_of
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.harmonization import Reference
from msfl_common.metrics.classification_curves import DEFAULT_THRESHOLD
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies.finetune import FineTune
from msfl_common.system.files import private_folder


@dataclass(frozen=True)
class Own:
    """What a site has of a study, to make and to compare models of.

    Attributes:
        site: whose.
        study: the study, or that of a model's card.
        shared: the whole network as the study left it: shared layers, and the site's own where some stay.
        personal: the model that the site trained beside the shared one; None of other strategies.
        num_rounds: that ran: fewer than the study's where it ended early, or more than the shared model is of, where an
            earlier round's was handed out.
        harmonized_to: version of the reference that its features were brought to; None where they were not.
    """

    site: SiteConfig
    study: StudyConfig
    shared: Weights
    personal: Weights | None
    num_rounds: int
    harmonized_to: str | None = None

    @property
    def folder(self) -> Path:
        """Where its models and figures lie."""
        return self.site.state / OWN_MODELS / self.study.name

    @property
    def of_study(self) -> dict[str, Weights]:
        """The models that the study left: the shared one, where it is whole without this site's layers, and its own."""
        personal = self.shared if self.has_layers_of_its_own else self.personal
        shared = {} if self.has_layers_of_its_own else {SHARED: self.shared}
        return shared if personal is None else {**shared, PERSONAL: personal}

    @property
    def has_layers_of_its_own(self) -> bool:
        """Whether the study's model is none without this site's layers."""
        return self.study.strategy is not None and self.study.strategy.is_personal


def own_of_study(site: SiteConfig, study: StudyConfig) -> Own:
    """What the site has kept of a study that is over.

    Raises:
        InputError: the study is not over here, what the site must have kept is lost, or it cannot be compared.
        RefusedError: what was kept cannot be read.
    """
    expect_one_stage(study)
    if study.evaluate is not None:
        raise InputError(f"study {study.name}: measures a model and trains none; name a study that trains")
    if study.classification is not None and study.harmonization.method != "none":
        raise InputError(
            f"study {study.name}: its features are harmonized; name the model folder that its coordinator handed out "
            "with --model, which says to which reference"
        )
    kept = site_strategy(site.state, study, starting_weights(study), study.name)
    final = kept.final()
    if final is None:
        raise InputError(
            f"study {study.name}: no shared model of its last round is here; run this again when the study is over, or "
            "name the model folder that its coordinator handed out with --model"
        )
    shared, last = final
    _expect_kept(kept, last)
    return Own(site, study, kept.whole(shared, last), kept.personal(last), last)


def own_of_model(site: SiteConfig, folder: Path) -> Own:
    """What the site has where its coordinator handed out a model folder.

    Raises:
        ModelFolderError: it cannot be used.
        InputError: its model cannot be compared, or what the site must have kept is lost.
        RefusedError: what the site has kept cannot be read.
    """
    card, weights = load_model(folder)
    study = card.study
    expect_one_stage(study)
    last = max(card.choice.of_rounds if card.choice is not None else card.provenance.rounds_completed, 1)
    kept = site_strategy(site.state, study, weights, study.name)
    _expect_kept(kept, last)
    return Own(site, study, weights, kept.personal(last), last, card.harmonization)


def tuned(study: StudyConfig) -> tuple[StudyConfig, int]:
    """The rounds in which a site goes on from the last shared model, and how many of them."""
    how = study.strategy if isinstance(study.strategy, FineTune) else FineTune()
    rate = how.rate_share * optimisation_of(study).learning_rate
    frozen = study.training.freeze if study.training.freeze_rounds is None else ()
    changes = {"learning_rate": rate, "freeze": frozen, "freeze_rounds": None}
    training = study.training.model_copy(update=changes)
    rounds = study.rounds.model_copy(update={"num_rounds": how.rounds})
    return alone(study).model_copy(update={"training": training, "rounds": rounds}), how.rounds


def make_arms(own: Own, on_progress: OnProgress, clock: Clock = datetime.now) -> tuple[dict[str, Weights], SiteContext]:
    """The weights of all models to compare, by name, and a context to measure them in.

    Args:
        own: what the site has.
        on_progress: told what is done.
        clock: for the site's hours.

    Raises:
        CohortError: the folders hold nothing usable.
        RefusedError: outside of the site's hours or limits; what is done is not lost. Or the training failed.
    """
    tuning, num_tuning = tuned(own.study)
    start = starting_weights(own.study)
    context = build_context(own.site, alone(own.study), on_progress, "final", None)
    local = train_alone(context, start, own.num_rounds, own.folder, LOCAL, clock)
    context = build_context(own.site, tuning, on_progress, "final", None)
    fine = train_alone(context, own.shared, num_tuning, own.folder, TUNED, clock)
    return {**own.of_study, TUNED: fine, LOCAL: local}, context


def save_own(
    own: Own,
    name: str,
    study: StudyConfig,
    weights: Weights,
    num_cases: int,
    reference: Reference | None = None,
    patients: Sequence[str] | None = None,
) -> Path:
    """Write a model of the site's own, a folder that `predict` takes, and who trained a network of lesions."""
    private_folder(own.folder, within=own.site.state)
    provenance = Provenance(rounds_completed=own.num_rounds, sites={own.site.name: num_cases})
    threshold = None if study.classification is None else DEFAULT_THRESHOLD
    folder = own.folder / name
    card = save_model(folder, study, weights, provenance, reference, threshold, own_of=own.site.name)
    if patients is not None:
        remember_model(own.site.state, card.weights_sha256, patients)
    return folder


def _expect_kept(kept: SiteStrategy, last: int) -> None:
    if kept.lacks(last):
        raise InputError(
            f"{kept.folder}: what this site kept of study {kept.study.name}, which trains by {kept.strategy.kind}, is "
            "not there; restore the state folder from a backup; a site that has not trained in it cannot compare"
        )


def expect_one_stage(study: StudyConfig) -> None:
    """Refuse a study whose outcome's features are measured with lesions of a model that all sites trained.

    Raises:
        InputError: it is one.
    """
    if study.segmentation is not None:
        raise InputError(
            f"study {study.name}: its features are measured with lesions that a model of all sites outlines, so no "
            "model is this site's alone; what taking part brings is measured of studies without `segmentation`"
        )
