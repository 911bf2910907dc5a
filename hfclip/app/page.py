"""Builds the page from its tabs."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import LocalFont

from hfclip.app.about_tab import about_tab
from hfclip.app.classify_tab import classify_tab
from hfclip.app.compare_tab import compare_tab
from hfclip.app.demo import Demo
from hfclip.app.markup import escaped, note
from hfclip.app.search_tab import search_tab

# Seconds between two cleanings of the cache of files, and the age of files that are removed.
_CLEANED_EVERY, _OLD = 300, 3600
_PURPOSE = "A CLIP model: it ranks labels and captions for pictures, and finds pictures by words."
_STYLE = Path(__file__).with_name("page.css")


def build(demo: Demo) -> gr.Blocks:
    """Builds the page of a model, and of its collection if there is one.

    `look` has the arguments for its `launch`. `hfclip.app.serve.serve` launches it with all limits.

    Args:
        demo: What the page shows.
    """
    page = gr.Blocks(
        title=f"{demo.name} · hfclip",
        analytics_enabled=False,
        delete_cache=(_CLEANED_EVERY, _OLD),
        fill_width=False,
    )
    with page:
        gr.HTML(f"<h1>{escaped(demo.name)}</h1>{note(_PURPOSE)}", elem_id="title")
        with gr.Tabs():
            classify_tab(demo)
            if demo.embeddings is not None:
                search_tab(demo)
            compare_tab(demo)
            about_tab(demo)
    page.queue(max_size=demo.limits.waiting, default_concurrency_limit=1)
    return page


def look() -> dict[str, Any]:
    """Returns the arguments of `gradio.Blocks.launch` that set colours, fonts and styles.

    Fonts are files of gradio itself, so the page makes no request to another host.
    """
    # Gradio's own file of the weight 600 lacks letters.
    fonts = (LocalFont("Source Sans Pro", weights=(400, 700)), "sans-serif")
    theme = gr.themes.Default(
        primary_hue="blue", secondary_hue="blue", neutral_hue="slate", font=fonts
    )
    return {"theme": theme, "css": _STYLE.read_text(encoding="utf-8"), "footer_links": ["api"]}
