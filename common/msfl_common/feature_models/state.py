"""The state of a run of a feature model: what it holds at first, and what sites must answer to it.

Legend: see the package.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import (
    BoostedTrees,
    Classification,
    ClosedFormModel,
    Forest,
    KernelModel,
    LinearModel,
    MlpModel,
    Preparation,
)
from msfl_common.feature_models.kernels import first_landmarks
from msfl_common.feature_models.mlp import first_layers
from msfl_common.feature_models.trees import num_columns

State = dict[str, NDArray[np.float64]]

MAX_STEPS = 15  # Newton steps, those that were halved counted too, before a fit ends as it stands; no site answers more
SHARED_LINK = (4.0, -2.0)  # of least squares: the logistic curve that is 1/2, and as steep as the line, at 1/2


class Phase(IntEnum):
    """What the sites are asked for."""

    PREPARE = 0
    FIT = 1
    LINK = 2
    DONE = 3


def phase_of(state: State) -> Phase:
    """The phase that a state is in."""
    return Phase(int(state["phase"]))


def is_finished(settings: Classification, state: State) -> bool:
    """Whether no further round would change the state; never for averaging and boosting."""
    del settings  # the state tells; callers need not know that
    return phase_of(state) is Phase.DONE


def num_rounds_needed(settings: Classification) -> int | None:
    """Rounds after which a model is certainly finished; None where more rounds always add something.

    Newton's method needs 6 to 12 steps, for a support vector machine twice.
    """
    match settings.model:
        case ClosedFormModel():
            return 1
        case Forest():
            return 2
        case LinearModel(kind="logistic"):
            return 1 + MAX_STEPS
        case LinearModel() | KernelModel():
            return 1 + 2 * MAX_STEPS
        case _:
            return None


def first_state(settings: Classification, seed: int) -> State:
    """The state that a run starts from: nothing known of any case. Every later one has the same names and shapes.

    Args:
        settings: what is predicted, from what and by which model.
        seed: what the first layers of a perceptron and the landmarks of a kernel are drawn from.
    """
    num_classes, num_inputs = len(settings.outcome.classes), len(settings.inputs)
    num_prepared = num_prepared_inputs(settings.preparation, num_inputs)
    state = {
        "phase": scalar(Phase.PREPARE),
        "counts": np.zeros(num_classes),  # training cases of each class
        "mean": np.zeros(num_inputs),  # of each input, after subject scaling
        "projection": np.zeros((num_inputs, num_prepared)),  # scaling, selection and components in one
        "spread": np.ones(num_prepared),  # standard deviation of each prepared input; 1 for a constant
    }
    model = settings.model
    match model:
        case LinearModel():
            return state | first_linear(num_scores(settings), num_prepared + 1, model.kind == "linear-svm")
        case KernelModel():
            state["landmarks"] = first_landmarks(model, num_prepared, seed)
            state["kernel_map"] = np.zeros((model.num_features, model.num_features))
            return state | first_linear(num_scores(settings), model.num_features + 1, True)
        case ClosedFormModel(kind="naive-bayes"):
            shape = num_classes, num_prepared
            return state | {"class_means": np.zeros(shape), "class_variances": np.ones(shape)}
        case ClosedFormModel():
            linear = {"coefficients": np.zeros((num_scores(settings), num_prepared + 1))}
            return state | linear | ({"link": links(num_scores(settings))} if model.kind == "least-squares" else {})
        case MlpModel():
            return state | first_layers(model, num_prepared, num_classes, seed)
        case BoostedTrees() | Forest():
            return state | {"trees": np.zeros((0, num_columns(num_tree_scores(settings))))}
    raise AssertionError(f"{model.kind} learns from images, not from features")


def contribution_like(settings: Classification, state: State) -> State:
    """Names and shapes of what a site must answer to a state; a first axis of 0 may have any length there."""
    model = settings.model
    match phase_of(state):
        case Phase.PREPARE:
            return _sums_like(settings)
        case Phase.LINK:
            return _newton_like(state["link"].shape, False)
        case Phase.FIT if isinstance(model, LinearModel | KernelModel):
            return _newton_like(state["coefficients"].shape, model.kind == "logistic")
        case Phase.FIT if isinstance(model, MlpModel):
            return {name: value for name, value in state.items() if name.startswith("layer")}
        case Phase.FIT:
            return {"trees": np.zeros((0, state["trees"].shape[1]))}
    raise AssertionError("a finished model asks for nothing")


def num_prepared_inputs(preparation: Preparation, num_inputs: int) -> int:
    """Q: inputs that the model sees after selection and reduction."""
    num = num_inputs if preparation.selection == "none" else min(preparation.num_selected, num_inputs)
    return num if preparation.reduction == "none" else min(preparation.num_components, num)


def num_scores(settings: Classification) -> int:
    """V: rows of coefficients; two classes need one, but for LDA, which has one for each class."""
    num_classes = len(settings.outcome.classes)
    return 1 if num_classes == 2 and settings.model.kind != "lda" else num_classes


def num_tree_scores(settings: Classification) -> int:
    """Figures in a leaf: log odds (boosting; one for two classes), or the probability of each class (forest)."""
    return len(settings.outcome.classes) if isinstance(settings.model, Forest) else num_scores(settings)


def num_scatters(settings: Classification) -> int:
    """Matrices of scatter that the first sums need: none, one for all classes together, or one for each."""
    preparation, kind = settings.preparation, settings.model.kind
    if kind == "naive-bayes" and preparation.reduction == "pca":
        return len(settings.outcome.classes)
    needed = preparation.reduction == "pca" or preparation.selection == "rfe" or kind in ("lda", "least-squares")
    return int(needed)


def first_linear(num_rows: int, num_columns: int, with_link: bool) -> State:
    """Coefficients, and a support vector machine's link, at the start of the search for them."""
    state = _searched("coefficients", np.zeros((num_rows, num_columns)))
    return state | _searched("link", np.tile([1.0, 0.0], (num_rows, 1))) if with_link else state


def _searched(name: str, start: NDArray[np.float64]) -> State:
    """What a Newton search is after, and keeps between rounds: where it stood, and how far it went from there."""
    return {
        name: start,
        f"{name}_accepted": np.zeros_like(start),
        f"{name}_direction": np.zeros_like(start),
        f"{name}_search": np.zeros(5),  # see `Search` at the coordinator
    }


def links(num_rows: int) -> NDArray[np.float64]:
    """The fixed step from least squares' scores to probabilities."""
    return np.tile(SHARED_LINK, (num_rows, 1))


def scalar(value: float) -> NDArray[np.float64]:
    """A number as an array without axes."""
    return np.array(value, dtype=np.float64)


def _sums_like(settings: Classification) -> State:
    num_classes, num_inputs = len(settings.outcome.classes), len(settings.inputs)
    like = {"counts": np.zeros(num_classes)}
    like |= {name: np.zeros((num_classes, num_inputs)) for name in ("sums", "squares")}
    if matrices := num_scatters(settings):
        like["scatter"] = np.zeros((matrices, num_inputs, num_inputs))
    return like


def _newton_like(shape: tuple[int, ...], is_joint: bool) -> State:
    """Sums at the shared coefficients; the classes of a multinomial model curve together, others each by itself."""
    num_rows, num_columns = shape
    blocks, size = (1, num_rows * num_columns) if is_joint else (num_rows, num_columns)
    return {"loss": scalar(0.0), "gradient": np.zeros(shape), "curvature": np.zeros((blocks, size, size))}
