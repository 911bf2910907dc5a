import io
import tarfile
from pathlib import Path

import pytest
from collection import ITEMS, write_tar

from hfclip.data.examples import Dataset, Skipped, read_dataset
from hfclip.data.tars import expand_pattern, read_class_names
from hfclip.errors import DataError

PICTURES = [item.content for item in ITEMS]


def read(path: Path | str, **options: str) -> Dataset:
    return read_dataset(path, validation=0, max_skipped=1, **options)  # type: ignore[arg-type]


def test_the_members_of_an_example_share_their_name_up_to_the_first_dot(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("x/0.1.txt", b"no caption: its ending is 1.txt"),
            ("x/0.PNG", PICTURES[0]),
            ("x.y/0.png", PICTURES[1]),
            ("x/0.txt", b"first\n"),
            ("x.y/0.txt", b"\xef\xbb\xbfsecond"),
            ("x/0.seg.png", PICTURES[2]),
        ],
    )
    found = {example.key: (example.digest, example.captions) for example in read(path).train}
    assert found == {
        "a.tar/x/0": (ITEMS[0].digest, ("first",)),
        "a.tar/x.y/0": (ITEMS[1].digest, ("second",)),
    }


def test_hostile_names_stay_text_and_links_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "in/a.tar"
    write_tar(
        path,
        [
            ("../../evil.png", PICTURES[0]),
            ("../../evil.txt", b"one"),
            ("/etc/evil.png", PICTURES[1]),
            ("/etc/evil.txt", b"two"),
        ],
    )
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = kind, "/etc/passwd"
            tar.addfile(link)
        caption = tarfile.TarInfo("link.txt")
        tar.addfile(caption, io.BytesIO())
    data = read(path)
    assert {item.key: item.captions for item in data.train} == {
        "a.tar/../../evil": ("one",),
        "a.tar//etc/evil": ("two",),
    }
    assert data.skipped == (Skipped("a.tar/link", "there is no picture"),)
    assert "a.tar: ignored 3 links and devices, such as 'link.png'." in data.notes
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "in"]


def test_unusable_examples_are_skipped_with_their_reason(tmp_path: Path) -> None:
    picture = PICTURES[0]
    members = [
        ("ok.png", picture),
        ("ok.txt", b"fine"),
        ("empty.png", picture),
        ("empty.txt", b" \n"),
        ("none.png", picture),
        ("alone.txt", b"x"),
        ("both.png", picture),
        ("both.jpg", picture),
        ("both.txt", b"x"),
        ("twice.png", picture),
        ("twice.txt", b"x"),
        ("twice.txt", b"y"),
        ("latin.png", picture),
        ("latin.txt", b"caf\xe9"),
        ("json.png", picture),
        ("json.json", b"{"),
        ("large.png", picture),
        ("large.txt", b"x" * (2**20 + 1)),
    ]
    data = read(write_tar(tmp_path / "a.tar", members))
    assert [example.key for example in data.train] == ["a.tar/ok"]
    assert {item.key.removeprefix("a.tar/"): item.reason for item in data.skipped} == {
        "empty": "the caption is empty",
        "none": "there is neither a caption (.txt, .json) nor a label (.cls, .json)",
        "alone": "there is no picture",
        "both": "there are pictures .jpg and .png; choose one with image_column",
        "twice": "two members are named 'twice.txt'",
        "latin": "its .txt is not UTF-8",
        "json": "its .json is not JSON in UTF-8",
        "large": ".txt is larger than 1,048,576 bytes",
    }


def test_columns_choose_the_ending_and_the_field(tmp_path: Path) -> None:
    fields = b'{"caption": "long", "alt_text": "short", "class": "cat"}'
    members = [("0.png", PICTURES[0]), ("0.webp", PICTURES[1]), ("0.json", fields)]
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"2 fields of \.json could hold the caption"):
        read(path, image_column="png")
    (example,) = read(path, image_column=".PNG", caption_column="alt_text").train
    assert (example.digest, example.captions, example.label) == (ITEMS[0].digest, ("short",), None)
    (example,) = read(path, image_column="webp", label_column="class").train
    assert (example.digest, example.captions, example.label) == (ITEMS[1].digest, (), "cat")


def test_a_truncated_or_damaged_tar_is_refused(tmp_path: Path) -> None:
    members = [m for n in range(5) for m in ((f"{n}.png", PICTURES[n]), (f"{n}.txt", b"x"))]
    whole = write_tar(tmp_path / "a.tar", members).read_bytes()
    path = tmp_path / "b.tar"
    for length in (1300, 2 * 512 + 100, 3 * 1024 + 500):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"truncated|damaged|no uncompressed tar"):
            read(path)
    header = 4 * 1024
    path.write_bytes(whole[:header] + b"\xff" * 300 + whole[header + 300 :])
    with pytest.raises(DataError, match="damaged near byte 4,096"):
        read(path)
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="is no uncompressed tar"):
        read(path)


def test_a_tar_without_its_final_zeros_is_read_with_a_note(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("0.png", PICTURES[0]), ("0.txt", b"x")])
    note = "a.tar has no end mark; check that it was copied to its end."
    assert note not in read(path).notes
    path.write_bytes(path.read_bytes()[: 4 * 512])
    data = read(path)
    assert [example.captions for example in data.train] == [("x",)]
    assert note in data.notes


def test_a_compressed_tar_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.txt"), io.BytesIO())
    with pytest.raises(DataError, match=r"is no uncompressed tar .*gzip -d"):
        read(path)


def test_patterns_stand_for_names(tmp_path: Path) -> None:
    names = [path.name for path in expand_pattern("d-{08..11}-{a,b}.tar")]
    assert names == [f"d-{n}-{x}.tar" for n in ("08", "09", "10", "11") for x in "ab"]
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in expand_pattern(f"{tmp_path}/*.tar")] == ["a.tar", "b.tar"]
    with pytest.raises(DataError, match="more than 100,000 files"):
        expand_pattern("{0..999999}.tar")
    with pytest.raises(DataError, match="more than 100,000 files"):
        expand_pattern("{0..999}{0..999}.tar")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a-0.tar", [("0.png", PICTURES[0]), ("0.txt", b"x")])
    with pytest.raises(DataError, match=r"a-1\.tar does not exist; .* stands for 2 files"):
        read(f"{tmp_path}/a-{{0..1}}.tar")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "cat\n dog \n\n"),
        ("classes.json", '["cat", "dog"]'),
        ("labels.json", '{"0": "cat", "1": "dog"}'),
        ("labels.json", '{"dog": 1, "cat": 0}'),
    ],
)
def test_class_names_are_read_from_the_file_beside_the_tars(
    tmp_path: Path, name: str, content: str
) -> None:
    assert read_class_names(tmp_path) is None
    (tmp_path / name).write_text(content)
    assert read_class_names(tmp_path) == ["cat", "dog"]


@pytest.mark.parametrize("content", ['{"0": "cat", "2": "dog"}', "[1, 2]", '"cat"'])
def test_class_names_with_gaps_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(DataError, match="does not name the classes 0, 1, 2"):
        read_class_names(tmp_path)
