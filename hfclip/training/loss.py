"""The contrastive loss between pictures and distinct captions."""

from typing import NamedTuple

import torch
from torch import Tensor

from hfclip.network.layers import normalize


class Loss(NamedTuple):
    """A contrastive loss.

    Attributes:
        excess: The loss less its floor, a scalar with gradient. A perfect model has 0.
        floor: The smallest value that the loss can have: the entropy of its targets.
    """

    excess: Tensor
    floor: float


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor, positives: Tensor) -> Loss:
    """Returns the contrastive loss of B pictures and T distinct captions, in both directions.

    A picture has one or more positive captions, and a caption one or more positive pictures. The
    target of a picture is uniform over its captions, and the target of a caption is uniform over
    its pictures (weighted by their share of each picture if pictures have several captions). A
    caption counts as often as pictures have it: with one caption for each picture, the gradient is
    that of CLIP's loss on B pairs, in which equal captions have equal features.

    The usual loss of a perfect model is not 0 where captions repeat: with B pictures of C classes
    it is ln(B / C). This floor depends on the batch, so the loss is reported without it.

    Args:
        images: Features (B, D), not normalised.
        texts: Features (T, D), not normalised.
        logit_scale: The logarithm of the scale, a scalar.
        positives: Which caption belongs to which picture, bool (B, T). Each row and each column
            has at least one True.
    """
    joint = positives.to(images.dtype)
    joint = joint / joint.sum(dim=1, keepdim=True) / len(joint)  # (B, T), its sum is 1
    share = joint.sum(dim=0)  # (T,)
    logits = logit_scale.exp() * normalize(images) @ normalize(texts).t()  # (B, T)
    of_texts = (logits + share.log()).log_softmax(dim=1)
    of_images = logits.log_softmax(dim=0)
    to_text, to_image = joint * len(joint), joint / share
    floor = (_entropy(joint, to_text) + _entropy(joint, to_image)) / 2
    loss = -(joint * (of_texts + of_images)).sum() / 2
    return Loss(loss - floor, float(floor))


def _entropy(joint: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean entropy of targets (B, T), weighted by the joint distribution (B, T)."""
    entropy: Tensor = -torch.special.xlogy(joint, targets).sum()
    return entropy
