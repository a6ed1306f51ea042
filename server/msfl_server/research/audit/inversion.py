"""Images made again from what a network's training tells: gradient inversion (Geiping et al. 2020).

The attacker knows network and first weights, and looks for an image and a mask whose gradient points where the one he
saw points, smooth as images are (total variation). An image is recognised where, of all that it is held against, the
one it is most like is one that the network learned from; nine of ten are not, and are of other patients.

Legend: C contrast, D/H/W voxels.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from msfl_client.privacy.noise import Noise
from msfl_client.segmentation.loop import loss_of, train_round
from msfl_client.segmentation.patches import Patch, PatchDataset, PatchLoader
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.study import StudyConfig
from msfl_common.metrics.intervals import wilson
from msfl_common.models.network import build_network
from msfl_common.system.seeds import derive_seed
from msfl_server.research.audit.finding import Finding, Measured, judged
from msfl_server.research.audit.images import ImageSite

NAME = "Gradient inversion"
FIGURE = "Patches recognised"
ROUND, SUM, NOISE = "update of a round", "masked sum of a round", "differential privacy"
NUM_PATCHES = 10  # made again against each defence
EDGE = 16  # voxels of a patch: the smaller, the easier to make again
_OTHERS = 9  # patches of other patients to each that was learned from
_STEPS, _STEP, _SMOOTH = 120, 0.1, 0.01
_CPU = torch.device("cpu")

Told = Mapping[str, torch.Tensor]  # a direction for each parameter


@dataclass(frozen=True)
class Seen:
    """What an attacker sees once.

    Attributes:
        told: where the gradient points.
        learned: the patches behind it.
        others: patches of other patients, `_OTHERS` to each of them.
    """

    told: Told
    learned: Sequence[torch.Tensor]
    others: Sequence[torch.Tensor]


def small(study: StudyConfig) -> StudyConfig:
    """The study with patches as small as its network takes, and no strategy, which is what most is known of."""
    edge = min(max(EDGE - EDGE % study.network.divisor, study.network.smallest_patch), study.training.patch_voxels)
    training = study.training.model_copy(update={"patch_voxels": edge})
    return study.model_copy(update={"training": training, "strategy": None})


def num_attacks(study: StudyConfig) -> int:
    """How many patches are made again in all."""
    return NUM_PATCHES * (3 + (study.differential_privacy is not None))


def audit(study: StudyConfig, sites: Mapping[str, ImageSite], on_patch: Callable[[], None]) -> list[Finding]:
    """The attack on the gradient of one patch, and on what is told of it in the study.

    Args:
        study: of `small`.
        sites: their patches.
        on_patch: called after each that was made again.
    """
    network = build_network(study).train()
    bare = [_of_one_patch(network, sites, number) for number in range(NUM_PATCHES)]
    rounds = [_of_round(network, study, sites, number) for number in range(NUM_PATCHES)]
    edge = study.training.patch_voxels
    num_steps, batch = study.training.steps_per_round, study.training.batch_size

    def measured(defence: str, attacks: Sequence[Seen], note: str) -> Measured:
        found = 0
        for number, seen in enumerate(attacks):
            made = invert(network, seen.told, seen.learned[0].shape, derive_seed(study.seed, "inversion", number))
            found += is_recognised(made, seen.learned, seen.others)
            on_patch()
        share = found / len(attacks)
        return Measured(defence, share, *wilson(share, len(attacks)), len(attacks), 1 / (1 + _OTHERS), note)

    without = measured("", bare, f"one step, one patch of {edge} voxels, the first weights")
    defended = [
        measured(ROUND, [one[0] for one in rounds], f"a site's {num_steps} steps of {batch} patches"),
        measured(SUM, [one[1] for one in rounds], f"of {len(sites)} sites"),
    ]
    if (private := study.differential_privacy) is not None:
        noisy = [hidden(seen, private, f"{study.seed} {number}") for number, seen in enumerate(bare)]
        defended.append(measured(NOISE, noisy, "a step of one patient; steps of several tell less of each"))
    return judged(NAME, FIGURE, without, defended)


def invert(network: torch.nn.Module, told: Told, shape_CDHW: Sequence[int], seed: int) -> torch.Tensor:
    """An image, of this shape, whose gradient points as nearly as possible where `told` does."""
    draws = torch.Generator().manual_seed(seed)
    image_1CDHW = torch.randn((1, *shape_CDHW), generator=draws).requires_grad_()
    logits_11DHW = torch.full((1, 1, *shape_CDHW[1:]), -2.0, requires_grad=True)  # few voxels are of lesions
    optimizer = torch.optim.Adam([image_1CDHW, logits_11DHW], lr=_STEP)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    parameters = {name: of for name, of in network.named_parameters() if name in told}
    length = torch.stack([told[name].square().sum() for name in parameters]).sum().sqrt()
    for _ in range(_STEPS):
        optimizer.zero_grad()
        gradients = _gradients(network, parameters, image_1CDHW, logits_11DHW.sigmoid(), through=True)
        products = torch.stack([(gradients[name] * told[name]).sum() for name in parameters]).sum()
        own_length = torch.stack([of.square().sum() for of in gradients.values()]).sum().sqrt()
        rough = torch.stack([image_1CDHW.diff(dim=axis).abs().mean() for axis in range(2, image_1CDHW.dim())]).sum()
        torch.autograd.backward(_SMOOTH * rough - products / (own_length * length).clamp_min(1e-12))
        for one in (image_1CDHW, logits_11DHW):
            assert one.grad is not None
            one.grad.sign_()
        optimizer.step()
        rates.step()
    return image_1CDHW.detach()[0]


def is_recognised(made_CDHW: torch.Tensor, learned: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Whether the patch that an image is most like, by correlation, is one of those that were learned from."""
    return max(_likeness(made_CDHW, one) for one in learned) > max(_likeness(made_CDHW, one) for one in others)


def hidden(seen: Seen, private: DifferentialPrivacy, release: str) -> Seen:
    """The same gradient, cut to the bound of a patient, with noise."""
    length = float(torch.stack([of.square().sum() for of in seen.told.values()]).sum().sqrt())
    share = min(1.0, private.max_gradient_norm / max(length, 1e-12))
    noise = Noise(hashlib.sha256(f"inversion {release}".encode()).digest())
    spread = private.noise_multiplier * private.max_gradient_norm
    told = {
        name: share * of + spread * noise.normals(name, 1, of.numel(), _CPU).reshape(of.shape)
        for name, of in seen.told.items()
    }
    return Seen(told, seen.learned, seen.others)


def _of_one_patch(network: torch.nn.Module, sites: Mapping[str, ImageSite], number: int) -> Seen:
    """The gradient of one patch; patches take turns over sites and patients."""
    site, place = [*sites.values()][number % len(sites)], number // len(sites)
    image_CDHW, label_1DHW = site.learned[place]
    parameters = dict(network.named_parameters())
    told = _gradients(network, parameters, image_CDHW[None], label_1DHW[None], through=False)
    return Seen(told, [image_CDHW], _others([site], 1, number))


def _of_round(
    network: torch.nn.Module, study: StudyConfig, sites: Mapping[str, ImageSite], number: int
) -> tuple[Seen, Seen]:
    """What one site's update of a round tells, and what the sum of all sites' updates does."""
    before = {name: of.detach().clone() for name, of in network.named_parameters()}
    updates: list[tuple[dict[str, torch.Tensor], list[torch.Tensor], ImageSite]] = []
    for site in sites.values():
        loader = PatchLoader(site.learned, _CPU)
        kept = _Kept(loader)
        trained = copy.deepcopy(network)
        train_round(trained, kept, study, number + 1, _CPU, lambda *_: None)
        after = dict(trained.named_parameters())
        updates.append(({name: of - after[name].detach() for name, of in before.items()}, kept.images, site))
    told, learned, site = updates[number % len(updates)]
    weights = [one.num_cases for _, _, one in updates]
    summed = {
        name: torch.stack([weight * of[name] for (of, _, _), weight in zip(updates, weights, strict=True)]).sum(dim=0)
        for name in before
    }
    all_learned = [image for _, images, _ in updates for image in images]
    return (
        Seen(told, learned, _others([site], len(learned), number)),
        Seen(summed, all_learned, _others([*sites.values()], len(all_learned), number)),
    )


class _Kept:
    """A round's batches, whose images are kept."""

    def __init__(self, loader: PatchLoader) -> None:
        self._loader = loader
        self.images: list[torch.Tensor] = []

    def batches(self, round_number: int) -> Iterator[Patch]:
        """See `Batches`."""
        for image_BCDHW, label_B1DHW in self._loader.batches(round_number):
            self.images += image_BCDHW.unbind()
            yield image_BCDHW, label_B1DHW


def _others(sites: Sequence[ImageSite], num_learned: int, number: int) -> list[torch.Tensor]:
    """Patches of patients whom nothing was learned from, of the sites in turn."""
    count = _OTHERS * num_learned
    datasets: list[PatchDataset] = [site.others for site in sites]
    return [datasets[place % len(datasets)][number * count + place // len(datasets)][0] for place in range(count)]


def _gradients(
    network: torch.nn.Module,
    parameters: Mapping[str, torch.Tensor],
    image_BCDHW: torch.Tensor,
    label_B1DHW: torch.Tensor,
    through: bool,
) -> dict[str, torch.Tensor]:
    """Of the loss that sites train with; `through`: to be differentiated again."""
    loss = loss_of(network(image_BCDHW).float(), label_B1DHW)
    found = torch.autograd.grad(loss, [*parameters.values()], create_graph=through)
    return dict(zip(parameters, found, strict=True))


def _likeness(one_CDHW: torch.Tensor, other_CDHW: torch.Tensor) -> float:
    """Mean over contrasts of the correlation of voxels."""
    rows = [of.flatten(1) - of.flatten(1).mean(dim=1, keepdim=True) for of in (one_CDHW, other_CDHW)]
    lengths = rows[0].norm(dim=1) * rows[1].norm(dim=1)
    return float(((rows[0] * rows[1]).sum(dim=1) / lengths.clamp_min(1e-12)).mean())
