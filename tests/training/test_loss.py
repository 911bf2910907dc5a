"""The contrastive loss of distinct captions: equal to CLIP's own, less the floor."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor

from hfclip.training.loss import contrastive_loss


def draw(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def usual_loss(images: Tensor, texts: Tensor, scale: Tensor, classes: Tensor) -> Tensor:
    """Returns CLIP's loss of pairs, with all pairs of the same class as soft targets."""
    logits = scale.exp() * F.normalize(images) @ F.normalize(texts).t()
    same = (classes[:, None] == classes[None, :]).double()
    wanted = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.t(), wanted)) / 2


def test_its_gradient_is_that_of_clips_loss_with_repeated_captions() -> None:
    classes = torch.tensor([0, 1, 0, 2, 1, 0, 0, 2])
    images, texts, scale = draw(8, 5), draw(3, 5), torch.tensor(1.5, requires_grad=True)
    one_hot = F.one_hot(classes).bool()
    own = contrastive_loss(images, texts, scale, one_hot)
    usual = usual_loss(images, texts[classes], scale, classes)
    expected = torch.autograd.grad(usual, [images, texts, scale])
    found = torch.autograd.grad(own.excess, [images, texts, scale])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    # CLIP counts a caption's copies, so its floor is higher by their entropy.
    copies = -sum(n / 8 * math.log(1 / n) for n in (4, 2, 2))
    assert float(usual.detach()) == pytest.approx(float(own.excess.detach()) + copies)


def test_a_perfect_model_has_no_loss_above_the_floor() -> None:
    # Pictures 0 and 1 share a caption, and picture 2 has two captions.
    positives = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 1]]).bool()
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    loss = contrastive_loss(images, texts, torch.tensor(math.log(100)), positives)
    assert float(loss.excess) == pytest.approx(0, abs=1e-6)
    # Picture 2 chooses between 2 captions; the caption of 0 and 1 between 2 pictures.
    assert loss.floor == pytest.approx((1 / 3 * math.log(2) + 2 / 3 * math.log(2)) / 2)


def test_several_captions_of_a_picture_are_all_right() -> None:
    positives = torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.0, 1.0]])
    swapped = texts[[2, 1, 0]]
    scale = torch.tensor(math.log(10))
    good = contrastive_loss(images, texts, scale, positives)
    bad = contrastive_loss(images, swapped, scale, positives)
    assert float(good.excess) < 0.05 < 1 < float(bad.excess)
