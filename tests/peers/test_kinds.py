"""The kinds of models in hfclip's table are transformers' own."""

import pytest

from hfclip.layouts.kinds import KINDS, PARTS


@pytest.mark.parametrize("model_type", KINDS)
def test_transformers_loads_each_kind_with_the_named_class(model_type: str) -> None:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    loader = getattr(transformers, KINDS[model_type].loader)
    assert loader.config_class is CONFIG_MAPPING[model_type]
    assert loader.config_class.model_type == model_type


@pytest.mark.parametrize("name", PARTS)
def test_transformers_has_each_part_of_a_clip(name: str) -> None:
    import transformers

    assert getattr(transformers, name).config_class.model_type.startswith("clip")
