"""The tab that compares pictures with captions."""

import gradio as gr

from hfclip.app.demo import Demo
from hfclip.app.fields import QUEUE, in_words, pictures_field
from hfclip.app.markup import download, heat_map, note, problems
from hfclip.app.times import Watch


def compare_tab(demo: Demo) -> None:
    """Adds the tab to the page."""
    begin = demo.beginning
    captions = [begin.templates[0].replace("{}", label) for label in begin.labels]
    with gr.Tab("Compare", id="compare"):
        with gr.Row():
            files = pictures_field(
                demo.limits,
                height=220,
                elem_id="compare-files",
            )
            texts = gr.Textbox(
                "\n".join(captions),
                label="Captions, one a line",
                lines=6,
                max_lines=12,
                elem_id="captions",
            )
        if begin.pictures:
            gr.Examples(
                [[[str(path) for path in begin.pictures]]],
                inputs=[files],
                label="Examples",
                api_visibility="private",
            )
        button = gr.Button("Compare", variant="primary", elem_id="compare")
        result = gr.HTML(elem_id="heat")

    @in_words
    def answer(paths: list[str] | None, given: str) -> str:
        """Returns the heat map as HTML."""
        from hfclip.app.answers import compare, csv_of_cosines  # noqa: PLC0415  # imports torch

        watch = Watch()
        found = compare(demo, paths or [], given, watch)
        demo.times.add("compare", watch)
        return (
            heat_map(found)
            + problems(found.errors)
            + download("cosines.csv", csv_of_cosines(found))
            + note(watch.sentence)
        )

    button.click(answer, [files, texts], result, api_name="compare", **QUEUE)
