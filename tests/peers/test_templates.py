"""The 80 templates give the captions of open_clip's copy of OpenAI's list."""

import importlib
import warnings

import pytest

from hfclip.zeroshot.templates import IMAGENET_TEMPLATES


@pytest.mark.parametrize("label", ["tench", "great white shark", "jack-o'-lantern", "{}", "a. b"])
def test_all_80_templates_give_the_captions_of_open_clip(label: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = importlib.import_module("open_clip").OPENAI_IMAGENET_TEMPLATES
    assert len(IMAGENET_TEMPLATES) == 80
    ours = [template.replace("{}", label) for template in IMAGENET_TEMPLATES]
    assert ours == [template(label) for template in theirs]
