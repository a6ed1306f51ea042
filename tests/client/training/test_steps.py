"""The one training loop, on arithmetic that can be done by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from msfl_client.training.rates import make_optimizer
from msfl_client.training.steps import Influence, Piece, Plan, run_steps
from msfl_common.config.optimisation import Optimisation
from msfl_common.errors import RefusedError
from msfl_common.strategies.base import Local, Strategy

CPU = torch.device("cpu")
ADAM = Optimisation("Adam", 0.1, 0.0)


def plan_of(
    w: torch.Tensor,
    pieces: Callable[[float], Sequence[Piece]],
    influence: Influence | None = None,
    clip: float | None = None,
) -> Plan[float]:
    return Plan(
        network=None,
        parameters=(w,),
        device=CPU,
        optimizer=torch.optim.SGD([w], lr=9.0),  # the plan's rate counts
        num_steps=2,
        pieces=pieces,
        rate=lambda step: 0.1 / step,
        clip_norm=clip,
        influence=influence,
    )


def squares(w: torch.Tensor, shares: Sequence[float] = (1.0,)) -> Callable[[float], Sequence[Piece]]:
    """Half the squared distance from a target, in parts."""
    return lambda target: [Piece(lambda: w, lambda x: 0.5 * (x - target).square().sum(), part) for part in shares]


@pytest.mark.parametrize("shares", [(1.0,), (0.25, 0.75)])
def test_steps_follow_the_gradient_at_the_rate_of_each(shares: Sequence[float]) -> None:
    w, said = torch.tensor([1.0], requires_grad=True), []
    loss = run_steps(plan_of(w, squares(w, shares)), [3.0, 3.0], 1, lambda *step: said.append(step))
    first = 1 + 0.1 * 2
    assert w.item() == pytest.approx(first + 0.05 * (3 - first))
    assert loss == pytest.approx((2 + 0.5 * (3 - first) ** 2) / 2)
    assert [(step, of) for step, of, _ in said] == [(1, 2), (2, 2)]
    assert said[-1][2] == pytest.approx(loss)


class Leans(Strategy):
    """Adds 5 w to the loss, and doubles the gradient."""

    kind: str = "leans"

    def loss_term(self, local: Local) -> torch.Tensor:
        return 5 * local.parameters["w"].sum()

    def adjust_gradients(self, local: Local) -> None:
        local.parameters["w"].grad *= 2


def test_a_strategy_adds_to_each_step_once_and_before_gradients_are_clipped() -> None:
    w = torch.tensor([1.0], requires_grad=True)
    influence = Influence(Leans(), Local({"w": w}, {}, {}, {}))
    plan = plan_of(w, squares(w, (0.5, 0.5)), influence)
    loss = run_steps(plan, [3.0], 1, lambda *_: None)
    assert w.item() == pytest.approx(1 - 0.1 * 2 * (-2 + 5))
    assert loss == pytest.approx(2 / 2)  # of its two steps one was taken; the strategy's term is not the loss
    clipped = torch.tensor([1.0], requires_grad=True)
    influence = Influence(Leans(), Local({"w": clipped}, {}, {}, {}))
    run_steps(plan_of(clipped, squares(clipped), influence, clip=0.5), [3.0], 1, lambda *_: None)
    assert clipped.item() == pytest.approx(1 - 0.1 * 0.5, rel=1e-5)


@pytest.mark.parametrize("term", [torch.ones(2), 0.5])
def test_a_term_that_is_no_single_number_is_refused_by_name(term: object) -> None:
    class Wrong(Strategy):
        def loss_term(self, local: Local) -> torch.Tensor:
            return term  # type: ignore[return-value]

    w = torch.tensor([1.0], requires_grad=True)
    plan = plan_of(w, squares(w), Influence(Wrong(kind="wrong"), Local({"w": w}, {}, {}, {})))
    with pytest.raises(TypeError, match=r"loss_term: expected a tensor of one number, found (\(2,\)|float)"):
        run_steps(plan, [3.0], 1, lambda *_: None)


def test_a_loss_or_a_weight_that_is_not_finite_is_refused() -> None:
    w = torch.tensor([1.0], requires_grad=True)
    with pytest.raises(RefusedError, match="mean loss nan in round 7"):
        run_steps(plan_of(w, squares(w)), [float("nan")], 7, lambda *_: None)
    w = torch.tensor([3e38], requires_grad=True)
    steep = [Piece(lambda: w, lambda x: -3e38 * (x - x.detach()).sum())]
    with pytest.raises(RefusedError, match="weights in round 7"):
        run_steps(plan_of(w, lambda _: steep), [0.0, 0.0], 7, lambda *_: None)


def test_optimisers_have_the_rates_that_they_are_given_and_take_what_is_trained() -> None:
    trained, fixed = torch.ones(1, requires_grad=True), torch.ones(1)
    for kind in ("Adam", "NAdam", "AdamW"):
        optimizer = make_optimizer([trained, fixed], Optimisation(kind, 0.02, 0.3))
        assert type(optimizer).__name__ == kind
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"], group["params"]) == (0.02, 0.3, [trained])
