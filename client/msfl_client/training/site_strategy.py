"""A site's side of a study's strategy: what it is sent beside the weights, what it answers, and what it keeps.

What a site keeps lies in `strategy/STUDY/TASK-SETTINGS/` in its state folder, a file for each of the last two rounds
that it trained, and never leaves. A round starts from what the rounds before it have left, so the last one, trained
again after a kill or because it is asked for once more, starts where it did the first time. Earlier ones are refused:
what they started from is gone, and from anything else a second answer to the same request would tell what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from msfl_client.training.bounded_update import bounded_update
from msfl_client.training.kept_arrays import read_arrays
from msfl_client.training.rates import rate_at
from msfl_client.training.steps import Influence, influence_of, trained_parameters
from msfl_common.config.optimisation import settings_sha256
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError, UpdateError
from msfl_common.models.network import get_weights, set_weights
from msfl_common.models.weights import Weights, to_safetensors
from msfl_common.strategies.base import Arrays, Local, SetLike, Strategy, Trained
from msfl_common.strategies.declared import LAYERS, PERSONAL, expect_finished, expect_sets, parted_layers
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.strategies.sets import expect_moderate, flat_name, flattened, likes, parted, shape_only, zeros
from msfl_common.system.files import private_folder, write_bytes

FOLDER = "strategy"
_FINAL = "final.safetensors"
_RAN = "rounds"  # in its header: how many ran
_SENT = "sent:"  # before the names of sets that came, in a file that holds those that are kept, too
_CAME = "came:"  # the set of the shared weights as they came, there where a start's own are others

Train = Callable[["Start"], float]  # trains the network, which has the start's weights, in place; the mean loss


@dataclass(frozen=True)
class Start:
    """What a round starts from.

    Attributes:
        number: of the round.
        weights: of the whole network.
        shared: those of them that came.
        sent: the sets that came along.
        kept: the site's own sets.
        personal: what the model that stays at the site starts from, of kinds that train one beside the shared.
        is_personal: whether this is such a start.
        gathered: what a strategy adds up over the steps; filled while the round is trained.
    """

    number: int
    weights: Weights
    shared: Weights
    sent: dict[str, Arrays]
    kept: dict[str, Arrays]
    personal: Start | None = None
    is_personal: bool = False
    gathered: dict[str, torch.Tensor] = field(default_factory=dict)

    def influence(self, strategy: Strategy, network: torch.nn.Module, device: torch.device) -> Influence | None:
        """What the strategy changes in the steps of a network that has these weights."""
        return influence_of(strategy, lambda: self._local(strategy, network, device))

    def save(self, path: Path) -> None:
        """Write the sets down for `read_start`."""
        came = {_CAME: self.shared} if self.is_personal else {}
        sets = {**{f"{_SENT}{of}": one for of, one in self.sent.items()}, **self.kept, **came}
        path.write_bytes(to_safetensors(flattened({}, sets)))

    def _local(self, strategy: Strategy, network: torch.nn.Module, device: torch.device) -> Local:
        def on_device(arrays: Arrays) -> dict[str, torch.Tensor]:
            return {name: torch.tensor(value, device=device) for name, value in arrays.items()}

        parameters = trained_parameters(network)
        if strategy.gathers:
            self.gathered.update({name: torch.zeros_like(value) for name, value in parameters.items()})
        return Local(
            parameters=parameters,
            before=on_device({name: value for name, value in self.shared.items() if name in parameters}),
            sent={of: on_device(arrays) for of, arrays in self.sent.items()},
            kept={of: on_device(arrays) for of, arrays in self.kept.items()},
            gathered=self.gathered,
            is_personal=self.is_personal,
        )


@dataclass(frozen=True)
class SiteStrategy:
    """A strategy at a site. Made by `site_strategy`.

    Attributes:
        study: of the stage.
        strategy: the study's.
        folder: where the site keeps what it keeps.
        shared: what the shared weights look like.
        stays: the layers that stay, as they are before the site's first round.
    """

    study: StudyConfig
    strategy: Strategy
    folder: Path
    shared: Weights
    stays: Weights

    @property
    def request_like(self) -> Weights:
        """What a request to train brings."""
        return flattened(self.shared, likes(self._sent))

    @property
    def answer_like(self) -> Weights:
        """What is answered to it."""
        return flattened(self.shared, likes(self.strategy.answered_sets(self.shared)))

    def train(self, network: torch.nn.Module, asked: Weights, number: int, train: Train) -> tuple[Weights, float]:
        """A round: the answer, as `answer_like`, and the mean loss of what is shared.

        Args:
            network: trained in place.
            asked: as `request_like`.
            number: from 1.
            train: trains the network from a start.

        Raises:
            UpdateError: a set that no honest round comes to.
            RefusedError: the training failed, or what the site has kept cannot be read.
        """
        start = self.begin(asked, number)
        set_weights(network, start.weights)
        loss = train(start)
        after, own = get_weights(network), None
        if start.personal is not None:
            set_weights(network, start.personal.weights)
            train(start.personal)
            own = get_weights(network)
        return self.end(start, after, own), loss

    def begin(self, asked: Weights, number: int) -> Start:
        """What round `number` starts from.

        Args:
            asked: as `request_like`.
            number: from 1.

        Raises:
            UpdateError: a set that no honest round comes to.
            RefusedError: what the site has kept cannot be read, or is of later rounds.
        """
        shared, sent = parted(asked, self.shared, self._sent)
        expect_moderate(sent, self._sent)
        if self._keeps and 1 < number < max(self._rounds(), default=0):  # the first starts from nothing, and anew
            raise _gone(number)
        kept = self._read(number - 1)
        whole, sets, personal = self._whole(shared, kept), {of: kept[of] for of in self._kept}, None
        if self.strategy.trains_personal:
            personal = Start(number, kept.get(PERSONAL, whole), shared, sent, sets, is_personal=True)
        return Start(number, whole, shared, sent, sets, personal)

    def whole(self, shared: Weights, number: int) -> Weights:
        """All weights of the network, to be measured after round `number`.

        Raises:
            RefusedError: what the site has kept cannot be read, or is of later rounds.
        """
        if self.stays and min(self._rounds(), default=number) > number:
            raise _gone(number)
        return self._whole(shared, self._read(number) if self.stays else {})

    def lacks(self, number: int) -> bool:
        """Whether layers or a model of the site's own are missing of rounds up to `number`, though its kind has any."""
        is_own = bool(self.stays) or self.strategy.trains_personal
        return is_own and min(self._rounds(), default=number + 1) > number

    def personal(self, number: int) -> Weights | None:
        """All weights of the model that the site trains for itself, after round `number`; None of other kinds.

        Raises:
            RefusedError: what the site has kept cannot be read.
        """
        return self._read(number).get(PERSONAL) if self.strategy.trains_personal else None

    def keep_final(self, shared: Weights, number: int) -> None:
        """Write down for the site the shared weights that are handed out; `number` is of the last round that ran.

        A full disk costs no answer.
        """
        with suppress(OSError):
            private_folder(self.folder, within=self.folder.parents[2])  # the state folder
            write_bytes(self.folder / _FINAL, to_safetensors(shared, {_RAN: str(number)}), secret=True)

    def final(self) -> tuple[Weights, int] | None:
        """What `keep_final` wrote down, and after how many rounds; None where there is nothing.

        Raises:
            RefusedError: it cannot be read.
        """
        path = self.folder / _FINAL
        if not path.exists():
            return None
        weights = read_arrays(path, self.shared, "name the model folder that was handed out by --model")
        with safe_open(path, framework="np") as stored:
            ran = (stored.metadata() or {}).get(_RAN, "")
        return weights, int(ran) if ran.isdecimal() else self.study.rounds.num_rounds

    def end(self, start: Start, after: Weights, own: Weights | None = None) -> Weights:
        """The answer to a round, as `answer_like`; what the site keeps is on its disk when this returns.

        Args:
            start: what the round started from.
            after: all weights of the network after it.
            own: those of the model that the site trains for itself.

        Raises:
            ConfigError: the strategy made what it did not declare.
            RefusedError: what there is to answer or keep is nothing to go on from.
            OSError: it cannot be kept, so nothing may leave.
        """
        most = self.study.secure_aggregation.max_update_norm
        shared = bounded_update(start.shared, {name: after[name] for name in self.shared}, most)
        stays = {LAYERS: {name: after[name] for name in self.stays}, **({} if own is None else {PERSONAL: own})}
        private = flattened({}, stays)
        if wrong := [name for name, value in private.items() if not np.isfinite(value).all()]:
            raise RefusedError(Code.TRAINING_DIVERGED, f"{wrong[0]}: a value is not finite")
        if not any(self.strategy.overrides(one) for one in ("finish", "answered_sets", "kept_sets")):
            self._write(start.number, stays)
            return shared
        steps = range(1, self.study.training.steps_per_round + 1)
        rates = tuple(rate_at(self.study, start.number, step) for step in steps)
        gathered = {name: value.cpu().numpy() for name, value in start.gathered.items()}
        finished = self.strategy.finish(Trained(start.shared, shared, start.sent, start.kept, rates, gathered))
        expect_finished(self.strategy, finished)
        expect_sets(self.strategy, "finish, answered", finished.answered, self.strategy.answered_sets(self.shared))
        expect_sets(self.strategy, "finish, kept", finished.kept, self._kept)
        try:
            expect_moderate(finished.answered, self.strategy.answered_sets(self.shared))
            expect_moderate(finished.kept, self._kept)
        except UpdateError as error:
            raise RefusedError(Code.TRAINING_DIVERGED, str(error)) from None
        self._write(start.number, {**finished.kept, **stays})
        return flattened(shared, finished.answered)

    @property
    def _sent(self) -> Mapping[str, SetLike]:
        declared = self.strategy.server_sets(self.shared)
        return {name: declared[name] for name in self.strategy.sends}

    @property
    def _keeps(self) -> bool:
        return bool(self._kept or self.stays or self.strategy.trains_personal)

    @property
    def _kept(self) -> Mapping[str, SetLike]:
        return self.strategy.kept_sets(self.shared)

    def _whole(self, shared: Weights, kept: Mapping[str, Arrays]) -> Weights:
        return {**shared, **kept.get(LAYERS, self.stays)}

    def _read(self, last: int) -> dict[str, Arrays]:
        """What the site keeps after its last round up to `last`."""
        declared = {**self._kept, **({LAYERS: SetLike(self.stays)} if self.stays else {})}
        if self.strategy.trains_personal:
            declared[PERSONAL] = SetLike({**self.shared, **self.stays})
        rounds = [number for number in self._rounds() if number <= last] if self._keeps else []
        if not rounds:
            return {**zeros(self._kept), **({LAYERS: self.stays} if self.stays else {})}
        fix = "restore it from a backup, or let the study begin anew with `msfl-client reset-answers`"
        stored = read_arrays(self._file(rounds[-1]), flattened({}, likes(declared)), fix)
        return parted(stored, {}, declared)[1]

    def _write(self, number: int, kept: Mapping[str, Arrays]) -> None:
        """Write down what is kept after a round, and forget all but what that started from."""
        sets = {of: arrays for of, arrays in kept.items() if arrays}
        if not sets:
            return
        private_folder(self.folder, within=self.folder.parents[2])  # the state folder
        before = [one for one in self._rounds() if one < number]
        write_bytes(self._file(number), to_safetensors(flattened({}, sets)), secret=True)
        for other in self._rounds():
            if other not in (number, *before[-1:]):
                self._file(other).unlink()

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.safetensors") if path.stem.isdecimal())

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"


def _gone(number: int) -> RefusedError:
    """What a round started from is kept no longer: another answer to it would tell of what is kept."""
    return RefusedError(
        Code.ANSWERED,
        f"round {number}: this site has trained later ones, and keeps no more what this one started from; go on after "
        "the last round, or let the study begin anew with `msfl-client reset-answers`",
    )


def read_start(path: Path, study: StudyConfig, number: int, weights: Weights) -> Start | None:
    """What another process wrote down by `Start.save`, if it did; `weights` are those of the whole network."""
    if not path.exists():
        return None
    strategy, stored = study.strategy or FedAvg(), load_file(path)
    names = strategy.staying(weights)
    shared = {name: value for name, value in weights.items() if name not in names}
    came = {name: stored[flat_name(_CAME, name)] for name in shared if flat_name(_CAME, name) in stored}
    server, kept = strategy.server_sets(shared), strategy.kept_sets(shared)
    sent = parted(stored, {}, {f"{_SENT}{name}": server[name] for name in strategy.sends})[1]
    return Start(
        number,
        weights,
        came or shared,
        {name: sent[f"{_SENT}{name}"] for name in strategy.sends},
        parted(stored, {}, kept)[1],
        is_personal=bool(came),
    )


def site_strategy(state: Path, study: StudyConfig, first: Weights, part_of: str | None = None) -> SiteStrategy:
    """The strategy of a study, or of a stage of it, at a site.

    Args:
        state: the site's state folder.
        study: of the stage.
        first: all weights of its network before any round.
        part_of: name of the whole study, where it is another: a stage's own can be that of another study, too.
    """
    strategy = study.strategy or FedAvg()
    shared, stays = parted_layers(strategy, first)
    return SiteStrategy(
        study=study,
        strategy=strategy,
        folder=state / FOLDER / (part_of or study.name) / f"{study.task}-{settings_sha256(study)[:16]}",
        shared={name: shape_only(value) for name, value in shared.items()},
        stays={name: np.array(value) for name, value in stays.items()},
    )
