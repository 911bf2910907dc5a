import copyreg
import gc
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import malicious
import pytest
import torch
from conftest import SavedModel
from malicious import Described, Storage

from hfclip.checkpoints.archive import read_archive, read_legacy, read_zip
from hfclip.errors import CheckpointError, UnsafeCheckpointError

TYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool),
)
NUMBERS = torch.tensor([1.0, 2.0, 3.0, 4.0])
BYTES = NUMBERS.numpy().tobytes()

Writer = Callable[[Path, bytes], Path]
PLACES: dict[str, tuple[Writer, Callable[[Path], object]]] = {
    "archive": (malicious.write_archive, read_archive),
    "state dict": (malicious.write_state_dict, read_zip),
    "legacy": (malicious.write_legacy, read_legacy),
    "legacy, where the system is described": (
        lambda path, pickled: malicious.write_legacy(path, b"", system=pickled),
        read_legacy,
    ),
    "legacy, where the keys are listed": (
        lambda path, pickled: malicious.write_legacy(path, pickle.dumps({}, 2), tail=pickled),
        read_legacy,
    ),
    "plain pickle": (malicious.write, read_legacy),
}
TRICKS = list(malicious.system_calls(""))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Returns a file that a command would create, and registers the code for os.system."""
    copyreg.add_extension("os", "system", malicious.EXTENSION)
    yield tmp_path / "it-ran"
    copyreg.remove_extension("os", "system", malicious.EXTENSION)


@pytest.mark.parametrize("trick", TRICKS)
def test_the_malicious_pickles_run_commands_when_python_reads_them(
    trick: str, marker: Path
) -> None:
    pickled = malicious.system_calls(f"touch '{marker}'")[trick]
    try:
        _Permissive(io.BytesIO(pickled)).load()
    finally:
        assert marker.exists()


class _Permissive(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _Inert if module == "__torch__" else super().find_class(module, name)


class _Inert:
    pass


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("place", PLACES)
def test_a_pickle_that_calls_os_system_is_refused_before_it_runs(
    place: str, trick: str, tmp_path: Path, marker: Path
) -> None:
    write, read = PLACES[place]
    path = write(tmp_path / "model.pt", malicious.system_calls(f"touch '{marker}'")[trick])
    with pytest.raises(UnsafeCheckpointError, match="nothing was run") as refusal:
        read(path)
    assert str(path) in str(refusal.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "argparse.Namespace",
        "builtins.eval",
        "builtins.getattr",
        "builtins.bytearray",
        "collections.defaultdict",
        "numpy.core.multiarray.scalar",
        "torch.nn.modules.linear.Linear",
        "torch.load",
        "torch._utils._rebuild_wrapper_subclass",
        "torch.storage._load_from_bytes",
        "__torch__evil.CLIP",
    ],
)
@pytest.mark.parametrize("place", ["archive", "state dict", "legacy"])
def test_an_unlisted_name_is_refused_and_named(place: str, name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    write, read = PLACES[place]
    path = write(
        tmp_path / "model.pt", malicious.program(f"c{module}\n{attribute}\n".encode() + b")R", 2)
    )
    with pytest.raises(UnsafeCheckpointError) as refusal:
        read(path)
    assert repr(name) in str(refusal.value)
    assert "torch.save(model.state_dict(), ...)" in str(refusal.value)


def test_a_name_with_control_characters_does_not_reach_the_terminal(tmp_path: Path) -> None:
    pickled = malicious.program(malicious.text("\x1b[2J") + malicious.text("x\a") + b"\x93")
    with pytest.raises(UnsafeCheckpointError) as refusal:
        read_zip(malicious.write_state_dict(tmp_path / "model.pt", pickled))
    assert str(refusal.value).isprintable()


def test_an_archive_gives_the_tensors_that_torch_reads(saved_model: SavedModel) -> None:
    tensors = read_archive(saved_model.archive)
    with pytest.warns(FutureWarning, match="torch.jit"):
        expected = torch.jit.load(saved_model.archive).state_dict()  # type: ignore[no-untyped-call]
    assert list(tensors) == list(expected)
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def test_each_dtype_is_read_from_zip_and_legacy_files(tmp_path: Path) -> None:
    content = {str(dtype): torch.tensor([0, 1, 1], dtype=dtype) for dtype in TYPES}
    torch.save(content, tmp_path / "zip")
    torch.save(content, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    for saved in (read_zip(tmp_path / "zip"), read_legacy(tmp_path / "legacy")):
        read = {name: saved.tensor(name, view) for name, view in saved.content.items()}
        assert list(read) == list(content)
        for name, tensor in read.items():
            assert tensor.dtype == content[name].dtype
            assert torch.equal(tensor, content[name])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_and_unusual_shapes_are_read_correctly(
    protocol: int, legacy: bool, tmp_path: Path
) -> None:
    whole = torch.arange(24.0).reshape(2, 3, 4)
    content = {
        "turned": whole.permute(2, 0, 1),
        "part": whole[1, 1:, ::2],
        "same": whole,
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(whole[0]),
    }
    path = tmp_path / "model.pt"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    saved = (read_legacy if legacy else read_zip)(path)
    for name, expected in content.items():
        tensor = saved.tensor(name, saved.content[name])
        assert tensor.shape == expected.shape
        assert tensor.stride() == expected.stride()
        assert torch.equal(tensor, expected)


def test_objects_that_trainers_save_beside_weights_are_ignored(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    content = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "epoch": 3,
        "loss": 0.5,
        "names": ["a", None, True, 2**40],
        "rng": torch.get_rng_state(),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "some": {1, 2},
        "bytes": b"\x00\xff",
    }
    for legacy in (False, True):
        torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=not legacy)
        saved = (read_legacy if legacy else read_zip)(tmp_path / "a")
        weight = saved.tensor("weight", saved.content["state_dict"]["weight"])
        assert torch.equal(weight, model.weight)
        assert saved.content["names"] == ["a", None, True, 2**40]


DAMAGED = {
    "past its storage": Described(Storage(), shape=(5,)),
    "past its storage by a stride": Described(Storage(), shape=(2, 2), stride=(3, 1)),
    "past its storage by an offset": Described(Storage(), offset=1),
    "past its storage by far": Described(Storage(), shape=(2**62,), stride=(2**62,)),
    "larger than its storage": Described(Storage(), shape=(2**40,), stride=(0,)),
    "a storage longer than its record": Described(Storage(elements=5)),
    "a storage of negative length": Described(Storage(elements=-4), shape=(0,)),
    "a storage of 2 ** 63": Described(Storage(elements=2**63)),
    "a storage of no integer": Described(Storage(elements=4.0)),
    "a storage that is missing": Described(Storage(key="1")),
    "a storage outside its folder": Described(Storage(key="../data.pkl")),
    "a storage without a name": Described(Storage(key=0)),
    "a storage of a type that is none": Described(Storage(kind=torch.Size)),
    "a storage that is none": Described("0"),
    "a negative offset": Described(Storage(), offset=-1),
    "a negative stride": Described(Storage(), shape=(2,), stride=(-1,)),
    "a negative shape": Described(Storage(), shape=(-4,)),
    "a shape and no stride": Described(Storage(), stride=()),
    "a shape that is a list": Described(Storage(), shape=[4]),
    "a shape of floats": Described(Storage(), shape=(4.0,)),
    "a shape of truths": Described(Storage(), shape=(True,)),
    "a shape of texts": Described(Storage(), shape=("4",)),
    "a shape that is a tensor": Described(Storage(), shape=Described(Storage())),
    "nine dimensions": Described(Storage(), shape=(1,) * 9, stride=(1,) * 9),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("as_module", [False, True])
def test_a_tensor_beyond_its_storage_or_with_invalid_sizes_is_refused(
    as_module: bool, case: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    pickled = malicious.described({"w": DAMAGED[case]}, as_module=as_module)
    with pytest.raises(CheckpointError, match=r"damaged.*(g|G)et (it|the file) again") as refusal:
        _read_one(path, pickled, as_module)
    assert str(path) in str(refusal.value)
    sound = Described(Storage(), shape=(2, 2), stride=(2, 1))
    pickled = malicious.described({"w": sound}, as_module=as_module)
    assert torch.equal(_read_one(path, pickled, as_module), NUMBERS.reshape(2, 2))


def _read_one(path: Path, pickled: bytes, as_module: bool) -> torch.Tensor:
    if as_module:
        return read_archive(malicious.write_archive(path, pickled, _0=BYTES))["w"]
    saved = read_zip(malicious.write_state_dict(path, pickled, _0=BYTES))
    return saved.tensor("w", saved.content["w"])


@pytest.mark.parametrize("elements", [5, 2**40, -1, -(2**62)])
def test_a_legacy_storage_beyond_the_end_of_the_file_is_refused(
    elements: int, tmp_path: Path
) -> None:
    pickled = malicious.described({"w": Described(Storage())})
    tail = pickle.dumps(["0"], 2)
    count = elements.to_bytes(8, "little", signed=True)
    path = malicious.write_legacy(tmp_path / "model.pt", pickled, tail=tail + count + BYTES)
    with pytest.raises(CheckpointError, match="storage 0 reaches past the end of the file"):
        read_legacy(path)
    count = (4).to_bytes(8, "little")
    malicious.write_legacy(path, pickled, tail=tail + count + BYTES)
    assert torch.equal(_read_one_of_legacy(path), NUMBERS)


@pytest.mark.parametrize("keys", [["1"], [1], [None], [["0"]], "0", None])
def test_legacy_keys_without_a_storage_are_refused(keys: object, tmp_path: Path) -> None:
    pickled = malicious.described({"w": Described(Storage())})
    tail = pickle.dumps(keys, 2) + (4).to_bytes(8, "little") + BYTES
    path = malicious.write_legacy(tmp_path / "model.pt", pickled, tail=tail)
    with pytest.raises(CheckpointError, match=r"(G|g)et it again"):
        _read_one_of_legacy(path)


def _read_one_of_legacy(path: Path) -> torch.Tensor:
    saved = read_legacy(path)
    return saved.tensor("w", saved.content["w"])


def test_a_pickle_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    path = malicious.write(tmp_path / "model.pkl", pickle.dumps({"weights": [1.0, 2.0]}))
    with pytest.raises(CheckpointError, match=r"a pickle, but torch\.save did not write it"):
        read_legacy(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_tensors_are_refused(method: int, saved_vit: SavedModel, tmp_path: Path) -> None:
    path = malicious.rewrite(
        saved_vit.archive,
        tmp_path / "a.pt",
        # Zeros are compressed faster than weights.
        lambda name, data: bytes(len(data)) if "/data/" in name else data,
        compression=method,
    )
    with pytest.raises(CheckpointError, match=r"compressed|packed"):
        read_archive(path)


def test_an_archive_repacked_by_another_program_reads_the_same(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    path = malicious.rewrite(saved_vit.archive, tmp_path / "a.pt", lambda _, data: data)
    again = read_archive(path)
    for name, tensor in read_archive(saved_vit.archive).items():
        assert torch.equal(again[name], tensor)


@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_two_entries_with_one_name_are_refused(name: str, tmp_path: Path) -> None:
    path = malicious.write_state_dict(tmp_path / "a.pt", malicious.described({}), _0=BYTES)
    with (
        zipfile.ZipFile(path, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr(f"archive/{name}", b"other")
    with pytest.raises(CheckpointError, match="two entries of the same name"):
        read_zip(path)


def test_a_zip_without_a_pickle_is_refused(tmp_path: Path) -> None:
    path = malicious.write_zip(tmp_path / "a.zip", {"holiday.jpg": b"..."})
    with pytest.raises(CheckpointError, match="is a zip file without a"):
        read_zip(path)


@pytest.mark.parametrize(("order", "read"), [("little", True), ("big", False), ("\x1b[2J", False)])
def test_another_byte_order_is_refused(order: str, read: bool, tmp_path: Path) -> None:
    if sys.byteorder != "little":
        pytest.skip("written for the other machines")
    pickled = malicious.described({"w": Described(Storage())})
    entries = {"data.pkl": pickled, "data/0": BYTES, "byteorder": order.encode()}
    path = malicious.write_zip(tmp_path / "a.pt", entries)
    if read:
        saved = read_zip(path)
        assert torch.equal(saved.tensor("w", saved.content["w"]), NUMBERS)
    else:
        with pytest.raises(CheckpointError, match="byte order") as refusal:
            read_zip(path)
        assert str(refusal.value).isprintable()


def test_a_legacy_file_with_another_byte_order_is_refused(tmp_path: Path) -> None:
    system = pickle.dumps({"little_endian": sys.byteorder != "little"}, 2)
    path = malicious.write_legacy(tmp_path / "a.pt", pickle.dumps({}, 2), system=system)
    with pytest.raises(CheckpointError, match="byte order"):
        read_legacy(path)


@pytest.mark.parametrize(
    "body",
    [
        b"\x8f",  # a set
        b"S'text'\n",
        b"I1\n",
        b"0",
        b"2",
        b"\x96" + (2**40).to_bytes(8, "little"),  # a bytearray of a terabyte
        b"\x8d" + (2**40).to_bytes(8, "little"),
        b"\x92",
        b"\xff",
        b"",
        b"(",
        b"R",
        b"b",
        b"Q",
        b"Ns",
        b"N)R",
        b"h\x00",
        b"e",
        b"\x95" + b"\xff" * 8,
        b"X\xff\xff\xff\xff",
        b"X\x01\x00\x00\x00\xff",
        b"NN\x93",
        b"NQ",
        b"ctorch\nFloatStorage\n)R",
        b"c__torch__\nM\nN\x81",
    ],
)
def test_pickle_instructions_that_weights_do_not_need_are_refused(
    body: bytes, tmp_path: Path
) -> None:
    path = malicious.write_archive(tmp_path / "a.pt", malicious.program(body))
    with pytest.raises(CheckpointError, match="damaged or holds more than weights") as refusal:
        read_archive(path)
    assert str(path) in str(refusal.value)


BOMBS: dict[str, Callable[[], bytes]] = {
    "exponential key": malicious.exponential_key,
    "deep key": malicious.deep_key,
    "colliding keys": malicious.colliding_keys,
    "far memo": malicious.far_memo,
    "arguments copied": lambda: malicious.repeated_copies(b"h\x01h\x00R"),
    "storages copied": lambda: malicious.repeated_copies(b"h\x00Q"),
    "wrapper in itself": malicious.wrapper_in_itself,
    "module in itself": malicious.module_in_itself,
    "exponential modules": malicious.exponential_modules,
}
# Reads each file and prints the outcome, the time and the peak memory of the process.
READER = """
import resource, sys, time
from pathlib import Path
from hfclip.checkpoints.read import read_checkpoint
from hfclip.errors import CheckpointError
from hfclip.layouts.files import Source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        read_checkpoint(Source(Path(path), None, "a test"))
    except CheckpointError:
        pass
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(Path(path).name, time.process_time() - start, after - before, sep=";", flush=True)
"""


def test_files_that_would_hang_crash_or_fill_memory_are_refused_quickly(
    tmp_path: Path, python: Path
) -> None:
    paths = []
    for name, bomb in BOMBS.items():
        pickled = bomb()
        paths.append(malicious.write_archive(tmp_path / f"{name} in archive", pickled))
        paths.append(malicious.write_state_dict(tmp_path / f"{name} in state dict", pickled))
        paths.append(malicious.write_legacy(tmp_path / f"{name} in legacy", pickled))
    paths += _zip_bombs(tmp_path)
    child = subprocess.run(
        [python, "-c", READER, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
    )
    assert (child.returncode, child.stderr) == (0, "")
    told = [line.split(";") for line in child.stdout.splitlines()]
    assert [name for name, _, _ in told] == [path.name for path in paths]
    assert max(float(seconds) for _, seconds, _ in told) < 20
    assert max(int(kilobytes) for _, _, kilobytes in told) < 400_000


def _zip_bombs(folder: Path) -> list[Path]:
    honest = folder / "bomb"
    with zipfile.ZipFile(honest, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("archive/data.pkl", "w") as entry:
            entry.write(b"\x80\x02")
            for _ in range(2**9):
                entry.write(b"N" * 2**20)
        archive.writestr("archive/constants.pkl", b"")
    modest = malicious.write(folder / "bomb that claims to be small", honest.read_bytes())
    return [honest, malicious.claim_size(modest, "data.pkl", 100)]


def test_neither_reading_nor_refusing_leaves_a_file_open(
    saved_vit: SavedModel, tmp_path: Path
) -> None:
    descriptors = Path("/dev/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not list its open files")
    bad = malicious.write_archive(tmp_path / "bad.pt", malicious.exponential_key())
    gc.collect()
    before = len(list(descriptors.iterdir()))
    tensors = read_archive(saved_vit.archive)
    assert tensors["logit_scale"].item() == saved_vit.model.logit_scale.item()
    del tensors
    for path, read in ((bad, read_archive), (bad, read_legacy), (saved_vit.legacy, read_legacy)):
        try:
            read(path)
        except CheckpointError:
            continue
    gc.collect()
    assert len(list(descriptors.iterdir())) == before


SCALAR = b"cnumpy._core.multiarray\nscalar\n"
DTYPE = b"cnumpy\ndtype\n(" + malicious.text("f8") + b"\x89\x88tR"


@pytest.mark.parametrize(
    "name",
    [
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray.frombuffer",
        "numpy.core.multiarray.scalar.__class__",
        "numpy._core.multiarray.scalar.__globals__",
        "numpy.dtype.__reduce__",
        "numpy.load",
        "numpy.ndarray",
        "numpy.testing._private.utils.runstring",
        "numpyx.dtype",
    ],
)
@pytest.mark.parametrize("place", ["archive", "state dict", "legacy"])
def test_only_scalars_are_read_from_numpy(place: str, name: str, tmp_path: Path) -> None:
    for module, attribute in _splits(name):
        body = malicious.text(module) + malicious.text(attribute) + b"\x93" + DTYPE + b"\x85R"
        write, read = PLACES[place]
        with pytest.raises(UnsafeCheckpointError, match="nothing was run"):
            read(write(tmp_path / "model.pt", malicious.program(body)))


def _splits(name: str) -> list[tuple[str, str]]:
    """Returns each way to split a dotted name into a module and attributes."""
    parts = name.split(".")
    return [(".".join(parts[:at]), ".".join(parts[at:])) for at in range(1, len(parts))]


@pytest.mark.parametrize(
    "arguments",
    [
        b")",
        DTYPE + b"\x85",
        DTYPE + b"NN\x87",
        DTYPE + b"}\x86",
        DTYPE + malicious.text("bytes") + b"\x86",
        DTYPE + b"ctorch\nFloatStorage\n\x86",
        DTYPE + SCALAR + b"\x86",
        SCALAR + b"N\x86",
        malicious.text("O") + b"N\x86",
        b"]N\x86",
    ],
)
def test_scalars_in_a_form_that_numpy_does_not_write_are_refused(
    arguments: bytes, tmp_path: Path
) -> None:
    for write, read in PLACES.values():
        pickled = malicious.program(SCALAR + arguments + b"R")
        with pytest.raises(UnsafeCheckpointError, match=r"numpy\._core\.multiarray\.scalar"):
            read(write(tmp_path / "model.pt", pickled))


def test_a_numpy_dtype_with_a_state_is_not_built(tmp_path: Path, marker: Path) -> None:
    command = b"cos\nsystem\n" + malicious.text(f"touch '{marker}'") + b"\x85R"
    path = tmp_path / "model.pt"
    for body in (DTYPE + command + b"b", SCALAR + DTYPE + command + b"\x86R"):
        with pytest.raises(UnsafeCheckpointError, match=r"os\.system"):
            read_zip(malicious.write_state_dict(path, malicious.program(body)))
        assert not marker.exists()
    state = b"}" + malicious.text("__setstate__") + SCALAR + b"sb"
    read = read_zip(malicious.write_state_dict(path, malicious.program(DTYPE + state)))
    assert read.content is None


def test_entries_that_share_bytes_do_not_fill_the_memory(tmp_path: Path) -> None:
    size, count = 2**16, 40
    content = {f"w{n}": Described(Storage(key=str(n), elements=size // 4)) for n in range(count)}
    storages = {f"_{n}": bytes(size if n == 0 else 1) for n in range(count)}
    path = malicious.write_state_dict(tmp_path / "a.pt", malicious.described(content), **storages)
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.getinfo("archive/data/0")
        for entry in archive.infolist():
            if entry.filename.startswith("archive/data/"):
                entry.header_offset, entry.file_size = first.header_offset, first.file_size
                entry.compress_size = first.compress_size
        archive.comment = b"rewritten"  # makes zipfile write the directory again
    with pytest.raises(CheckpointError, match=r"entries that overlap"):
        read_zip(path)
