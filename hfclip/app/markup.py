"""Writes the HTML of results. Text from visitors, labels and file names is always escaped."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from PIL import Image, ImageOps

from hfclip.app.finding import Found
from hfclip.app.times import Row, in_words
from hfclip.errors import HfclipError, ImageError
from hfclip.images.reading import open_picture

if TYPE_CHECKING:
    from hfclip.app.answers import Comparison

PICTURES = "pictures"
"""The path of the collection's pictures on the page's server."""

# The colours of the lowest and the highest cosine of a heat map.
_COLD, _HOT = (239, 246, 255), (29, 78, 216)
# Black text is easier to read than white on colours brighter than this: WCAG 2.1's relative
# luminance at which both have the same contrast.
_BRIGHT = 0.179
# Pixels of the pictures beside a heat map.
_SIDE = 96


def escaped(text: str) -> str:
    """Returns a text as HTML. Bytes of a file name that are not UTF-8 become question marks."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def note(text: str) -> str:
    """Returns a line below a result."""
    return f'<p class="note">{escaped(text)}</p>'


def problems(errors: Sequence[HfclipError]) -> str:
    """Returns a list of errors, or nothing."""
    lines = "".join(f"<li>{escaped(str(error))}</li>" for error in errors)
    return f'<ul class="problems">{lines}</ul>' if lines else ""


def download(name: str, content: str) -> str:
    """Returns a link that saves a CSV file. Its content is in the link itself."""
    data = base64.b64encode(content.encode("utf-8", "replace")).decode()
    return (
        f'<a class="download" download="{escaped(name)}" '
        f'href="data:text/csv;charset=utf-8;base64,{data}">Download {escaped(name)}</a>'
    )


def heat_map(comparison: "Comparison") -> str:
    """Returns a table of cosines with a colour for each, between the lowest and the highest."""
    head = "".join(f'<th scope="col">{escaped(text)}</th>' for text in comparison.captions)
    low, high = float(comparison.cosines.min()), float(comparison.cosines.max())
    rows = "".join(
        f'<tr><th scope="row">{_picture(path, name)}<span>{escaped(name)}</span></th>'
        + "".join(_cell(cosine, low, high) for cosine in cosines)
        + "</tr>"
        for name, path, cosines in zip(
            comparison.names, comparison.paths, comparison.cosines.tolist(), strict=True
        )
    )
    return (
        '<div class="heat" tabindex="0" role="region" aria-label="Heat map"><table>'
        "<caption>Cosine similarity of each picture and caption</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def facts(values: Mapping[str, str]) -> str:
    """Returns a table of facts."""
    rows = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td>{escaped(value)}</td></tr>'
        for name, value in values.items()
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def answer_times(rows: Sequence[Row]) -> str:
    """Returns a table of the times of the last answers."""
    if not rows:
        return note("No answer yet.")
    body = "".join(
        f'<tr><th scope="row">{escaped(row.kind)}</th><td>{row.number:,}</td>'
        f"<td>{in_words(row.median)}</td><td>{in_words(row.longest)}</td></tr>"
        for row in rows
    )
    return (
        '<table class="facts"><thead><tr><th scope="col">answer</th><th scope="col">number</th>'
        '<th scope="col">median</th><th scope="col">longest</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def chosen(found: Found, caption: str | None, size: tuple[int | None, int | None]) -> str:
    """Returns the facts of a chosen result, with a link to its picture."""
    link = f"{PICTURES}?key={quote(found.key, safe='')}"
    shown = f" · {size[0]:,} x {size[1]:,} pixels" if size[0] and size[1] else ""
    text = f"<br>{escaped(caption)}" if caption else ""
    return (
        f'<p class="chosen"><a href="{escaped(link)}" target="_blank" rel="noopener">'
        f"{escaped(found.key)}</a><br>cosine {found.score:.4f}{shown}{text}</p>"
    )


def _cell(cosine: float, low: float, high: float) -> str:
    share = (cosine - low) / (high - low) if high > low else 0.5
    colour = [round(a + share * (b - a)) for a, b in zip(_COLD, _HOT, strict=True)]
    ink = "#000" if _luminance(colour) > _BRIGHT else "#fff"
    shown = ",".join(map(str, colour))
    return f'<td style="background:rgb({shown});color:{ink}">{cosine:.3f}</td>'


def _luminance(colour: Sequence[int]) -> float:
    """Returns the relative luminance of an sRGB colour, as WCAG 2.1 defines it."""
    shares = [level / 255 for level in colour]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _picture(path: str, name: str) -> str:
    """Returns a small picture whose bytes are in the HTML."""
    try:
        with open_picture(path, name=name) as image:
            small = ImageOps.contain(image.convert("RGB"), (_SIDE, _SIDE), Image.Resampling.LANCZOS)
    except ImageError:
        return ""
    file = io.BytesIO()
    small.save(file, "WEBP", quality=80)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" src="data:image/webp;base64,{data}">'
