import math

import pytest
import torch
from torch.nn import functional as F

from training.fit.step.loss import (
    Batch,
    PairIds,
    TeacherRows,
    affinity_loss,
    clamp_logit_scale,
    sigmoid_loss,
    softmax_loss,
    targets_between,
)


def unit(rows: int, *, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def batch_of(images: torch.Tensor, texts: torch.Tensor, image_ids: list[int], caption_ids: list[int]) -> Batch:
    ids = PairIds(torch.tensor(image_ids), torch.tensor(caption_ids))
    return Batch(images, texts, images, texts, *targets_between(ids, ids))


def test_distinct_pairs_give_clips_loss() -> None:
    images, texts, scale = unit(6, seed=1), unit(6, seed=2), torch.tensor(14.0)
    logits = scale * images @ texts.T
    expected = (F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))) / 2
    assert softmax_loss(batch_of(images, texts, [*range(6)], [*range(6)]), scale).item() == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_captions_of_one_image_share_the_target() -> None:
    images, texts = unit(3, seed=1), unit(3, seed=2)
    images[1] = images[0]
    loss = softmax_loss(batch_of(images, texts, [7, 7, 8], [1, 2, 3]), torch.tensor(5.0))
    logits = 5.0 * images @ texts.T
    target = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]])
    by_hand = (
        -(target * logits.log_softmax(1)).sum(1).mean() - (target * logits.T.log_softmax(1)).sum(1).mean()
    ) / 2
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_identical_captions_are_positives_for_each_others_images() -> None:
    ids = PairIds(torch.tensor([1, 2, 3]), torch.tensor([9, 9, 4]))
    for targets in targets_between(ids, ids):
        assert targets.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_a_mixed_image_is_about_both_texts_by_their_share_of_it() -> None:
    # Image 0 holds a quarter of image 1, 1 of 2, 2 of 0.
    following = PairIds(torch.tensor([2, 3, 1]), torch.tensor([8, 9, 7]))
    ids = PairIds(torch.tensor([1, 2, 3]), torch.tensor([7, 8, 9]), following, 0.25)
    image_targets, text_targets = targets_between(ids, ids)
    assert image_targets.tolist() == [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]]
    assert torch.equal(text_targets, image_targets.T)


def test_perfect_alignment_at_high_scale_costs_nothing_and_swapped_pairs_cost_much() -> None:
    rows = torch.eye(4, 8)
    scale = torch.tensor(100.0)
    assert softmax_loss(batch_of(rows, rows, [0, 1, 2, 3], [0, 1, 2, 3]), scale) < 1e-6
    assert softmax_loss(batch_of(rows, rows.flip(0), [0, 1, 2, 3], [0, 1, 2, 3]), scale) > 50


def test_sigmoid_loss_is_that_of_every_pair_on_its_own() -> None:
    images, texts = unit(4, seed=3), unit(4, seed=4)
    batch = batch_of(images, texts, [0, 1, 2, 3], [0, 1, 2, 3])
    loss = sigmoid_loss(batch, torch.tensor(10.0), torch.tensor(-10.0))
    total = 0.0
    for i in range(4):
        for j in range(4):
            logit = 10.0 * float(images[i] @ texts[j]) - 10.0
            total += math.log1p(math.exp(-logit if i == j else logit))
    assert loss.item() == pytest.approx(total / 4, rel=1e-5)


@pytest.mark.parametrize(("given", "kept"), [(-3.0, 0.0), (2.0, 2.0), (9.0, math.log(100))])
def test_logit_scale_is_clamped_between_1_and_100(given: float, kept: float) -> None:
    log_scale = torch.tensor(given)
    clamp_logit_scale(log_scale)
    assert log_scale.item() == pytest.approx(kept)


def test_affinity_loss_is_the_divergence_from_the_teachers_rows_in_a_space_of_another_size() -> None:
    images, texts = unit(4, seed=1), unit(4, seed=2)
    teacher_images, teacher_texts = (F.normalize(torch.eye(4, 3) + 0.1 * place, dim=1) for place in (1, 2))
    batch = batch_of(images, texts, [0, 1, 2, 3], [0, 1, 2, 3])
    rows = TeacherRows(teacher_images, teacher_texts, teacher_images, teacher_texts)
    loss = affinity_loss(batch, rows, torch.tensor(7.0), teacher_scale=20.0)
    total = 0.0
    for own, other, student_own, student_other in (
        (teacher_images, teacher_texts, images, texts),
        (teacher_texts, teacher_images, texts, images),
    ):
        for row in range(4):
            wanted = [math.exp(20.0 * float(own[row] @ other[column])) for column in range(4)]
            given = [math.exp(7.0 * float(student_own[row] @ student_other[column])) for column in range(4)]
            for p, q in zip(wanted, given, strict=True):
                total += p / sum(wanted) * math.log((p / sum(wanted)) / (q / sum(given)))
    assert loss.item() == pytest.approx(total / 8, rel=1e-4)


def test_a_student_that_sees_what_its_teacher_sees_has_nothing_to_learn_from_it() -> None:
    images, texts = unit(5, seed=1), unit(5, seed=2)
    batch = batch_of(images, texts, [*range(5)], [*range(5)])
    same = TeacherRows(images, texts, images, texts)
    assert affinity_loss(batch, same, torch.tensor(9.0), teacher_scale=9.0).item() == pytest.approx(0, abs=1e-6)
    assert affinity_loss(batch, same, torch.tensor(2.0), teacher_scale=9.0).item() > 0.1
