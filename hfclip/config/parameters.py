"""Counts the trainable parameters of a CLIP's parts from their sizes, without building them."""


def count_block(width: int, units: int) -> int:
    """Counts a transformer block of width W with U hidden units.

    Attention has 4 W W + 4 W, the MLP 2 W U + W + U, and both LayerNorms together 4 W.
    """
    return 4 * width * width + 2 * width * units + 9 * width + units


def count_vit(width: int, patch: int, positions: int, blocks: int, out: int) -> int:
    """Counts an image tower that is a ViT.

    Args:
        width: The width W of the tower.
        patch: The side of a patch, in pixels.
        positions: The number of positions.
        blocks: The parameters of all blocks together.
        out: The width of the embeddings.
    """
    embeddings = (3 * patch * patch + 1 + positions) * width
    return embeddings + 4 * width + blocks + width * out


def count_resnet(width: int, stages: tuple[int, ...], positions: int, out: int) -> int:
    """Counts an image tower that is a ResNet.

    Args:
        width: The width of the first stage.
        stages: The number of blocks in each stage.
        positions: The number of positions.
        out: The width of the embeddings.
    """
    half, features = width // 2, 32 * width
    stem = 27 * half + 2 * half + 9 * half * half + 2 * half + 9 * half * width + 2 * width
    body, fan_in = 0, width
    for stage, blocks in enumerate(stages):
        planes = width * 2**stage
        fan_out = planes * 4
        body += fan_in * fan_out + 2 * fan_out  # the shortcut of the stage's first block
        for _ in range(blocks):
            body += fan_in * planes + 9 * planes**2 + planes * fan_out + 4 * planes + 2 * fan_out
            fan_in = fan_out
    pooling = (positions + 3 * (features + 1)) * features
    return stem + body + pooling + (features + 1) * out
