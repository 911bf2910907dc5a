"""The page in Debian's Chromium. Without it or playwright these tests are skipped."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from PIL import Image
from served import Page as Served
from served import served

from hfclip.app.answers import classify, compare, csv_of_labels
from hfclip.app.demo import Demo
from hfclip.app.finding import begin_search, page_of
from hfclip.app.times import Watch
from hfclip.releases import bundled_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

DIGITS = bundled_folder("digits")
# Milliseconds for an answer on a busy machine.
PATIENCE = 30_000
HOSTILE = "<img src=x onerror=window.hacked=1> ${window.hacked=2} {{window.hacked=3}}"


@pytest.fixture(scope="module")
def server(
    collection: Path, tmp_path_factory: pytest.TempPathFactory, python: Path
) -> Iterator[Served]:
    arguments = ["--embeddings", str(collection)]
    with served(tmp_path_factory.mktemp("page"), arguments, python) as page:
        yield page


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    arguments = [
        "--no-sandbox",  # the tests of a container run as root
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--process-per-site",
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: "Browser", server: Served) -> "BrowserContext":
    """Keeps the files of the page, and their compiled code, from one test to the next.

    A new context for each test takes twice the time. A page that stays open keeps the process of
    this site.
    """
    context = browser.new_context(permissions=["camera"])
    context.new_page().goto(f"{server.address}/theme.css")
    return context


@pytest.fixture(params=[1280])
def page(
    request: pytest.FixtureRequest, context: "BrowserContext", server: Served
) -> "Iterator[Page]":
    """Opens the page. At the end, checks its console and whom it has asked."""
    page = context.new_page()
    page.set_viewport_size({"width": request.param, "height": 900})
    page.emulate_media(color_scheme="dark" if request.param < 1000 else "light")
    page.set_default_timeout(PATIENCE)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.goto(server.address)
    page.wait_for_selector("#picture input[type=file]", state="attached")
    yield page
    hacked = page.evaluate("window.hacked")
    page.evaluate("localStorage.clear()")
    for opened in context.pages[1:]:
        opened.close()
    context.clear_cookies()
    others = [url for url in asked if not url.startswith((server.address, "data:", "blob:"))]
    assert (others, complaints, hacked) == ([], [], None)
    assert "Traceback" not in server.log.read_text()


def digit(word: str) -> str:
    return str(DIGITS / f"{word}.png")


def open_tab(page: "Page", name: str) -> None:
    page.get_by_role("tab", name=name).click()


def bars(page: "Page") -> list[str]:
    """Returns the labels of the bars, in order."""
    return page.locator("#bars .text").all_inner_texts()


def message(page: "Page") -> str:
    """Returns the text of the last message, and closes it."""
    toast = page.locator(".toast-body").last
    text = toast.inner_text()
    toast.locator(".toast-close").click()
    playwright.expect(page.locator(".toast-body")).to_have_count(0)
    return text


def paste(page: "Page", selector: str, text: str) -> None:
    """Fills a field with one event, as a paste does: `fill` makes two for each line."""
    page.locator(selector).evaluate(
        """(field, text) => {
            field.value = text;
            field.dispatchEvent(new InputEvent("input", {bubbles: true}));
        }""",
        text,
    )


def keys_shown(page: "Page") -> list[str]:
    """Returns the captions of the gallery without scores."""
    texts = page.locator("#results .caption-label").all_inner_texts()
    return [text.rpartition(" · ")[2] for text in texts]


def expected_keys(demo: Demo, page: int = 0, **query: object) -> list[str]:
    given = {"words": "", "picture": None, "without": "", "like": ()} | query
    search = begin_search(demo, **given, watch=Watch())  # type: ignore[arg-type]
    return [one.name for one in page_of(demo, search, page, Watch())]


def wait_for(page: "Page", selector: str, text: str) -> None:
    playwright.expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE)


def test_a_picture_is_classified_when_it_is_sent_and_again_with_other_labels(page: "Page") -> None:
    page.set_input_files("#picture input[type=file]", digit("seven"))
    wait_for(page, "#bars", "seven")
    wait_for(page, "#classify-time", "encoding the labels")
    assert bars(page)[0] == "seven"
    assert len(bars(page)) == 10
    page.fill("#labels textarea", "banana\nsevens\nnone")
    page.click("#classify")
    wait_for(page, "#bars", "banana")
    assert sorted(bars(page)) == ["banana", "none", "sevens"]


def test_an_example_is_classified_by_a_click(page: "Page") -> None:
    page.locator(".gallery-item").nth(2).click()
    wait_for(page, "#bars h2", "two")


def test_a_picture_is_pasted(page: "Page") -> None:
    content = base64.b64encode(Path(digit("four")).read_bytes()).decode()
    page.evaluate(
        """async content => {
            const bytes = await (await fetch(`data:image/png;base64,${content}`)).blob();
            Object.defineProperty(navigator, "clipboard", {value: {read: async () =>
                [{types: ["image/png"], getType: async () => bytes}]}});
        }""",
        content,
    )
    page.locator("#picture [data-testid='source-select'] button").nth(2).click()
    wait_for(page, "#bars h2", "four")


def test_a_picture_is_taken_with_the_webcam(page: "Page") -> None:
    page.locator("#picture [data-testid='source-select'] button").nth(1).click()
    page.locator("#picture").get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#picture video')?.videoWidth > 0")
    page.locator("#picture [aria-label='capture photo']").click()
    wait_for(page, "#classify-time", "encoding the pictures")
    assert len(bars(page)) == 10


def test_several_pictures_become_a_table_and_a_file(
    page: "Page", demo: Demo, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.get_by_text("Several pictures at once").click()
    paths = [digit("seven"), digit("two"), str(broken)]
    page.set_input_files("#files input[type=file]", paths)
    wait_for(page, "#files", "broken")
    page.click("#classify-all")
    wait_for(page, "#table", "not a picture that Pillow can read")
    with page.expect_download() as download:
        page.click("#labels-csv a")
    assert download.value.suggested_filename == "labels.csv"
    labels = page.input_value("#labels textarea")
    expected = csv_of_labels(classify(demo, paths, labels, "a handwritten {}", Watch()))
    assert download.value.path().read_bytes().decode() == expected


def test_words_find_pictures_in_pages(page: "Page", demo: Demo) -> None:
    open_tab(page, "Search")
    page.fill("#words input, #words textarea", "a handwritten two")
    page.click("#search")
    wait_for(page, "#summary", "results 1 to 24 of 100")
    assert keys_shown(page) == expected_keys(demo, words="a handwritten two")
    assert page.locator("#previous").is_disabled()
    page.click("#next")
    wait_for(page, "#summary", "results 25 to 48 of 100")
    assert keys_shown(page) == expected_keys(demo, 1, words="a handwritten two")
    page.click("#previous")
    wait_for(page, "#summary", "results 1 to 24 of 100")
    page.fill("#without input, #without textarea", "a handwritten one")
    page.keyboard.press("Enter")
    wait_for(page, "#summary", "without")
    expected = expected_keys(demo, words="a handwritten two", without="a handwritten one")
    assert keys_shown(page) == expected


def test_a_result_leads_to_its_file_and_to_more_like_it(
    page: "Page", demo: Demo, collection: Path
) -> None:
    open_tab(page, "Search")
    page.set_input_files("#query-picture input[type=file]", digit("seven"))
    page.fill("#words input, #words textarea", "")
    page.wait_for_selector("#query-picture img")
    page.click("#search")
    wait_for(page, "#summary", "the picture: results 1 to 24")
    assert keys_shown(page) == expected_keys(demo, picture=digit("seven"))
    assert page.locator("#like").is_disabled()
    page.locator("#results .thumbnail-item").nth(1).click()
    wait_for(page, "#chosen", "8 x 8 pixels")
    key = page.inner_text("#chosen a")
    with page.context.expect_page() as opened:
        page.click("#chosen a")
    address = opened.value.url
    with urlopen(address) as answer:  # noqa: S310  # the page of this test
        assert answer.read() == (collection.parent / key).read_bytes()
        assert answer.headers["content-type"] == "image/png"
    page.click("#like")
    wait_for(page, "#summary", f"like {key}: results 1 to 24 of 99")
    assert keys_shown(page) == expected_keys(demo, like=[key])


def test_near_duplicates_are_shown_in_groups(page: "Page") -> None:
    open_tab(page, "Search")
    page.get_by_text("Near-duplicates").click()
    smallest = page.locator("#threshold input[type=number]")
    # gradio sets fields that it has just made to their first value in the next animation frame,
    # before anybody sees them. A click waits for two frames, and fill for none.
    smallest.click()
    smallest.fill("1")
    smallest.blur()
    playwright.expect(page.locator("#threshold input[type=range]")).to_have_value("1")
    page.click("#duplicates")
    wait_for(page, "#summary", "1 groups with 1 near-duplicates")
    assert page.locator("#results .caption-label").all_inner_texts() == [
        "1 · 1.000 · 00-zero.png",
        "1 · 1.000 · 99-copy.png",
    ]


def test_pictures_and_captions_become_a_heat_map(page: "Page", demo: Demo) -> None:
    open_tab(page, "Compare")
    paths = [digit("seven"), digit("two")]
    page.set_input_files("#compare-files input[type=file]", paths)
    wait_for(page, "#compare-files", "two")
    page.fill("#captions textarea", "a handwritten seven\na handwritten two")
    page.click("#compare")
    page.wait_for_selector("#heat td[style]")
    shown = page.locator("#heat td[style]").all_inner_texts()
    found = compare(demo, paths, "a handwritten seven\na handwritten two", Watch())
    assert shown == [f"{cosine:.3f}" for cosine in found.cosines.ravel()]
    colours = page.locator("#heat td[style]").evaluate_all(
        "cells => cells.map(cell => getComputedStyle(cell).backgroundColor)"
    )
    order = found.cosines.ravel().argsort()
    assert colours[order[-1]] == "rgb(29, 78, 216)"
    assert colours[order[0]] == "rgb(239, 246, 255)"


def test_the_facts_of_the_model_and_the_times_are_shown(page: "Page", demo: Demo) -> None:
    page.click(".gallery-item >> nth=0")
    wait_for(page, "#bars h2", "zero")
    open_tab(page, "About")
    wait_for(page, "#model-facts", demo.loaded.manifest.sha256 or "")
    wait_for(page, "#collection-facts", "100")
    wait_for(page, "#times", "classify")
    assert re.search(r"classify\s+\d+\s+\d+ ms", page.inner_text("#times"))


def test_mistakes_are_answered_in_words(page: "Page", tmp_path: Path) -> None:
    page.click("#classify")
    assert "There is no picture. Choose one first." in message(page)
    page.fill("#labels textarea", " ")
    page.set_input_files("#picture input[type=file]", digit("seven"))
    assert "There is no label. Write one label a line." in message(page)
    paste(page, "#labels textarea", "\n".join(f"label {number}" for number in range(1_001)))
    page.click("#classify")
    assert "1,001 labels are too many; this page takes 1,000." in message(page)
    page.fill("#labels textarea", "a")
    page.fill("#templates textarea, #templates input", "no place")
    page.click("#classify")
    assert "has no {}" in message(page)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.fill("#templates textarea, #templates input", "a {}")
    page.click("#picture [aria-label='Remove Image'], #picture [aria-label='Clear']")
    page.set_input_files("#picture input[type=file]", str(tmp_path / "broken.png"))
    assert "broken.png: not a picture that Pillow can read." in message(page)
    open_tab(page, "Search")
    page.fill("#words input, #words textarea", " ")
    page.click("#search")
    assert "There is nothing to search. Write words, or choose a picture." in message(page)
    open_tab(page, "Compare")
    page.click("#compare")
    assert "There is no picture. Choose one first." in message(page)


def test_html_in_labels_and_names_is_shown_as_text(page: "Page", tmp_path: Path) -> None:
    page.set_input_files("#picture input[type=file]", digit("seven"))
    page.fill("#labels textarea", f"{HOSTILE}\nb")
    page.click("#classify")
    wait_for(page, "#bars", HOSTILE)
    open_tab(page, "Compare")
    named = tmp_path / "<img src=x onerror=window.hacked=1>.png"
    Image.open(digit("two")).save(named)
    page.set_input_files("#compare-files input[type=file]", [str(named), digit("two")])
    wait_for(page, "#compare-files", "two")
    page.fill("#captions textarea", HOSTILE)
    page.click("#compare")
    wait_for(page, "#heat", HOSTILE)
    open_tab(page, "Classify")
    page.fill("#labels textarea", f"{HOSTILE}\n{HOSTILE}")
    page.click("#classify")
    assert "occur more than once: <img src=x onerror" in message(page)


def test_the_page_is_used_by_keyboard_alone(page: "Page") -> None:
    page.locator("#labels textarea").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("one\ntwo")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "classify"
    page.keyboard.press("Enter")
    assert "There is no picture." in message(page)
    page.get_by_role("tab", name="Classify").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Search"
    page.keyboard.press("Enter")
    page.locator("#words input, #words textarea").focus()
    page.keyboard.press("Enter")
    wait_for(page, "#summary", "results 1 to 24")
    page.locator("#results .thumbnail-item").first.focus()
    page.keyboard.press("Enter")
    wait_for(page, "#chosen", "cosine")


@pytest.mark.parametrize("page", [390], indirect=True)
def test_the_page_fits_a_phone_in_the_dark(page: "Page") -> None:
    page.set_input_files("#picture input[type=file]", digit("seven"))
    wait_for(page, "#bars h2", "seven")
    for name in ("Classify", "Search", "Compare", "About"):
        open_tab(page, name)
        if name == "Search":
            page.click("#search")
            wait_for(page, "#summary", "results 1 to 24")
        if name == "Compare":
            page.set_input_files("#compare-files input[type=file]", [digit("two")])
            wait_for(page, "#compare-files", "two")
            page.click("#compare")
            page.wait_for_selector("#heat td[style]")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 390, name
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(level) for level in re.findall(r"\d+", colour)[:3]) < 64


def test_the_server_has_asked_no_other_host(page: "Page", server: Served) -> None:
    page.click(".gallery-item >> nth=0")
    wait_for(page, "#bars h2", "zero")
    assert server.addresses
    assert [one for one in server.addresses if "127.0.0.1" not in one] == []
