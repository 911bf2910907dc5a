"""The same pictures in every format give the same data set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from collection import ITEMS, Items, stem, write_lines, write_pictures, write_table, write_tar

from hfclip.data.examples import Dataset, read_dataset

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Writer = Callable[[Path, Items], Path | str]


# Labels


def class_folders(folder: Path, items: Items) -> Path:
    for label in {item.label for item in items}:
        write_pictures(folder / label, [item for item in items if item.label == label])
    return folder


def labelled_csv(folder: Path, items: Items) -> Path:
    write_pictures(folder / "pictures", items)
    rows = ((f"pictures/{item.name}", item.label) for item in items)
    return write_table(folder / "table.csv", ("file", "label"), rows)


def labelled_semicolons(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    rows = ((item.label, item.name) for item in items)
    return write_table(folder / "table.csv", ("class", "image"), rows, ";")


def labelled_tsv(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    rows = ((item.name, item.label) for item in items)
    return write_table(folder / "table.tsv", ("filename", "category"), rows, "\t")


def labelled_lines(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    return write_lines(
        folder / "table.jsonl", [{"path": item.name, "label": item.label} for item in items]
    )


def labelled_json(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    rows = [{"path": item.name, "label": item.label} for item in items]
    (folder / "table.json").write_text(json.dumps(rows))
    return folder / "table.json"


def labelled_metadata(folder: Path, items: Items) -> Path:
    write_pictures(folder / "in", items)
    rows = ((f"in/{item.name}", item.label) for item in items)
    write_table(folder / "metadata.csv", ("file_name", "label"), rows)
    return folder


def labelled_structs(folder: Path, items: Items) -> Path:
    table = pa.table(
        {
            "image": [{"bytes": item.content, "path": item.name} for item in items],
            "label": [item.label for item in items],
        }
    )
    folder.mkdir()
    pq.write_table(table, folder / "table.parquet", row_group_size=7)
    return folder / "table.parquet"


def labelled_class_numbers(folder: Path, items: Items) -> Path:
    names = sorted({item.label for item in items}, reverse=True)
    features = {"label": {"names": names, "_type": "ClassLabel"}, "img": {"_type": "Image"}}
    table = pa.table(
        {
            "img": [item.content for item in items],
            "label": [names.index(item.label) for item in items],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / "data").mkdir(parents=True)
    for part, start in enumerate((0, 25)):
        shard = table.slice(start, 25 if not part else None)
        pq.write_table(shard, folder / f"data/part-{part:05}-of-00002.parquet")
    return folder


def labelled_parquet_paths(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": None, "path": item.name} for item in items],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": [item.label for item in items],
        }
    )
    pq.write_table(table, folder / "table.parquet", row_group_size=11)
    return folder


def labelled_tars(folder: Path, items: Items) -> str:
    for part in range(3):
        members = [
            member
            for item in items[part::3]
            for member in (
                (f"./{stem(item)}.cls", item.label.encode()),
                (f"./{stem(item)}.png", item.content),
            )
        ]
        write_tar(folder / f"shard-{part:03}.tar", members)
    return f"{folder}/shard-{{000..002}}.tar"


def labelled_tar_numbers(folder: Path, items: Items) -> Path:
    names = sorted({item.label for item in items}, reverse=True)
    members = [
        member
        for item in items
        for member in (
            (item.name, item.content),
            (f"{stem(item)}.cls", str(names.index(item.label)).encode()),
        )
    ]
    write_tar(folder / "all.tar", members)
    (folder / "classes.txt").write_text("\n".join(names))
    return folder


LABELLED: dict[str, Writer] = {
    writer.__name__: writer
    for writer in (
        labelled_csv,
        labelled_semicolons,
        labelled_tsv,
        labelled_lines,
        labelled_json,
        labelled_metadata,
        labelled_structs,
        labelled_class_numbers,
        labelled_parquet_paths,
        labelled_tars,
        labelled_tar_numbers,
    )
}


# Captions


def captioned_csv(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    rows = ((item.name, caption) for item in items for caption in item.captions)
    return write_table(folder / "table.csv", ("image", "caption"), rows)


def captioned_tsv_columns_swapped(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    rows = ((caption, item.name) for item in items for caption in item.captions)
    return write_table(folder / "table.tsv", ("text", "file_name"), rows, "\t")


def captioned_lines(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    rows = [{"file_name": item.name, "captions": list(item.captions)} for item in items]
    return write_lines(folder / "metadata.jsonl", rows).parent


def captioned_coco(folder: Path, items: Items) -> Path:
    write_pictures(folder / "val2017", items)
    content = {
        "images": [{"id": n, "file_name": item.name} for n, item in enumerate(items)],
        "annotations": [
            {"id": 100 * n + m, "image_id": n, "caption": caption}
            for n, item in enumerate(items)
            for m, caption in enumerate(reversed(item.captions))
        ],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations/captions_all.json").write_text(json.dumps(content))
    return folder


def captioned_parquet(folder: Path, items: Items) -> Path:
    table = pa.table(
        {
            "image": [{"bytes": item.content, "path": None} for item in items],
            "caption": [list(item.captions) for item in items],
        }
    )
    folder.mkdir()
    pq.write_table(table, folder / "table.parquet")
    return folder


def captioned_parquet_rows(folder: Path, items: Items) -> Path:
    pairs = [(item.content, caption) for item in items for caption in item.captions]
    table = pa.table({"image": [pair[0] for pair in pairs], "text": [pair[1] for pair in pairs]})
    folder.mkdir()
    pq.write_table(table, folder / "table.parquet", row_group_size=9)
    return folder / "table.parquet"


def captioned_tar(folder: Path, items: Items) -> Path:
    members = [
        member
        for item in items
        for member in (
            (f"a/{item.name}", item.content),
            (f"a/{stem(item)}.json", json.dumps({"captions": item.captions}).encode()),
        )
    ]
    return write_tar(folder / "all.tar", members)


CAPTIONED: dict[str, Writer] = {
    writer.__name__: writer
    for writer in (
        captioned_tsv_columns_swapped,
        captioned_lines,
        captioned_coco,
        captioned_parquet,
        captioned_parquet_rows,
        captioned_tar,
    )
}


def content_of(data: Dataset) -> list[Any]:
    """Returns a data set without keys, notes and references, but with the bytes of the pictures."""
    return [
        [(item.digest, item.captions, item.label, item.image.read()) for item in split]
        for split in (data.train, data.validation, data.test)
    ] + [data.labels, data.skipped]


def test_class_folders_give_every_picture_with_its_label_in_the_order_of_the_hashes(
    tmp_path: Path,
) -> None:
    data = read_dataset(class_folders(tmp_path, ITEMS), validation=0)
    expected = sorted((item.digest, (), item.label, item.content) for item in ITEMS)
    assert content_of(data) == [expected, [], [], ("7", "None", "big, dog"), ()]
    assert {example.key for example in data.train} == {f"{i.label}/{i.name}" for i in ITEMS}


def test_a_csv_gives_every_picture_with_all_its_captions(tmp_path: Path) -> None:
    data = read_dataset(captioned_csv(tmp_path, ITEMS), validation=0)
    expected = sorted((item.digest, item.captions, None, item.content) for item in ITEMS)
    assert content_of(data) == [expected, [], [], None, ()]


@pytest.mark.parametrize("name", LABELLED)
def test_every_format_with_labels_gives_the_data_set_of_class_folders(
    tmp_path: Path, name: str
) -> None:
    expected = content_of(read_dataset(class_folders(tmp_path / "folders", ITEMS), seed=3))
    found = content_of(read_dataset(LABELLED[name](tmp_path / "other", ITEMS), seed=3))
    assert found == expected
    assert found[1], "the validation split is empty"


@pytest.mark.parametrize("name", CAPTIONED)
def test_every_format_with_captions_gives_the_data_set_of_the_csv(
    tmp_path: Path, name: str
) -> None:
    expected = content_of(read_dataset(captioned_csv(tmp_path / "csv", ITEMS), seed=3))
    found = content_of(read_dataset(CAPTIONED[name](tmp_path / "other", ITEMS), seed=3))
    assert found == expected


PARTS = {"train": slice(0, 40), "val": slice(40, 50), "test": slice(50, 60)}


def split_class_folders(folder: Path, items: Items) -> Path:
    for name, part in PARTS.items():
        class_folders(folder / name, items[part])
    return folder


def split_tables(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    for name, part in PARTS.items():
        rows = ((item.name, item.label) for item in items[part])
        write_table(folder / f"{name}.csv", ("file", "label"), rows)
    return folder


def split_column(folder: Path, items: Items) -> Path:
    write_pictures(folder, items)
    rows = ((item.name, item.label, name) for name, part in PARTS.items() for item in items[part])
    return write_table(folder / "table.csv", ("file", "label", "Split"), rows)


def split_metadata(folder: Path, items: Items) -> Path:
    for name, part in PARTS.items():
        write_pictures(folder / name, items[part])
        rows = [{"file_name": item.name, "label": item.label} for item in items[part]]
        write_lines(folder / name / "metadata.jsonl", rows)
    return folder


def split_paths(folder: Path, items: Items) -> Path:
    rows = []
    for name, part in PARTS.items():
        write_pictures(folder / name, items[part])
        rows += [{"file_name": f"{name}/{i.name}", "label": i.label} for i in items[part]]
    write_lines(folder / "metadata.jsonl", rows)
    return folder


def split_parquet(folder: Path, items: Items) -> Path:
    (folder / "data").mkdir(parents=True)
    for name, part in PARTS.items():
        table = pa.table(
            {"image": [i.content for i in items[part]], "label": [i.label for i in items[part]]}
        )
        pq.write_table(table, folder / f"data/{name}-00000-of-00001.parquet")
    return folder


def split_parquet_folders(folder: Path, items: Items) -> Path:
    for name, part in PARTS.items():
        (folder / "default" / name).mkdir(parents=True)
        table = pa.table(
            {"image": [i.content for i in items[part]], "label": [i.label for i in items[part]]}
        )
        pq.write_table(table, folder / "default" / name / "0000.parquet")
    return folder


def split_tars(folder: Path, items: Items) -> str:
    for name, part in PARTS.items():
        members = [
            member
            for item in items[part]
            for member in ((item.name, item.content), (f"{stem(item)}.cls", item.label.encode()))
        ]
        write_tar(folder / f"{name}-0000.tar", members)
    return f"{folder}/*.tar"


SPLIT: tuple[Writer, ...] = (
    split_class_folders,
    split_tables,
    split_column,
    split_metadata,
    split_paths,
    split_parquet,
    split_parquet_folders,
    split_tars,
)


@pytest.mark.parametrize("write", SPLIT, ids=lambda write: write.__name__)
def test_splits_in_the_data_are_kept(tmp_path: Path, write: Writer) -> None:
    data = read_dataset(write(tmp_path / "data", ITEMS))
    for name, split in zip(PARTS, (data.train, data.validation, data.test), strict=True):
        assert [example.digest for example in split] == sorted(
            item.digest for item in ITEMS[PARTS[name]]
        )
    assert f"validation, given: {len(data.validation)} pictures, 3 classes." in data.notes


def test_coco_files_name_their_splits(tmp_path: Path) -> None:
    for name, part in (("train2017", slice(0, 50)), ("val2017", slice(50, 60))):
        captioned_coco(tmp_path / name, ITEMS[part])
        (tmp_path / name / "annotations/captions_all.json").rename(
            tmp_path / f"captions_{name}.json"
        )
        (tmp_path / name / "val2017").rename(tmp_path / f"pictures-{name}")
    data = read_dataset(tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [50, 10, 0]
    assert {item.digest for item in data.validation} == {item.digest for item in ITEMS[50:]}


def test_a_validation_split_is_divided_off_train_if_only_a_test_split_is_given(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path / "train", ITEMS[:50])
    class_folders(tmp_path / "test", ITEMS[50:])
    data = read_dataset(tmp_path)
    assert {item.digest for item in data.test} == {item.digest for item in ITEMS[50:]}
    assert len(data.train) + len(data.validation) == 50
    assert 1 <= len(data.validation) <= 15
