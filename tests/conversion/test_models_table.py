"""The page of models is generated, and agrees with what hfclip does."""

import re
from pathlib import Path

import open_clip
import pytest
from click.testing import CliRunner

from conversion import models_table
from hfclip.layouts.kinds import KINDS

VERSION = open_clip.__version__


def page() -> str:
    return models_table.PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(f"open_clip {VERSION} " not in page(), reason="another open_clip is installed")
def test_the_generated_page_equals_the_stored_one() -> None:
    assert models_table.render() == page()


def test_the_page_has_every_entry_of_open_clip_and_twenty_repositories_of_transformers() -> None:
    rows = [re.split(r" *\| *", line)[1:-1] for line in models_table.render().splitlines()
            if line.startswith("| ")]  # fmt: skip
    entries = [tuple(row[:2]) for row in rows if len(row) == 5 and row[3] in {"yes", "no"}]
    assert entries == open_clip.list_pretrained()
    repositories = {row[0].strip("`"): row[1] for row in rows if len(row) == 3}
    assert {name: repositories[name] for name in ANSWERS} == ANSWERS
    assert len(ANSWERS) == len(models_table.TRANSFORMERS) == 20
    assert {row[0].strip("`") for row in rows if len(row) == 4} >= KINDS.keys()


ANSWERS = {
    "openai/clip-vit-base-patch32": "yes",
    "openai/clip-vit-base-patch16": "yes",
    "openai/clip-vit-large-patch14": "yes",
    "openai/clip-vit-large-patch14-336": "yes",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "yes",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": "yes",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "yes",
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": "yes",
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": "yes",
    "patrickjohncyh/fashion-clip": "yes",
    "flax-community/clip-rsicd-v2": "yes",
    "zer0int/CLIP-GmP-ViT-L-14": "yes",
    "facebook/metaclip-b32-400m": "yes",
    "facebook/metaclip-2-worldwide-huge-quickgelu": "no",
    "google/siglip-base-patch16-224": "no",
    "google/siglip2-base-patch16-naflex": "no",
    "OFA-Sys/chinese-clip-vit-base-patch16": "no",
    "BAAI/AltCLIP": "no",
    "kakaobrain/align-base": "no",
    "CIDAS/clipseg-rd64-refined": "no",
}


def test_each_refusal_on_the_page_says_why() -> None:
    for row in [*models_table.open_clip_rows(), *models_table.transformers_rows()]:
        assert bool(row.config) != bool(row.reason), row
        assert row.config or ", but in hfclip " in row.reason, row
        assert "|" not in row.facts, row


def test_a_different_page_is_reported_and_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_table, "PAGE", tmp_path / "models.md")
    assert CliRunner().invoke(models_table.main).exit_code == 0
    assert CliRunner().invoke(models_table.main, ["--check"]).exit_code == 0
    (tmp_path / "models.md").write_text("changed")
    result = CliRunner().invoke(models_table.main, ["--check"])
    assert (result.exit_code, result.output) == (1, "models.md differs\n")
    assert (tmp_path / "models.md").read_text() == "changed"
