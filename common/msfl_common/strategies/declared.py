"""What a strategy declares and makes, held to what can be sent, stored and resumed: mistakes of its author, by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msfl_common.errors import ConfigError
from msfl_common.strategies.base import WEIGHTS, Arrays, Finished, SetLike, Sets, Strategy

LAYERS = "layers"  # the set of the layers that stay at a site; no other may have the name
PERSONAL = "personal"  # that of a whole model which a site trains for itself
_TAKEN = (WEIGHTS, LAYERS, PERSONAL)


def parted_layers(strategy: Strategy, weights: Arrays) -> tuple[Arrays, Arrays]:
    """A network's weights that sites share, and the layers that stay at each site.

    Raises:
        ConfigError: none are shared, a kind whose layers stay has none in this network, or its sets cannot be.
    """
    names = strategy.staying(weights)
    stays = {name: value for name, value in weights.items() if name in names}
    shared = {name: value for name, value in weights.items() if name not in stays}
    if not shared:
        raise _wrong(
            strategy, "stays: all layers of this network would stay at the sites; expected some that are shared"
        )
    if strategy.is_personal and not stays:
        raise _wrong(
            strategy,
            f"stays: no layer of this network would stay at the sites; they have names as {next(iter(shared))}; "
            "expected a strategy for it, or another network",
        )
    _check_sets(strategy, shared)
    return shared, stays


def check_fits(strategy: Strategy, num_steps: int, is_private: bool) -> None:
    """Refuse a study that a strategy is not for.

    Args:
        strategy: the study's.
        num_steps: of a round.
        is_private: whether the study has differential privacy.

    Raises:
        ValueError: says which setting, and what there is instead.
    """
    if num_steps < strategy.fewest_steps:
        raise ValueError(
            f"training.steps_per_round: {strategy.kind} needs {strategy.fewest_steps} steps or more in a round, one "
            f"for each of its parts; found {num_steps}"
        )
    if strategy.trains_personal and is_private:
        raise ValueError(
            f"strategy: {strategy.kind} trains a site's own model without noise, and differential_privacy promises it "
            "in every step; expected another, such as fedbn, or no differential_privacy"
        )


def expect_like(strategy: Strategy, method: str, of: str, found: object, like: Arrays) -> None:
    """Refuse arrays that are not as declared.

    Args:
        strategy: whose they are.
        method: that made them.
        of: the set, or `weights`.
        found: what it made.
        like: names, shapes and types; the order of names does not matter.

    Raises:
        ConfigError: other names, shapes or types; says which.
    """
    if not isinstance(found, Mapping):
        raise _wrong(strategy, f"{method}: {of}: expected arrays by name, found {type(found).__name__}")
    for name in (*like, *(name for name in found if name not in like)):
        expected, made = _looks(like.get(name)), _looks(found.get(name))
        if expected != made:
            raise _wrong(strategy, f"{method}: {of}/{name}: expected {expected}, found {made}")


def expect_sets(strategy: Strategy, method: str, found: Sets, declared: Mapping[str, SetLike]) -> None:
    """Refuse sets that are not as declared, by `expect_like`.

    Raises:
        ConfigError: other sets, names, shapes or types.
    """
    if not isinstance(found, Mapping):
        raise _wrong(strategy, f"{method}: expected arrays by the name of their set, found {type(found).__name__}")
    if set(found) != set(declared):
        raise _wrong(strategy, f"{method}: expected the sets {sorted(declared)}, as declared, found {sorted(found)}")
    for of, one in declared.items():
        expect_like(strategy, method, of, found[of], one.like)


def expect_finished(strategy: Strategy, found: object) -> None:
    """Refuse what is no `Finished`.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(found, Finished):
        raise _wrong(strategy, f"finish: expected a Finished, found {type(found).__name__}")


def _check_sets(strategy: Strategy, shared: Arrays) -> None:
    declared = {
        "server_sets": strategy.server_sets(shared),
        "answered_sets": strategy.answered_sets(shared),
        "kept_sets": strategy.kept_sets(shared),
    }
    for method, sets in declared.items():
        for of, one in sets.items():
            if of in _TAKEN or not of.replace("_", "").isalnum():
                raise _wrong(
                    strategy,
                    f"{method}: {of!r}: expected a name of letters, digits and underscores, other than "
                    + ", ".join(_TAKEN),
                )
            if other := sorted(name for name, value in one.like.items() if value.dtype != np.float32):
                raise _wrong(strategy, f"{method}: {of}/{other[0]}: expected float32, found {one.like[other[0]].dtype}")
    if unknown := sorted(set(strategy.sends) - set(declared["server_sets"])):
        raise _wrong(strategy, f"sends: {unknown[0]}: expected one of server_sets, {sorted(declared['server_sets'])}")


def _looks(value: object) -> str:
    if value is None:
        return "none"
    return f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _wrong(strategy: Strategy, fault: str) -> ConfigError:
    return ConfigError(f"strategy {strategy.kind}", [fault])
