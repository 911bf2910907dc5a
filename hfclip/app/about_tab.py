"""The tab with the facts of the model, the collection and the answers so far."""

from pathlib import PurePath

import gradio as gr

from hfclip.app.demo import Demo
from hfclip.app.fields import in_words
from hfclip.app.markup import answer_times, facts
from hfclip.cards.card import facts as facts_of_config
from hfclip.version import __version__


def about_tab(demo: Demo) -> None:
    """Adds the tab to the page."""
    with gr.Tab("About", id="about") as tab:
        gr.Markdown("### Model")
        model = gr.HTML(elem_id="model-facts")
        if demo.embeddings is not None:
            gr.Markdown("### Collection")
            gr.HTML(facts(collection_facts(demo)), elem_id="collection-facts")
        gr.Markdown("### Limits")
        gr.HTML(facts(limit_facts(demo)), elem_id="limits")
        gr.Markdown("### Time of the last answers")
        times = gr.HTML(answer_times([]), elem_id="times")

    @in_words
    def refresh() -> tuple[str, str]:
        """Returns the facts of the model, which has to be loaded for them, and the times."""
        return facts(model_facts(demo)), answer_times(demo.times.rows())

    tab.select(refresh, None, [model, times], api_visibility="private", show_progress="minimal")


def model_facts(demo: Demo) -> dict[str, str]:
    """Returns the facts of the model, by name, as text."""
    manifest, model = demo.loaded.manifest, demo.loaded.model
    places = {
        "repository": manifest.repository,
        "commit": manifest.commit,
        "sha256": manifest.sha256,
    }
    return {
        "model": demo.name,
        **{name: value for name, value in places.items() if value},
        **facts_of_config(model.config),
        "precision": str(model.dtype).removeprefix("torch."),
        "device": str(model.logit_scale.device),
        "hfclip": __version__,
    }


def collection_facts(demo: Demo) -> dict[str, str]:
    """Returns the facts of the collection, by name, as text."""
    if demo.embeddings is None:
        return {}
    manifest = demo.embeddings.manifest
    return {
        "name": PurePath(demo.embeddings.out).name,
        "pictures": f"{len(demo.embeddings):,}",
        "could not be read": f"{len(demo.embeddings.errors):,}",
        "made": manifest.created,
        "precision": manifest.precision,
        "preprocess": manifest.preprocess,
    }


def limit_facts(demo: Demo) -> dict[str, str]:
    """Returns the limits of the page, by name, as text."""
    limits = demo.limits
    return {
        "one file": f"{limits.upload_bytes / 2**20:,.0f} MB",
        "one picture": f"{limits.pixels / 1e6:,.0f} million pixels",
        "pictures at once": f"{limits.pictures:,}",
        "labels": f"{limits.lines:,} lines of {limits.characters:,} characters",
        "labels times templates": f"{limits.captions:,}",
        "requests that wait": f"{limits.waiting:,}",
    }
