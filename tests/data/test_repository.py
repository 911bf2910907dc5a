from collections.abc import Iterator
from pathlib import Path

import pytest
from collection import ITEMS, write_table
from huggingface_hub import close_session
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

from hfclip.data.examples import Dataset, read_dataset
from hfclip.data.references import FileImage
from hfclip.errors import DataError, IntegrityError, NetworkError, RepositoryError
from hfclip.hub.fetch import Access


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        hub.add_account("me", "hf_mine")
        yield hub
    close_session()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes | Path]:
    rows = [(f"pictures/{item.name}", item.label) for item in ITEMS[:20]]
    rows.append(("../../../../secret.png", "x"))
    table = write_table(tmp_path / "metadata.csv", ("file_name", "label"), rows)
    pictures: dict[str, bytes | Path] = {f"pictures/{i.name}": i.content for i in ITEMS[:20]}
    return {"metadata.csv": table.read_bytes(), "README.md": b"# Pets\n", **pictures}


def digests(data: Dataset) -> set[str]:
    return {example.digest for example in data.train + data.validation}


def test_a_dataset_is_downloaded_at_one_commit_and_read_like_a_folder(
    hub: LoopbackHub, files: dict[str, bytes | Path]
) -> None:
    commit = hub.add_repository("datasets/me/pets", files)
    data = read_dataset("hf:me/pets", seed=4)
    assert digests(data) == {item.digest for item in ITEMS[:20]}
    assert data.notes[0] == f"Dataset me/pets at commit {commit}."
    assert [item.key for item in data.skipped] == ["metadata.csv:22"]
    assert "is outside the folder" in data.skipped[0].reason


def test_a_revision_and_a_folder_are_part_of_the_name(
    hub: LoopbackHub, files: dict[str, bytes | Path]
) -> None:
    parts: dict[str, bytes | Path] = {f"old/{name}": content for name, content in files.items()}
    old = hub.add_repository("datasets/me/pets", {**parts, "new/a.txt": b"x"})
    hub.push("datasets/me/pets", dict.fromkeys(parts))
    hub.forget_calls()
    assert len(digests(read_dataset(f"hf:me/pets/old@{old}"))) == 20
    assert not any((call.file or "").startswith("new/") for call in hub.calls)
    with pytest.raises(DataError, match="me/pets has no file or folder old"):
        read_dataset("hf:me/pets/old")


def test_a_downloaded_dataset_is_read_offline(
    hub: LoopbackHub, files: dict[str, bytes | Path]
) -> None:
    hub.add_repository("datasets/me/pets", files)
    offline = Access(local_files_only=True)
    with pytest.raises(NetworkError, match=r"not complete in the cache .* Read it once while onl"):
        read_dataset("hf:me/pets", access=offline)
    expected = read_dataset("hf:me/pets")
    hub.forget_calls()
    assert read_dataset("hf:me/pets", access=offline) == expected
    assert hub.calls == []


def test_a_private_dataset_needs_its_token(
    hub: LoopbackHub, files: dict[str, bytes | Path]
) -> None:
    hub.add_repository("datasets/me/pets", files, private=True)
    with pytest.raises(RepositoryError, match="does not exist or is private"):
        read_dataset("hf:me/pets")
    assert len(digests(read_dataset("hf:me/pets", access=Access("hf_mine")))) == 20


def test_a_damaged_file_in_the_cache_is_detected(
    hub: LoopbackHub, files: dict[str, bytes | Path]
) -> None:
    hub.add_repository("datasets/me/pets", files)
    data = read_dataset("hf:me/pets")
    image = data.train[0].image
    assert isinstance(image, FileImage)
    file = Path(image.path).resolve()
    file.write_bytes(ITEMS[30].content)
    with pytest.raises(IntegrityError, match=f"Delete {file}, then run again"):
        read_dataset("hf:me/pets")
    file.unlink()
    assert read_dataset("hf:me/pets") == data


def test_a_loading_script_is_not_executed(hub: LoopbackHub, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    script = f"open({str(mark)!r}, 'w')\n".encode()
    hub.add_repository("datasets/me/pets", {"pets.py": script, "a.txt": b"x"})
    with pytest.raises(DataError, match=r"script \(pets\.py\), which is not executed.*convert/p"):
        read_dataset("hf:me/pets")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["hf:pets", "hf:", "hf:me/../pets", "hf:/me/pets"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="names no dataset; expected hf:org/name"):
        read_dataset(name)
