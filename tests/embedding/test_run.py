"""Runs of `hfclip embed`: values, second runs, shares, captions, and what is refused."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from conftest import draw
from numpy.typing import NDArray
from pictures import draw_folder, drawn, embed, live_rows, rows_of, saved
from PIL import Image
from torch.nn.functional import normalize

import hfclip
from hfclip.config import ClipConfig
from hfclip.embedding.encode import Encoder
from hfclip.embedding.manifest import read_manifest
from hfclip.embedding.options import Options, load_model_of
from hfclip.embedding.run import Planning, embed_collection
from hfclip.errors import DataError

pytest_plugins = ("digits_once",)
pytestmark = pytest.mark.usefixtures("digits_once")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "pictures", 60)


def expected(paths: list[Path], preprocess: Literal["exact", "fast"]) -> NDArray[np.float32]:
    """Returns normalised features as `hfclip.load` and `encode_image` give them."""
    model, transform = hfclip.load("digits", device="cpu", preprocess=preprocess)
    pixels = torch.stack([transform(Image.open(path)) for path in paths])
    with torch.no_grad():
        found: NDArray[np.float32] = normalize(model.encode_image(pixels), dim=-1).numpy()
    return found


@pytest.mark.parametrize(("dtype", "difference"), [("float32", 1e-6), ("float16", 1e-3)])
@pytest.mark.parametrize("preprocess", ["fast", "exact"])
def test_embeddings_are_those_of_load_and_encode_image(
    pictures: Path,
    tmp_path: Path,
    dtype: str,
    difference: float,
    preprocess: Literal["exact", "fast"],
) -> None:
    out = tmp_path / "out"
    arguments = ["--dtype", dtype, "--preprocess", preprocess, "--part-size", "25"]
    result = embed(pictures, out, *arguments)
    assert result.status == 0
    assert result.summary["embedded"] == result.summary["encoded"] == 60
    assert ("fast preprocess" in result.err) == (preprocess == "fast")
    names = sorted(pictures.iterdir())
    rows = rows_of(out)
    assert rows.keys == [str(name) for name in names]
    assert rows.widths == rows.heights == [16] * 60
    np.testing.assert_allclose(rows.embeddings.values, expected(names, preprocess), atol=difference)
    again = embed(pictures, out, *arguments)
    assert again.status == 0
    assert (again.summary["encoded"], again.summary["unchanged"]) == (0, 60)


def test_raw_embeddings_keep_their_length(pictures: Path, tmp_path: Path) -> None:
    embed(pictures, tmp_path / "out", "--raw", "--dtype", "float32")
    embed(pictures, tmp_path / "normalised", "--dtype", "float32")
    raw = rows_of(tmp_path / "out").embeddings.values
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert (np.abs(lengths - 1) > 0.01).any()
    other = rows_of(tmp_path / "normalised").embeddings.values
    np.testing.assert_allclose(raw / lengths, other, atol=1e-6)


def test_batches_do_not_cross_parts(pictures: Path, tmp_path: Path) -> None:
    sizes: list[int] = []
    collection = Options(model="digits", device="cpu", batch_size=16)
    start = Encoder.start

    def counted(self: Encoder, pixels: torch.Tensor) -> Callable[[], NDArray[np.float32]]:
        sizes.append(len(pixels))
        return start(self, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "start", counted)
        embed_collection([str(pictures)], tmp_path / "out", collection, planning=Planning(25))
    assert sizes == [16, 9, 16, 9, 10]


def test_a_second_run_encodes_exactly_what_is_new_or_changed(tmp_path: Path) -> None:
    folder, out, count = tmp_path / "pictures", tmp_path / "out", 5_000
    arguments = ["--part-size", "1000", "--model", smallest_model(tmp_path / "model")]
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count + count // 10, 8, 8), np.uint8)
    files = [b"P5 8 8 255 " + each.tobytes() for each in pixels]
    for number in range(count):
        (folder / f"{number:04}.pgm").write_bytes(files[number])
    embed(folder, out, *arguments)
    before = live_rows(out)
    twentieth = count // 20
    order = np.random.default_rng(1).permutation(count)
    changed, deleted, moved = order[: 3 * twentieth].reshape(3, twentieth).tolist()
    for place, number in enumerate(changed):
        (folder / f"{number:04}.pgm").write_bytes(files[count + place])
    for number in deleted:
        (folder / f"{number:04}.pgm").unlink()
    for number in moved:
        (folder / f"{number:04}.pgm").rename(folder / f"moved-{number:04}.pgm")
    for place in range(twentieth):
        (folder / f"new-{place}.pgm").write_bytes(files[count + twentieth + place])
    summary = embed(folder, out, *arguments).summary
    names = ("new", "changed", "deleted", "moved", "encoded", "unchanged", "inputs")
    assert [summary[name] for name in names] == [
        *(twentieth, twentieth, twentieth, twentieth, 2 * twentieth),
        *(count - 3 * twentieth, count),
    ]
    after = live_rows(out)
    assert after.keys() == {str(path) for path in folder.iterdir()}
    for number in moved:
        earlier = before[str(folder / f"{number:04}.pgm")]
        np.testing.assert_array_equal(after[str(folder / f"moved-{number:04}.pgm")], earlier)
    differ = [
        key for key in before.keys() & after.keys() if not np.array_equal(before[key], after[key])
    ]
    assert sorted(differ) == sorted(str(folder / f"{number:04}.pgm") for number in changed)
    embed(folder, tmp_path / "whole", *arguments[2:])
    whole = live_rows(tmp_path / "whole")
    assert after.keys() == whole.keys()
    found, expected = (np.stack([rows[key] for key in sorted(rows)]) for rows in (after, whole))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def smallest_model(folder: Path) -> str:
    """Saves a model of one layer and one patch of 8 x 8 pixels, for runs with many pictures."""
    model = draw(ClipConfig(16, 8, 1, 64, 8, 8, 600, 64, 1, 1))
    model.save_pretrained(folder)
    return str(folder)


def test_errors_are_tried_again_when_asked_and_the_table_goes_away(tmp_path: Path) -> None:
    folder, out = draw_folder(tmp_path / "pictures", 3), tmp_path / "out"
    (folder / "000.png").write_bytes(b"broken")
    first = embed(folder, out)
    assert (first.status, first.summary["embedded"], first.summary["errors"]) == (0, 2, 1)
    assert first.summary["errors_file"] == str(out / "errors.csv")
    assert (out / "errors.csv").read_text().splitlines() == [
        "key,error",
        f"{folder}/000.png,not a picture that Pillow can read.",
    ]
    assert embed(folder, out).summary["encoded"] == 0
    retried = embed(folder, out, "--retry-errors").summary
    assert (retried["retried"], retried["encoded"], retried["errors"]) == (1, 1, 1)
    drawn(0).save(folder / "000.png")
    mended = embed(folder, out).summary
    assert (mended["changed"], mended["encoded"], mended["errors"]) == (1, 1, 0)
    assert not (out / "errors.csv").exists()


def test_shares_in_any_order_give_the_bytes_of_the_whole(pictures: Path, tmp_path: Path) -> None:
    size = ["--part-size", "7"]
    embed(pictures, tmp_path / "whole", *size)
    out = tmp_path / "shares"
    for share, parts in ((3, [2, 5, 8]), (1, [0, 3, 6]), (2, [1, 4, 7])):
        result = embed(pictures, out, *size, "--part-of", f"{share}/3")
        assert result.status == 0
        found = {int(path.stem.removeprefix("part-")) for path in out.glob("part-*.parquet")}
        assert set(parts) <= found
        assert result.summary["encoded"] == sum(7 if part < 8 else 4 for part in parts)
        assert result.summary["pending"] == 60 - 7 * len(found) + (3 if 8 in found else 0)
    for path in (tmp_path / "whole").glob("part-*.parquet"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert embed(pictures, out, *size).summary["encoded"] == 0


def test_a_share_without_parts_is_no_failure(tmp_path: Path) -> None:
    folder, out = draw_folder(tmp_path / "pictures", 3), tmp_path / "out"
    result = embed(folder, out, "--part-of", "2/2")
    assert (result.status, result.summary["embedded"], result.summary["pending"]) == (0, 0, 3)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_another_model_or_option_in_the_same_folder_is_refused(
    pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    embed(pictures, out)
    kept = contents(out)
    model, _ = hfclip.load("digits", device="cpu")
    with torch.no_grad():
        model.visual.conv1.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "other")
    for arguments, reason in (
        (["--model", str(tmp_path / "other")], "the model is 'digits'"),
        (["--preprocess", "exact"], "preprocess is 'fast', now 'exact'"),
        (["--dtype", "float32"], "dtype is 'float16', now 'float32'"),
        (["--raw"], "normalized is True, now False"),
        (["--background", "white"], "background is None, now"),
        (["--no-auto-orient"], "auto_orient is True, now False"),
    ):
        result = embed(pictures, out, *arguments)
        assert result.status == 1
        assert reason in result.err
    assert contents(out) == kept


def test_a_source_is_dropped_only_when_asked(pictures: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", draw_folder(tmp_path / "other", 5, first=100)
    embed(pictures, out)
    refused = embed(other, out)
    assert refused.status == 1
    assert "--drop" in refused.err
    assert embed(f"{pictures}/", out).summary["unchanged"] == 60
    dropped = embed(other, out, "--drop", "--compact").summary
    assert (dropped["deleted"], dropped["new"], dropped["inputs"]) == (60, 5, 5)
    assert rows_of(out).keys == [str(path) for path in sorted(other.iterdir())]


def captions_and_vectors(out: Path) -> None:
    """Checks that each caption and its picture are in step: the caption is the picture's name."""
    rows = rows_of(out)
    model, preprocess = hfclip.load("digits", device="cpu", preprocess="fast")
    assert rows.caption_embeddings is not None
    for row, key in enumerate(rows.keys):
        caption = rows.captions[row]
        number = int(caption.removeprefix("picture ")) if caption else None
        if rows.errors[row] is not None:
            assert number in (None, 7, 23), key
            continue
        assert number is not None
        picture = hfclip.embed_images(model, preprocess, [drawn(number)])
        np.testing.assert_allclose(rows.embeddings.values[row], picture[0], atol=1e-3)
        text = hfclip.embed_texts(model, [f"picture {number}"])
        np.testing.assert_allclose(rows.caption_embeddings.values[row], text[0], atol=1e-3)


def test_captions_and_pictures_stay_in_step_in_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for number in range(40):
            files = {"png": saved(drawn(number), "PNG"), "txt": f"picture {number}".encode()}
            if number == 7:
                files["png"] = b"broken"
            if number == 11:
                del files["png"]
            for ending, content in files.items():
                info = tarfile.TarInfo(f"{number:02}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    out = tmp_path / "out"
    summary = embed(tmp_path / "shard.tar", out, "--batch-size", "4", "--part-size", "9").summary
    assert (summary["inputs"], summary["embedded"], summary["errors"]) == (40, 38, 2)
    captions_and_vectors(out)


def test_captions_and_pictures_stay_in_step_in_a_parquet_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [
        {"bytes": saved(drawn(number), "PNG"), "path": f"{number}.png"} for number in range(40)
    ]
    images[7]["bytes"] = b"broken"
    images[23] = None  # type: ignore[call-overload]
    captions = [f"picture {number}" for number in range(40)]
    table = pyarrow.table({"image": images, "caption": captions})
    parquet.write_table(table, tmp_path / "table.parquet", row_group_size=9)
    out = tmp_path / "out"
    result = embed(tmp_path / "table.parquet", out, "--batch-size", "4", "--part-size", "13")
    summary = result.summary
    assert (summary["inputs"], summary["embedded"], summary["errors"]) == (40, 38, 2)
    captions_and_vectors(out)
    none = embed(tmp_path / "table.parquet", tmp_path / "none", "--no-captions")
    assert none.status == 0
    rows = rows_of(tmp_path / "none")
    assert rows.caption_embeddings is None
    assert set(rows.captions) == {None}


def test_texts_are_embedded_and_an_empty_line_is_an_error(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a handwritten seven\n\nthe digit two\n")
    out = tmp_path / "out"
    result = embed(texts, out, "--text", "--dtype", "float32")
    assert result.status == 0
    assert "preprocess" not in result.err
    rows = rows_of(out)
    model, _ = hfclip.load("digits", device="cpu")
    found = dict(zip(rows.captions, rows.embeddings.values, strict=True))
    for text in ("a handwritten seven", "the digit two"):
        wanted = hfclip.embed_texts(model, [text])[0]
        np.testing.assert_allclose(found[text], wanted, atol=1e-6)
    assert [error is None for error in rows.errors] == [bool(text) for text in rows.captions]


def test_the_model_of_a_manifest_is_the_same_and_another_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = hfclip.load("digits", device="cpu")
    model.save_pretrained(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    options = Options(model="own", device="cpu", dtype="float32")
    embed_collection(["pictures"], Path("out"), options)
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.repository, manifest.sources) == (None, ("pictures",))
    monkeypatch.chdir("/")
    loaded = load_model_of(manifest, device="cpu")
    prepared = loaded.reader(str(pictures / "003.png"), "003.png")
    found = loaded.encoder.start(prepared.pixels[None])()
    np.testing.assert_allclose(found[0], rows_of(tmp_path / "out").embeddings.values[3], atol=1e-6)
    with torch.no_grad():
        model.visual.conv1.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "own", force=True)
    with pytest.raises(DataError, match="are not those that made the embeddings"):
        load_model_of(manifest, device="cpu")


def test_the_parts_are_a_dataset_of_the_hub(pictures: Path, tmp_path: Path) -> None:
    from pyarrow import dataset

    embed(pictures, tmp_path / "out", "--part-size", "25")
    table = dataset.dataset(sorted(map(str, (tmp_path / "out").glob("*.parquet")))).to_table()
    assert table.column_names == [
        *("key", "embedding", "error", "width", "height", "caption", "caption_embedding"),
    ]
    assert table.num_rows == 60
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["inputs"] == 60
    assert not list((tmp_path / "out").rglob("*.part"))
