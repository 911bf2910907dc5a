"""Damaged files give a valid model or an HfclipError."""

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import malicious
import pytest
from conftest import TINY_VIT, SavedModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hfclip.checkpoints.read import read_checkpoint
from hfclip.config import ClipConfig
from hfclip.errors import ConfigError, HfclipError
from hfclip.layouts.files import Source
from hfclip.model import CLIP

Edit = tuple[str, int, bytes]

# The same examples in every run, without a time limit, because machines may be busy.
FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "insert", "delete", "copy", "cut"]),
        st.integers(0, 2**16),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model"


def edited(data: bytes, edits: list[Edit], start: int = 0, end: int | None = None) -> bytes:
    """Applies the edits in order, each between start and end."""
    for kind, place, value in edits:
        at = start + place % max(1, min(end or len(data), len(data)) - start)
        size = value[0]
        flipped = bytes([data[at] ^ (1 << size % 8)]) if at < len(data) else b""
        # The bytes to put there, and where the old ones continue.
        added, after = {
            "flip": (flipped, at + 1),
            "set": (value, at + len(value)),
            "insert": (value, at),
            "delete": (b"", at + size),
            "copy": (data[start : start + size], at),
            "cut": (b"", len(data) if size % 4 == 0 else at),
        }[kind]
        data = b"".join((data[:at], added, data[after:]))
    return data


def outcome(path: Path) -> str:
    """Reads a file and builds its model; returns 'model' or the kind of error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = CLIP.from_checkpoint(read_checkpoint(Source(path, None, "a test")))
        except HfclipError as error:
            return refusal(path, error)
    assert model.config.parameter_count == sum(p.numel() for p in model.parameters())
    return "model"


def refusal(path: Path, error: HfclipError) -> str:
    """Checks that an error names the file and is short, and returns its kind."""
    assert str(path) in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 2_000
    return type(error).__name__


def fuzz(strategy: st.SearchStrategy[Any], attempt: Callable[[Any], str]) -> Counter[str]:
    """Runs every attempt and counts the outcomes."""
    outcomes: Counter[str] = Counter()

    @FUZZ
    @given(strategy)
    def run(case: Any) -> None:
        outcomes[attempt(case)] += 1

    run()
    return outcomes


def test_random_bytes_are_refused_after_any_header(scratch: Path) -> None:
    beginnings = st.sampled_from(
        [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95", b"\x10" + bytes(7) + b'{"']
    )

    def attempt(case: tuple[bytes, bytes]) -> str:
        return outcome(malicious.write(scratch, case[0] + case[1]))

    assert set(fuzz(st.tuples(beginnings, st.binary(max_size=400)), attempt)) <= {
        "CheckpointError",
        "UnsafeCheckpointError",
    }


@pytest.mark.parametrize("name", ["model.safetensors", "state_dict.pt", "legacy.pt", "archive.pt"])
def test_a_file_edited_anywhere_gives_a_model_or_a_refusal(
    name: str, saved_vit: SavedModel, scratch: Path
) -> None:
    data = saved_vit.file(name).read_bytes()
    # Half of the edits change the header or pickle. Changes of tensor bytes may stay unnoticed.
    at_start = name in {"model.safetensors", "legacy.pt"}
    ends = (0, 6_000) if at_start else (len(data) - 6_000, len(data))

    def attempt(case: tuple[list[Edit], bool]) -> str:
        edits, anywhere = case
        changed = edited(data, edits) if anywhere else edited(data, edits, *ends)
        return outcome(malicious.write(scratch, changed))

    outcomes = fuzz(st.tuples(EDITS, st.booleans()), attempt)
    assert outcomes["model"] > 0
    assert outcomes["CheckpointError"] > 0


@pytest.mark.parametrize("name", ["state_dict.pt", "archive.pt"])
def test_an_edited_pickle_with_a_right_checksum_gives_a_model_or_a_refusal(
    name: str, saved_vit: SavedModel, scratch: Path
) -> None:
    rest, entry, pickled = malicious.without_pickle(saved_vit.file(name))

    def attempt(edits: list[Edit]) -> str:
        return outcome(malicious.write_with(scratch, rest, entry, edited(pickled, edits)))

    outcomes = fuzz(EDITS, attempt)
    assert outcomes["CheckpointError"] > 0
    assert outcomes["WeightsMismatchError"] + outcomes["model"] > 0


# Instructions of torch's pickles, and some that such pickles must not contain.
PIECES = [
    *(b"N", b"\x88", b"(", b"t", b"l", b"d", b"o", b"0", b"1", b"2", b")", b"]", b"}", b"\x8f"),
    *(b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"R", b"\x81", b"\x92", b"b", b"Q"),
    *(b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"r\xff\xff\xff\x7f", b"\x94", b"\x93", b"."),
    *(b"\x82\xf0", b"\x95\x08\0\0\0\0\0\0\0", b"\x96\xff\xff\xff\x7f\0\0\0\0", b"P0\n", b"I01\n"),
    *(b"K\x01", b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 8 + b"\x7f", b"G\x7f\xf8" + bytes(6)),
    *(b"X\x01\0\0\0w", malicious.text("storage"), malicious.text("0"), malicious.text("cpu")),
    *(b"c__torch__\nM\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n"),
    *(b"ctorch\nSize\n", b"cbuiltins\nset\n", b"cos\nsystem\n", b"ios\nsystem\n"),
    *(malicious.described(malicious.Storage())[2:-1], malicious.text("state_dict")),
    malicious.described(malicious.Described(malicious.Storage()))[2:-1],
]


@pytest.mark.parametrize(
    "write", [malicious.write_archive, malicious.write_state_dict, malicious.write_legacy]
)
def test_random_pickle_programs_are_refused(
    write: Callable[[Path, bytes], Path], scratch: Path
) -> None:
    programs = st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join)

    def attempt(body: bytes) -> str:
        return outcome(write(scratch, malicious.program(body, 2)))

    assert set(fuzz(programs, attempt)) == {
        "CheckpointError",
        "UnsafeCheckpointError",
    }


def test_names_and_shapes_of_any_kind_give_a_model_or_a_refusal(
    saved_vit: SavedModel, scratch: Path
) -> None:
    weights = saved_vit.model.state_dict()
    names = st.sampled_from(sorted(weights))
    shapes = st.lists(st.integers(0, 70), max_size=4)

    def attempt(cases: list[tuple[str, list[int]]]) -> str:
        changed = {name: weights[name].new_zeros(shape) for name, shape in cases}
        save_file({**weights, **changed}, scratch)
        return outcome(scratch)

    outcomes = fuzz(st.lists(st.tuples(names, shapes), max_size=2), attempt)
    assert set(outcomes) == {"model", "WeightsMismatchError"}


# The default alphabet, that of UTF-8, by category: hypothesis would encode every character for it.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(1, 100)
    | st.floats()
    | TEXT
    | st.sampled_from(["gelu", 10**400, 2**63, -1, 1e308]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(st.integers(1, 9), min_size=4, max_size=4)
        | st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=9,
)


def config_outcome(path: Path) -> str:
    """Reads a config.json; returns 'config' or the kind of error."""
    try:
        config = ClipConfig.from_json(path)
    except ConfigError as error:
        return refusal(path, error)
    assert 0 < 4 * config.parameter_count <= 32 * 2**30
    assert ClipConfig.from_dict(config.to_dict()) == config
    return "config"


def test_a_config_with_values_of_any_kind_is_valid_or_refused(scratch: Path) -> None:
    keys = st.sampled_from([*TINY_VIT.to_dict(), "model_type", "extra"])

    def attempt(changes: dict[str, object]) -> str:
        text = json.dumps({**TINY_VIT.to_dict(), **changes})
        return config_outcome(malicious.write(scratch, text.encode()))

    outcomes = fuzz(st.dictionaries(keys, JSON, max_size=3), attempt)
    assert set(outcomes) == {"config", "ConfigError"}


def test_any_json_and_any_bytes_are_refused_as_a_config(scratch: Path) -> None:
    texts = JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)

    def attempt(data: bytes) -> str:
        return config_outcome(malicious.write(scratch, data))

    assert set(fuzz(texts, attempt)) == {"ConfigError"}


def test_an_edited_config_is_valid_or_refused(scratch: Path) -> None:
    data = json.dumps(TINY_VIT.to_dict()).encode()

    def attempt(edits: list[Edit]) -> str:
        return config_outcome(malicious.write(scratch, edited(data, edits)))

    assert set(fuzz(EDITS, attempt)) == {"config", "ConfigError"}
