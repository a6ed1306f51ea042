"""Layer-wise relevance propagation (Bach et al. 2015, doi 10.1371/journal.pone.0130140) as a gradient times the input.

Rules are of functions, not of modules: residual blocks add, concatenate and weigh in their `forward`, where hooks of
modules see nothing and relevance would be counted twice. Within `propagation()` each function gives the value that it
always gives, and the gradient of the linear function that its rule puts in its place; a sum, of a skip say, has its
own gradient and so shares relevance out by what each part added. Then the gradient times the input is the relevance
(Montavon et al. 2019, doi 10.1007/978-3-030-28954-6_10, and, for skips and normalisation, Ali et al. 2022, arXiv
2202.07304). But for what biases took, all of it together is the score.

Legend: V visits, C contrast, D/H/W voxels, J state, T steps in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from msfl_client.explanation.score import Explained, Relevance
from msfl_common.errors import InputError

GAMMA = 0.25  # how much more contributions of the result's own sign count

_Function = Callable[..., Any]

# Functions that are linear in what they are given, or pick some of it: their own gradient is the rule.
_LINEAR = frozenset(
    """
    add iadd radd sub isub rsub neg sum mean cat stack view reshape flatten permute transpose squeeze unsqueeze getitem
    setitem split chunk expand contiguous clone to float get pad interpolate avg_pool2d avg_pool3d adaptive_avg_pool2d
    adaptive_avg_pool3d max_pool2d max_pool3d batch_norm dropout dropout2d dropout3d alpha_dropout index_select
    index_copy pack_padded_sequence pad_sequence
    """.split()  # noqa: SIM905 - a column of fifty lines otherwise
)


def layerwise_relevance(what: Explained) -> Relevance:
    """The relevance of each voxel, as it differs from the background.

    Raises:
        InputError: the model uses a function that has no rule, which is named.
    """
    images = what.images_VCDHW.clone().requires_grad_()
    score = what.score(images, propagation)
    (gradient,) = torch.autograd.grad(score, images)
    floor = what.images_VCDHW.amin(dim=(2, 3, 4), keepdim=True)
    return Relevance(((what.images_VCDHW - floor) * gradient).cpu().numpy(), float(score.detach()))


class propagation(TorchFunctionMode):  # noqa: N801 - used as a context, like torch.no_grad
    """Within it, networks that do not train have the gradients of layer-wise relevance propagation.

    Raises:
        InputError: a function has no rule.
    """

    def __torch_function__(
        self, func: _Function, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        name = getattr(func, "__name__", str(func)).strip("_")
        if (rule := _RULES.get(name)) is not None and _depends(args):
            return rule(func, *args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if name not in _LINEAR and _depends(args) and _depends(result):
            raise InputError(
                f"layer-wise relevance propagation has no rule for `{name}`, which this model uses; take integrated "
                "gradients"
            )
        return result


def _depends(values: Any) -> bool:
    """Whether any of some values depends on the image."""
    if isinstance(values, torch.Tensor):
        return values.requires_grad
    return isinstance(values, tuple | list) and any(_depends(value) for value in values)


def _with_gradient_of(value: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
    """A value with the gradient of another function."""
    return value.detach() + (linear - linear.detach())


def _share(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The constant part / whole; 0 where the whole is 0, which has no relevance to hand on."""
    quotient = part.detach() / torch.where(whole == 0, torch.ones_like(whole), whole).detach()
    return torch.where(whole == 0, torch.zeros_like(quotient), quotient)


def _weighing(
    func: _Function, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *rest: Any, **more: Any
) -> torch.Tensor:
    """Convolutions and linear layers: the gamma rule, for inputs of either sign (Andeol et al. 2021, arXiv 2105.02047).

    Contributions of the result's own sign count 1 + `GAMMA` times, the others once.
    """
    value: torch.Tensor = func(x, weight, bias, *rest, **more)
    up, down = weight + GAMMA * weight.clamp(min=0), weight + GAMMA * weight.clamp(max=0)

    def with_weights(of_positive: torch.Tensor, of_negative: torch.Tensor, offset: torch.Tensor | None) -> torch.Tensor:
        of_bright: torch.Tensor = func(x.clamp(min=0), of_positive, offset, *rest, **more)
        of_dark: torch.Tensor = func(x.clamp(max=0), of_negative, None, *rest, **more)
        return of_bright + of_dark

    offsets = (None, None) if bias is None else (bias + GAMMA * bias.clamp(min=0), bias + GAMMA * bias.clamp(max=0))
    weighed = torch.where(value > 0, with_weights(up, down, offsets[0]), with_weights(down, up, offsets[1]))
    return _with_gradient_of(value, weighed * _share(value, weighed))


def _through_zero(func: _Function, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
    """Functions of single values that are 0 at 0: a line through 0 and the value, which hands all relevance on."""
    more.pop("inplace", None)
    value: torch.Tensor = func(x, *rest, **more)
    return _with_gradient_of(value, x * _share(value, x))


def _gate(func: _Function, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
    """What is multiplied with maps: a constant, so that relevance goes to what passed (Arras et al. 2017, W17-5221)."""
    value: torch.Tensor = func(x, *rest, **more)
    return value.detach()


def _product(func: _Function, a: Any, b: Any) -> Any:
    if _depends(a) and _depends(b):
        raise InputError(
            "layer-wise relevance propagation has no rule for a product of two maps, which this model uses; take "
            "integrated gradients"
        )
    return func(a, b)


def _quotient(func: _Function, a: Any, b: Any, **more: Any) -> Any:
    """A normalisation that is written out: what is divided by is a constant."""
    return func(a, b.detach() if isinstance(b, torch.Tensor) else b, **more)


def _deviation_and_mean(func: _Function, *args: Any, **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
    deviation, mean = func(*args, **more)
    return deviation.detach(), mean


def _instance_norm(func: _Function, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
    return _normalised(func(x, *rest, **more), x, x.shape[1], more.get("weight"), more["eps"])


def _group_norm(func: _Function, x: torch.Tensor, num_groups: int, **more: Any) -> torch.Tensor:
    return _normalised(func(x, num_groups, **more), x, num_groups, more.get("weight"), more["eps"])


def _normalised(
    value: torch.Tensor, x: torch.Tensor, num_groups: int, weight: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Groups of maps less their mean; what they are divided by is a constant."""
    grouped = x.reshape(len(x), num_groups, -1)
    variance, mean = torch.var_mean(grouped, dim=2, keepdim=True, correction=0)
    linear = ((grouped - mean) / (variance + eps).sqrt().detach()).reshape(x.shape)
    if weight is not None:
        linear = linear * weight.reshape(-1, *(1,) * (x.ndim - 2))
    return _with_gradient_of(value, linear)


def _elman(
    _: _Function, steps_TJ: torch.Tensor, sizes: torch.Tensor, state: torch.Tensor, weights: Any, *__: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """A recurrent layer with tanh over one sequence, step by step: a linear layer and a tanh each."""
    if len(weights) != 4 or bool((sizes > 1).any()):
        raise InputError("layer-wise relevance propagation: expected one recurrent layer, and one sequence at a time")
    of_input, of_state, *offsets = weights
    weight, offset, state_1J, states = torch.cat([of_input, of_state], dim=1), sum(offsets), state[0], []
    for step_1J in torch.split(steps_TJ, 1):
        joined = _weighing(functional.linear, torch.cat([step_1J, state_1J], dim=1), weight, offset)
        state_1J = _through_zero(torch.tanh, joined)
        states.append(state_1J)
    return torch.cat(states), state_1J[None]


_RULES: Mapping[str, _Function] = {
    **dict.fromkeys(("conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d", "linear"), _weighing),
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "selu", "tanh"), _through_zero),
    "sigmoid": _gate,
    **dict.fromkeys(("mul", "imul"), _product),
    **dict.fromkeys(("div", "truediv"), _quotient),
    "std_mean": _deviation_and_mean,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "rnn_tanh": _elman,
}
