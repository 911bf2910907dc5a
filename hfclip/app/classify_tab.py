"""The tab that ranks labels for pictures."""

from typing import Any

import gradio as gr

from hfclip.app.demo import Demo
from hfclip.app.fields import QUEUE, in_words, picture_field, pictures_field
from hfclip.app.markup import download, note
from hfclip.app.times import Watch
from hfclip.errors import ImageError

# Labels that are shown as bars.
_BARS = 10


def classify_tab(demo: Demo) -> None:
    """Adds the tab to the page."""
    begin = demo.beginning
    with gr.Tab("Classify", id="classify"):
        with gr.Row():
            with gr.Column():
                picture = picture_field(
                    label="Picture",
                    sources=["upload", "webcam", "clipboard"],
                    height=280,
                    elem_id="picture",
                )
                if begin.pictures:
                    gr.Examples(
                        [[str(path)] for path in begin.pictures],
                        inputs=[picture],
                        label="Examples",
                        examples_per_page=len(begin.pictures),
                        api_visibility="private",
                    )
            with gr.Column():
                labels = gr.Textbox(
                    "\n".join(begin.labels),
                    label="Labels, one a line",
                    lines=5,
                    max_lines=10,
                    elem_id="labels",
                )
                templates = gr.Textbox(
                    "\n".join(begin.templates),
                    label="Templates, one a line; {} stands for the label",
                    lines=1,
                    max_lines=5,
                    elem_id="templates",
                )
                button = gr.Button("Classify", variant="primary", elem_id="classify")
                bars = gr.Label(label="Probability", num_top_classes=_BARS, elem_id="bars")
                taken = gr.HTML(elem_id="classify-time")
        with gr.Accordion("Several pictures at once", open=False):
            files = pictures_field(
                demo.limits,
                height=160,
                elem_id="files",
            )
            several = gr.Button("Classify all", elem_id="classify-all")
            table = gr.Dataframe(
                label="Labels",
                interactive=False,
                wrap=True,
                datatype="str",
                buttons=[],
                elem_id="table",
            )
            link = gr.HTML(elem_id="labels-csv")

    @in_words
    def rank(path: str | None, given: str, forms: str) -> tuple[dict[str, float], str]:
        """Ranks labels for one picture."""
        from hfclip.app.answers import classify  # noqa: PLC0415  # torch; the page is shown before

        watch = Watch()
        [found] = classify(demo, [path] if path else [], given, forms, watch)
        outcome = found.outcome
        if isinstance(outcome, ImageError):
            raise outcome
        demo.times.add("classify", watch)
        return {guess.label: guess.probability for guess in outcome}, note(watch.sentence)

    @in_words
    def rank_changed(path: str | None, given: str, forms: str) -> tuple[Any, str]:
        """Ranks labels for a new picture; clears the result where the picture was removed."""
        return (None, "") if path is None else rank(path, given, forms)

    @in_words
    def rank_all(paths: list[str] | None, given: str, forms: str) -> tuple[dict[str, Any], str]:
        """Ranks labels for several pictures."""
        from hfclip.app.answers import classify, csv_of_labels, table_of  # noqa: PLC0415

        watch = Watch()
        found = classify(demo, paths or [], given, forms, watch)
        demo.times.add("classify several", watch)
        headers, rows = table_of(found)
        written = download("labels.csv", csv_of_labels(found)) + note(watch.sentence)
        return {"headers": headers, "data": rows}, written

    inputs = [picture, labels, templates]
    button.click(rank, inputs, [bars, taken], api_name="classify", **QUEUE)
    picture.change(
        rank_changed,
        inputs,
        [bars, taken],
        api_visibility="private",
        show_progress="minimal",
        **QUEUE,
    )
    several.click(
        rank_all, [files, labels, templates], [table, link], api_name="classify_all", **QUEUE
    )
