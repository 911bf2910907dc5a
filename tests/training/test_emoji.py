"""Pictures with captions of their own: the emoji of Debian's Noto font with their Unicode names."""

import csv
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from hfclip.config import ClipConfig
from hfclip.model import CLIP
from hfclip.training.run import finetune

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SIZE = 109  # the only size of the pictures in the font
# The base knows no emoji, as `digits`, and a step takes a third of the time.
BASE = ClipConfig(64, 32, 2, 64, 16, 77, 49408, 64, 1, 2)

pytestmark = pytest.mark.skipif(
    not FONT.exists(), reason="Debian's package fonts-noto-color-emoji is not installed"
)


def draw_emoji(folder: Path) -> Path:
    """Draws each emoji that has a name and a picture, and returns the table of captions."""
    font = ImageFont.truetype(FONT, SIZE)
    folder.mkdir()
    with (folder / "captions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for code in (*range(0x2600, 0x27C0), *range(0x1F300, 0x1FB00)):
            name = unicodedata.name(chr(code), "")
            if not name:
                continue
            image = Image.new("RGB", (136, 128), "white")
            ImageDraw.Draw(image).text((0, 0), chr(code), font=font, embedded_color=True)
            if image.getextrema() == ((255, 255),) * 3:
                continue
            image.resize((34, 32)).save(folder / f"{code:x}.png")
            table.writerow([f"{code:x}.png", name.lower()])
    return folder / "captions.csv"


def test_a_fine_tune_finds_emoji_that_it_has_not_seen(tmp_path: Path, no_curves: None) -> None:
    table = draw_emoji(tmp_path / "emoji")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIP(**BASE.to_dict()).eval().save_pretrained(tmp_path / "base")
    done = finetune(
        table,
        tmp_path / "base",
        tmp_path / "out",
        device="cpu",
        lr=2e-3,
        epochs=12,
        batch_size=64,
        validation=0.2,
        mix=False,
    )
    before, after = done.results.before.own, done.results.tuned.own
    assert 200 < before.count < 320
    assert before.image_to_text[10] < 0.08
    assert (after.image_to_text[10] + after.text_to_image[10]) / 2 >= 0.12
