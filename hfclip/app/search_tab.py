"""The tab that searches the collection."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from hfclip.app.demo import Demo
from hfclip.app.fields import QUEUE, in_words, picture_field
from hfclip.app.finding import (
    PER_PAGE,
    Found,
    NearDuplicates,
    Search,
    begin_search,
    collection_of,
    near_duplicates,
    page_of,
    thumbnails,
)
from hfclip.app.markup import chosen, note
from hfclip.app.times import Watch

# The smallest cosine of near-duplicates when the page is opened, as in `hfclip duplicates`.
_THRESHOLD = 0.97


class _Parts(NamedTuple):
    """The parts of the tab that results change.

    Attributes:
        gallery: The pictures.
        summary: What is shown, and how long it took.
        facts: The facts of the chosen picture.
        like: The button that searches for pictures like the chosen one.
        previous: The button for the page before.
        following: The button for the page after.
        search: The query, of type `Search`.
        page: The number of the page, from 0.
        shown: The results on the page, of type `list[Found]`.
        chosen: The chosen result, of type `Found`.
    """

    gallery: gr.Gallery
    summary: gr.HTML
    facts: gr.HTML
    like: gr.Button
    previous: gr.Button
    following: gr.Button
    search: gr.State
    page: gr.State
    shown: gr.State
    chosen: gr.State


def search_tab(demo: Demo) -> None:
    """Adds the tab to the page."""
    with gr.Tab("Search", id="search"):
        with gr.Row():
            with gr.Column(scale=2):
                words = gr.Textbox(
                    demo.beginning.words,
                    label=f"Words, to find in {len(collection_of(demo)):,} pictures",
                    lines=1,
                    max_lines=1,
                    elem_id="words",
                )
                without = gr.Textbox(label="Without", lines=1, max_lines=1, elem_id="without")
                go = gr.Button("Search", variant="primary", elem_id="search")
            with gr.Column(scale=1):
                picture = picture_field(
                    label="And a picture like this",
                    sources=["upload", "clipboard"],
                    height=190,
                    elem_id="query-picture",
                )
        parts = _result_parts()
        with gr.Accordion("Near-duplicates", open=False):
            threshold = gr.Slider(
                0.5, 1.0, _THRESHOLD, step=0.005, label="Smallest cosine", elem_id="threshold"
            )
            duplicates = gr.Button("Find near-duplicates", elem_id="duplicates")
    actions = _Actions(demo)
    inputs = [words, picture, without]
    go.click(actions.search, inputs, list(parts), api_name="search", **QUEUE)
    words.submit(actions.search, inputs, list(parts), api_visibility="private", **QUEUE)
    without.submit(actions.search, inputs, list(parts), api_visibility="private", **QUEUE)
    turned = [parts.search, parts.page]
    for button, turn in ((parts.previous, actions.previous), (parts.following, actions.following)):
        button.click(turn, turned, list(parts), api_visibility="private", **QUEUE)
    parts.gallery.select(
        actions.choose,
        [parts.shown],
        [parts.facts, parts.like, parts.chosen],
        api_visibility="private",
        show_progress="hidden",
    )
    parts.like.click(actions.like, [parts.chosen], list(parts), api_visibility="private", **QUEUE)
    duplicates.click(
        actions.duplicates, [threshold], list(parts), api_name="near_duplicates", **QUEUE
    )


def _result_parts() -> _Parts:
    summary = gr.HTML(elem_id="summary")
    gallery = gr.Gallery(
        label="Results",
        columns=6,
        height="auto",
        allow_preview=False,
        object_fit="contain",
        buttons=[],
        interactive=False,
        elem_id="results",
    )
    with gr.Row():
        previous = gr.Button("Previous page", interactive=False, elem_id="previous")
        following = gr.Button("Next page", interactive=False, elem_id="next")
    with gr.Row(elem_id="chosen-row"):
        facts = gr.HTML(note("Choose a picture to see its name."), elem_id="chosen")
        like = gr.Button(
            "More like this", interactive=False, scale=0, min_width=160, elem_id="like"
        )
    states = [gr.State(None), gr.State(0), gr.State([]), gr.State(None)]
    return _Parts(gallery, summary, facts, like, previous, following, *states)


class _Actions:
    """What the buttons of the tab do. Each returns new values for `_Parts`."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self.search: Callable[..., tuple[Any, ...]] = in_words(self._search)
        self.previous: Callable[..., tuple[Any, ...]] = in_words(self._previous)
        self.following: Callable[..., tuple[Any, ...]] = in_words(self._following)
        self.like: Callable[..., tuple[Any, ...]] = in_words(self._like)
        self.duplicates: Callable[..., tuple[Any, ...]] = in_words(self._duplicates)

    def _search(self, words: str, picture: str | None, without: str) -> tuple[Any, ...]:
        """Searches words, a picture, or both."""
        watch = Watch()
        search = begin_search(self._demo, words, picture, without, (), watch)
        return self._page(search, 0, watch)

    def _like(self, one: Found | None) -> tuple[Any, ...]:
        """Searches pictures like the chosen one."""
        watch = Watch()
        keys = [] if one is None else [one.key]
        return self._page(begin_search(self._demo, "", None, "", keys, watch), 0, watch)

    def _previous(self, search: Search | None, number: int) -> tuple[Any, ...]:
        return self._turned(search, number - 1)

    def _following(self, search: Search | None, number: int) -> tuple[Any, ...]:
        return self._turned(search, number + 1)

    def _turned(self, search: Search | None, number: int) -> tuple[Any, ...]:
        watch = Watch()
        search = search or begin_search(self._demo, "", None, "", (), watch)  # raises the reason
        return self._page(search, min(max(number, 0), search.pages - 1), watch)

    def _page(self, search: Search, number: int, watch: Watch) -> tuple[Any, ...]:
        found = page_of(self._demo, search, number, watch)
        begin = number * PER_PAGE
        text = (
            f"{search.words}: results {begin + 1:,} to {begin + len(found):,} of {search.count:,}"
        )
        return self._shown(found, text, watch, search, number)

    def _duplicates(self, threshold: float) -> tuple[Any, ...]:
        """Finds near-duplicates."""
        watch = Watch()
        found = near_duplicates(self._demo, threshold, watch)
        return self._shown(found.found, _described(found, threshold), watch, None, 0)

    def _shown(
        self, found: Sequence[Found], text: str, watch: Watch, search: Search | None, number: int
    ) -> tuple[Any, ...]:
        pictures = thumbnails(self._demo, found, watch)
        self._demo.times.add("near-duplicates" if search is None else "search", watch)
        gallery = [(picture, _caption(one)) for picture, one in zip(pictures, found, strict=True)]
        is_last = search is None or number + 1 >= search.pages
        values: dict[str, Any] = {  # in place of the components of the same names
            "gallery": gr.Gallery(gallery, selected_index=None),
            "summary": note(f"{text}. {watch.sentence}"),
            "facts": note("Choose a picture to see its name."),
            "like": gr.Button(interactive=False),
            "previous": gr.Button(interactive=number > 0),
            "following": gr.Button(interactive=not is_last),
            "search": search,
            "page": number,
            "shown": list(found),
            "chosen": None,
        }
        return _Parts(**values)

    def choose(
        self, shown: list[Found], event: gr.SelectData
    ) -> tuple[str, gr.Button, Found | None]:
        """Shows the facts of a picture that was clicked."""
        if not isinstance(event.index, int) or not 0 <= event.index < len(shown):
            return "", gr.Button(interactive=False), None
        one = shown[event.index]
        embeddings = collection_of(self._demo)
        size = embeddings.widths[one.row], embeddings.heights[one.row]
        facts = chosen(one, embeddings.captions[one.row], size)
        return facts, gr.Button(interactive=True), one


def _caption(found: Found) -> str:
    group = "" if found.group is None else f"{found.group} · "
    return f"{group}{found.score:.3f} · {found.name}"


def _described(found: NearDuplicates, threshold: float) -> str:
    if not found.groups:
        return f"No two pictures have a cosine of {threshold:g} or more"
    more = (
        "" if len({one.group for one in found.found}) == found.groups else " The first are shown."
    )
    return (
        f"{found.groups:,} groups with {found.members:,} near-duplicates of their first, with a "
        f"cosine of {threshold:g} or more.{more} Each caption has the number of the group"
    )
