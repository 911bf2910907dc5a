"""Fingerprints: lookups of hashes."""

import numpy as np

from hfclip.embedding import fingerprints
from hfclip.embedding.fingerprints import HASH, equal_at, positions


def hashes(*values: str) -> fingerprints.Hashes:
    return np.array(list(values), HASH)


def test_values_are_found_at_their_places() -> None:
    found = positions(hashes("c", "z", "a", "", "b"), hashes("b", "c", "a"))
    assert found.tolist() == [1, -1, 2, -1, 0]
    assert positions(hashes("a"), hashes()).tolist() == [-1]


def test_nothing_is_equal_at_no_place() -> None:
    places = np.array([1, 0, -1])
    assert equal_at(hashes("a", "x", "a"), hashes("b", "a"), places).tolist() == [
        True,
        False,
        False,
    ]
    assert equal_at(hashes("a"), hashes(), np.array([-1])).tolist() == [False]
