"""Takes the screenshots of `hfclip app` from a running page: `python docs/screenshots.py`.

It embeds scikit-learn's handwritten digits with the bundled model, serves the page and drives it
with Debian's Chromium. It needs `pip install -e ".[dev]"` and `apt-get install chromium`.
"""

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import expect, sync_playwright
from sklearn.datasets import load_digits

from hfclip.app.demo import open_demo
from hfclip.app.serve import serve
from hfclip.embedding.options import Options
from hfclip.embedding.run import embed_collection
from hfclip.releases import bundled_folder

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path(__file__).parent / "pages/pictures"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The widths of a desk and a phone, in pixels, with the heights of the pictures.
SIZES = {1280: 860, 390: 844}
# Milliseconds for an answer on a busy machine.
_PATIENCE = 30_000
_DIGITS = bundled_folder("digits")


def classify(page: "Page") -> None:
    """Classifies an example."""
    page.locator(".gallery-item").nth(7).click()
    expect(page.locator("#bars h2")).to_have_text("seven")
    expect(page.locator("#classify-time")).to_contain_text("ms")


def search(page: "Page") -> None:
    """Searches words and chooses a result."""
    page.get_by_role("tab", name="Search").click()
    page.click("#search")
    expect(page.locator("#summary")).to_contain_text("results 1 to 24")
    page.locator("#results .thumbnail-item").nth(1).click()
    expect(page.locator("#chosen")).to_contain_text("cosine")
    page.locator("#summary").scroll_into_view_if_needed()


def compare(page: "Page") -> None:
    """Compares three digits with the captions of ten."""
    page.get_by_role("tab", name="Compare").click()
    paths = [str(_DIGITS / f"{word}.png") for word in ("seven", "two", "zero")]
    page.set_input_files("#compare-files input[type=file]", paths)
    expect(page.locator("#compare-files")).to_contain_text("zero")
    page.click("#compare")
    expect(page.locator("#heat td[style]")).to_have_count(30)
    page.locator("#heat .note").scroll_into_view_if_needed()


def about(page: "Page") -> None:
    """Shows the facts."""
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#times")).to_contain_text("classify")


TABS: dict[str, Callable[["Page"], None]] = {
    "classify": classify,
    "search": search,
    "compare": compare,
    "about": about,
}


def collection(folder: Path) -> Path:
    """Embeds the digits in a new folder and returns the collection."""
    (folder / "digits").mkdir()
    data = load_digits()
    for number, (pixels, target) in enumerate(zip(data.images, data.target, strict=True)):
        image = Image.fromarray((pixels * 255 / 16).round().astype("uint8"))
        image.save(folder / "digits" / f"{number:04}-{WORDS[target]}.png")
    earlier = Path.cwd()
    os.chdir(folder)  # the keys begin with "digits/"
    try:
        embed_collection(["digits"], folder / "digits-embedded", Options("digits", device="cpu"))
    finally:
        os.chdir(earlier)
    return folder / "digits-embedded"


def write(picture: bytes, path: Path) -> None:
    """Writes a screenshot as PNG with a palette, a third of the size."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256)
    image.save(path, optimize=True)


def main() -> None:
    """Takes a screenshot of each tab in each width."""
    FOLDER.mkdir(exist_ok=True)
    expect.set_options(timeout=_PATIENCE)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        served = serve(open_demo(embeddings=collection(Path(folder)), device="cpu"))
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for width, height in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(served.address)
            for name, show in TABS.items():
                show(page)
                page.wait_for_timeout(1_000)  # messages fade, pictures load
                write(page.screenshot(), FOLDER / f"app-{name}-{width}.png")
        browser.close()
        served.close()


if __name__ == "__main__":
    main()
