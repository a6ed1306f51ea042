"""Deep models in training: they learn, alike for a seed, whatever the parts; and what their predictions rest on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tests.deep import KINDS, SHAPE, learnable_sequence, tiny_study

from msfl_client.classification.deep_loop import class_weights, predict, saliency, train_round
from msfl_client.classification.visit_sequences import NOISE_STD, VisitSequence, make_batch, round_batches
from msfl_client.training.rates import make_optimizer, rate_at
from msfl_common.config.optimisation import optimisation_of
from msfl_common.config.study import StudyConfig, Training
from msfl_common.errors import CaseError, Code, RefusedError
from msfl_common.models.deep_models import VisitClassifier, build_classifier, deep_settings
from msfl_common.models.network import get_weights

CPU = torch.device("cpu")
SEQUENCES = [learnable_sequence(seed, label, 1 + seed % 3) for seed in range(4) for label in (0, 1)]


def with_model(study: StudyConfig, **changes: object) -> StudyConfig:
    settings, model = deep_settings(study)
    return study.model_copy(
        update={"classification": settings.model_copy(update={"model": model.model_copy(update=changes)})}
    )


def train(study: StudyConfig, rounds: int = 1, parts: int = 1) -> tuple[VisitClassifier, list[float]]:
    network = build_classifier(study)
    losses = [
        train_round(network, SEQUENCES, study, number, CPU, lambda *_: None, parts) for number in range(1, rounds + 1)
    ]
    return network, losses


def short(kind: str, steps: int = 3, **changes: object) -> StudyConfig:
    study = tiny_study(kind)
    return study.model_copy(
        update={"training": study.training.model_copy(update={"steps_per_round": steps, **changes})}
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_set_is_learnt_by_heart(kind: str) -> None:
    study = short(kind, steps=30, learning_rate=0.003 if kind in ("resnet3d", "pretrained-resnet2d") else 0.01)
    network, losses = train(study, rounds=2)
    assert losses[-1] < losses[0]
    probabilities = predict(network, SEQUENCES, study, CPU)
    assert probabilities.shape == (8, 2)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(8))
    assert probabilities.argmax(axis=1).tolist() == [sequence.label for sequence in SEQUENCES]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_weights(kind: str) -> None:
    study = with_model(short(kind), dropout=0.3)
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        weights.append(get_weights(train(study, rounds=2)[0]))
        assert torch.equal(torch.random.get_rng_state(), state)
    assert all(np.array_equal(value, weights[1][name]) for name, value in weights[0].items())
    other = get_weights(train(study.model_copy(update={"seed": 1}), rounds=2)[0])
    assert any(not np.array_equal(value, other[name]) for name, value in weights[0].items())


@pytest.mark.parametrize("kind", ["resnext", "lesion-encoder"])
def test_parts_of_a_batch_add_up_to_it(kind: str) -> None:
    whole, loss = train(short(kind, batch_size=5))
    parts, loss_in_parts = train(short(kind, batch_size=5), parts=3)
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    found = get_weights(parts)
    assert all(np.allclose(value, found[name], atol=2e-4) for name, value in get_weights(whole).items())


def test_the_loss_is_the_weighted_cross_entropy() -> None:
    study = with_model(short("resnext", steps=1, batch_size=8), positive_weight=3.5)
    items = [sequence for sequence, _ in round_batches(SEQUENCES, study, 1)[0]]
    assert sorted(id(sequence) for sequence in items) == sorted(id(sequence) for sequence in SEQUENCES)
    quiet = [replace(sequence, volumes=(None,) * len(sequence.volumes)) for sequence in SEQUENCES]  # nothing to add to
    network = build_classifier(study)
    probabilities_NK = predict(network, quiet, study, CPU)
    losses = [-np.log(row[sequence.label]) for row, sequence in zip(probabilities_NK, quiet, strict=True)]
    expected = np.average(losses, weights=[(1, 3.5)[sequence.label] for sequence in quiet])
    assert train_round(network, quiet, study, 1, CPU, lambda *_: None) == pytest.approx(expected, rel=1e-5)
    assert class_weights(study).tolist() == [1.0, 3.5]


def with_training(kind: str, **written: float) -> StudyConfig:
    """A study whose `training` says so much and no more, as it comes over the wire."""
    study = tiny_study(kind).model_copy(update={"training": Training(**written)})
    return StudyConfig.model_validate_json(study.model_dump_json())


def test_optimisers_and_rates_are_the_papers_where_none_are_written() -> None:
    usual = [with_training(kind) for kind in KINDS]
    assert [rate_at(study, 1, 1) for study in usual] == [1e-4, 1e-4, 1e-3, 1e-3]
    assert [rate_at(study, 2, 3) for study in usual[:3]] == [1e-4, 1e-4, 1e-3]
    assert rate_at(usual[3], 2, 3) < 1e-3
    made = [make_optimizer(build_classifier(study).parameters(), optimisation_of(study)) for study in usual]
    assert [type(optimizer).__name__ for optimizer in made] == ["Adam", "Adam", "NAdam", "AdamW"]
    assert [optimizer.defaults["weight_decay"] for optimizer in made] == [0, 0, 0.05, 0.01]


def test_what_is_written_acts_though_it_is_what_others_have_and_a_constant_rate_stays_constant() -> None:
    for kind in KINDS:
        written = with_training(kind, learning_rate=0.001, weight_decay=0.01)
        assert rate_at(written, 1, 1) == 0.001
        assert (rate_at(written, 2, 30) == 0.001) == (kind != "lesion-encoder")
        optimizer = make_optimizer(build_classifier(written).parameters(), optimisation_of(written))
        assert optimizer.defaults["weight_decay"] == 0.01


def test_the_segmentation_network_is_not_trained() -> None:
    study = short("lesion-encoder")
    before, after = get_weights(build_classifier(study)), get_weights(train(study)[0])
    moved = {name for name, value in before.items() if not np.array_equal(value, after[name])}
    assert moved == {name for name in before if not name.startswith("encoder.unet.")}


def test_a_loss_that_is_not_finite_is_refused() -> None:
    study = short("resnet3d", steps=1)
    network = build_classifier(study)
    with torch.no_grad():
        network.output.bias.fill_(float("nan"))
    with pytest.raises(RefusedError) as caught:
        train_round(network, SEQUENCES, study, 1, CPU, lambda *_: None)
    assert caught.value.code is Code.TRAINING_DIVERGED


def test_every_sequence_comes_equally_often_and_rounds_go_on_where_the_last_ended() -> None:
    study = short("resnet3d", steps=3, batch_size=4)  # 12 of 8 sequences a round
    rounds = [round_batches(SEQUENCES, study, number) for number in (1, 2)]
    seen = [sequence.patient for batches in rounds for batch in batches for sequence, _ in batch]
    assert all(seen.count(sequence.patient) == 3 for sequence in SEQUENCES)
    assert all(len(set(seen[start : start + 8])) == 8 for start in (0, 8, 16))
    assert seen[:8] != seen[8:16]


def test_a_fifth_of_the_volumes_of_positive_cases_is_noisy_inside_the_brain() -> None:
    study = with_model(short("resnet3d", steps=100, batch_size=4), max_visits=1)
    noisy = {0: [], 1: []}
    for batch in round_batches(SEQUENCES, study, 1):
        made = make_batch([sequence for sequence, _ in batch], study, [noise for _, noise in batch])
        for (sequence, _), image in zip(batch, made.images_BVCDHW[:, 0].numpy(), strict=True):
            original = np.asarray(sequence.volumes[-1])
            change = (image - original)[original > 0]
            noisy[sequence.label].append(change.any())
            assert not image[original == 0].any()
            assert image[original > 0].min() >= 1
            assert image.max() <= 255
            if change.any():
                assert change.std() == pytest.approx(NOISE_STD, rel=0.15)
    assert not any(noisy[0])
    assert np.mean(noisy[1]) == pytest.approx(0.2, abs=0.08)


def test_the_last_visits_that_took_place_are_taken_from_files_or_memory(tmp_path: Path) -> None:
    study = tiny_study("resnet3d")  # at most three visits
    volumes = [np.full((2, *SHAPE), value, np.uint8) for value in range(1, 6)]
    save_file({"volume": volumes[3]}, tmp_path / "3.safetensors")
    clinical = np.arange(10, dtype=np.float32).reshape(5, 2)
    present = np.array([True, True, False, True, True])
    many = VisitSequence((*volumes[:3], tmp_path / "3.safetensors", None), clinical, present, 0, "a")
    one = VisitSequence((volumes[0],), clinical[:1], present[:1], 1, "b")
    batch = make_batch([many, one], study)
    assert batch.images_BVCDHW[0, :, 1, 2, 3, 4].tolist() == [2, 4, 0]
    assert batch.images_BVCDHW[1, :, 1, 2, 3, 4].tolist() == [1, 0, 0]
    assert batch.clinical_BVE[0].tolist() == clinical[[1, 3, 4]].tolist()
    assert batch.present_BV.tolist() == [[True] * 3, [True, False, False]]


def test_sequences_that_cannot_be_used_are_refused() -> None:
    good = learnable_sequence(0, 0)
    with pytest.raises(CaseError, match="at least one visit"):
        replace(good, present_V=np.zeros(2, bool))
    with pytest.raises(CaseError, match="as many volumes"):
        replace(good, volumes=good.volumes[:1])
    with pytest.raises(CaseError, match="finite"):
        replace(good, clinical_VE=np.full((2, 2), np.nan, np.float32))
    with pytest.raises(CaseError, match=r"expected a volume of shape \(2, 8, 16, 16\), found \(2, 4, 16, 16\)"):
        make_batch([replace(good, volumes=tuple(volume[:, :4] for volume in good.volumes))], tiny_study("resnet3d"))


@pytest.mark.parametrize("kind", KINDS)
def test_saliency_is_the_gradient_times_the_input(kind: str) -> None:
    study = tiny_study(kind)
    network = build_classifier(study).eval()
    sequence = learnable_sequence(3, 1, 2)
    found = saliency(network, sequence, study, CPU)
    assert found.volumes_VCDHW.shape == (2, 2, *SHAPE)
    assert found.volumes_VCDHW[0].any()
    assert not found.volumes_VCDHW[:, :, :, :3].any()  # no input there
    step = 1e-2

    def log_odds(change: float) -> float:
        clinical = sequence.clinical_VE.copy()
        clinical[1, 0] += change
        no, yes = predict(network, [replace(sequence, clinical_VE=clinical)], study, CPU)[0]
        return float(np.log(yes / no))

    slope = (log_odds(step) - log_odds(-step)) / (2 * step)
    assert found.clinical_VE[1, 0] == pytest.approx(slope * sequence.clinical_VE[1, 0], rel=0.02, abs=1e-4)
    quiet = saliency(network, replace(sequence, volumes=(None, None)), study, CPU)
    assert not quiet.volumes_VCDHW.any()
    assert quiet.clinical_VE.all()


def test_saliency_points_at_what_was_learnt() -> None:
    study = short("resnet3d", steps=20, learning_rate=0.002)
    network, _ = train(study)
    volumes = np.abs(saliency(network, learnable_sequence(1, 1, 1), study, CPU).volumes_VCDHW[0, 1])
    assert volumes[2:6, 6:11, 6:11].mean() > 2 * volumes[:, 3:].mean()
