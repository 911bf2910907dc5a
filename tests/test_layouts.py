"""Weights under transformers' names and OpenAI's."""

import torch

from hfclip.layouts import from_transformers, to_transformers


def weights() -> dict[str, torch.Tensor]:
    """One block a tower, width 4, every number its own."""
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "positional_embedding": (3, 4),
        "text_projection": (4, 2),
        "token_embedding.weight": (5, 4),
        "ln_final.weight": (4,),
        "ln_final.bias": (4,),
        "visual.class_embedding": (4,),
        "visual.positional_embedding": (2, 4),
        "visual.proj": (4, 2),
        "visual.conv1.weight": (4, 3, 2, 2),
        "visual.ln_pre.weight": (4,),
        "visual.ln_pre.bias": (4,),
        "visual.ln_post.weight": (4,),
        "visual.ln_post.bias": (4,),
    }
    for stack in ("transformer.resblocks.0.", "visual.transformer.resblocks.10."):
        shapes |= {
            f"{stack}attn.in_proj_weight": (12, 4),
            f"{stack}attn.in_proj_bias": (12,),
            f"{stack}attn.out_proj.weight": (4, 4),
            f"{stack}attn.out_proj.bias": (4,),
            f"{stack}ln_1.weight": (4,),
            f"{stack}mlp.c_fc.weight": (16, 4),
            f"{stack}mlp.c_proj.bias": (4,),
            f"{stack}ln_2.bias": (4,),
        }
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_weights_come_back_from_transformers_names_as_they_were() -> None:
    ours = weights()
    back = from_transformers(to_transformers(ours))
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_each_weight_has_the_name_that_transformers_gives_it() -> None:
    ours = weights()
    theirs = to_transformers(ours)
    layer = "vision_model.encoder.layers.10."
    block = "visual.transformer.resblocks.10."
    expected = {
        "visual_projection.weight": ours["visual.proj"].t(),
        "text_projection.weight": ours["text_projection"].t(),
        "vision_model.pre_layrnorm.weight": ours["visual.ln_pre.weight"],
        "text_model.final_layer_norm.bias": ours["ln_final.bias"],
        f"{layer}self_attn.q_proj.weight": ours[f"{block}attn.in_proj_weight"][:4],
        f"{layer}self_attn.k_proj.weight": ours[f"{block}attn.in_proj_weight"][4:8],
        f"{layer}self_attn.v_proj.bias": ours[f"{block}attn.in_proj_bias"][8:],
        f"{layer}mlp.fc1.weight": ours[f"{block}mlp.c_fc.weight"],
        "text_model.encoder.layers.0.layer_norm2.bias": ours["transformer.resblocks.0.ln_2.bias"],
    }
    assert all(torch.equal(theirs[name], tensor) for name, tensor in expected.items())
    assert len(theirs) == len(ours) + 8  # one tensor for attention becomes three, four times


def test_the_counters_of_older_files_are_left_out_and_unknown_names_kept() -> None:
    tensors = {
        "text_model.embeddings.position_ids": torch.arange(77),
        "vision_model.embeddings.position_ids": torch.arange(50),
        "classifier.weight": torch.ones(2),
    }
    assert list(from_transformers(tensors)) == ["classifier.weight"]
