"""The captions that a picture is trained with."""

from hfclip.data.examples import Example
from hfclip.zeroshot.labels import make_caption


def captions_of(example: Example, template: str) -> tuple[str, ...]:
    """Returns the captions of a picture, or the template filled with its label if it has none."""
    if example.captions or example.label is None:
        return example.captions
    return (make_caption(template, example.label),)
