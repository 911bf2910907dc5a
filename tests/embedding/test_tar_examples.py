import pytest
from places import Place, listed, seen, tar

from hfclip.data.references import TarImage
from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

MEMBERS = [
    ("b.jpg", b"B"),
    ("b.txt", b" second \n"),
    ("x/a.png", b"AA"),
    ("x/a.json", b'{"caption": "first", "text": "other", "id": 7}'),
    ("none.jpg", b"C"),
]


def test_examples_keep_the_order_of_the_tar(place: Place) -> None:
    source = place.write("d/s.tar", tar(MEMBERS))
    assert seen(source) == [
        (f"{source}/b", b"B", "second"),
        (f"{source}/x/a", b"AA", "first"),
        (f"{source}/none", b"C", None),
    ]
    items = listed(source)
    assert [item.size for item in items] == [1, 2, 1]
    assert len({item.mtime_ns for item in items}) == 1
    image = items[0].image
    assert isinstance(image, TarImage)
    assert (image.offset, image.size) == (512, 1)


def test_a_caption_or_key_can_be_chosen_or_left_out(place: Place) -> None:
    source = place.write("s.tar", tar(MEMBERS[2:4]))
    other = Listing(caption_column="text", key_column="id")
    assert seen(source, listing=other) == [("7", b"AA", "other")]
    assert seen(source, listing=Listing(captions=False)) == [(f"{source}/x/a", b"AA", None)]
    source = place.write("t.tar", tar([("a.png", b"A"), ("a.json", b'{"alt": "x", "title": "y"}')]))
    with pytest.raises(DataError, match=r"2 columns could hold the captions: 'alt', 'title'"):
        listed(source)


def test_broken_examples_in_the_middle_leave_captions_and_pictures_in_step(place: Place) -> None:
    members = [
        *[("0.jpg", b"zero"), ("0.txt", b"the zero")],
        *[("1.txt", b"no picture")],
        *[("2.jpg", b"two"), ("2.txt", b"caf\xe9")],
        *[("3.jpg", b"three"), ("3.json", b"{broken")],
        *[("4.jpg", b"four"), ("4.png", b"vier"), ("4.txt", b"the four")],
        *[("5.txt", b"the five"), ("5.jpg", b"five")],
        *[("6.jpg", b"six"), ("6.jpg", b"six again"), ("6.txt", b"the six")],
        *[("7.jpg", b"seven"), ("7.txt", b"the seven")],
    ]
    source = place.write("s.tar", tar(members))
    assert seen(source) == [
        (f"{source}/0", b"zero", "the zero"),
        (f"{source}/1", "there is no picture", None),
        (f"{source}/2", "its .txt is not UTF-8", None),
        (f"{source}/3", "its .json is not JSON in UTF-8", None),
        (f"{source}/4", "there are pictures .jpg and .png; choose one with image_column", None),
        (f"{source}/5", b"five", "the five"),
        (f"{source}/6", "two members are named '6.jpg'", None),
        (f"{source}/7", b"seven", "the seven"),
    ]
    assert seen(source, listing=Listing(image_column=".png"))[4] == (
        f"{source}/4",
        b"vier",
        "the four",
    )


def test_a_tar_that_is_cut_gives_what_stands_before_and_one_error(place: Place) -> None:
    content = tar([("0.jpg", b"zero"), ("0.txt", b"cap"), ("1.jpg", b"x" * 5000), ("2.jpg", b"2")])
    source = place.write("s.tar", content[:4000])
    at = source if place.kind == "memory" else str(place.folder / "s.tar")
    assert seen(source) == [
        (f"{source}/0", b"zero", "cap"),
        (source, f"{at} is truncated in '1.jpg'. Copy it again.", None),
    ]
    damaged = bytearray(content)
    damaged[2048 : 2048 + 512] = b"\xff" * 512
    source = place.write("t.tar", bytes(damaged))
    assert [key for key, _, _ in seen(source)] == [f"{source}/0", source]
    assert "is damaged" in str(seen(source)[-1][1])


def test_a_damaged_tar_among_others_is_one_error_and_alone_is_refused(place: Place) -> None:
    place.write("s-000.tar", tar([("0.jpg", b"zero")]))
    bad = place.write("s-001.tar", b"\x1f\x8bcompressed" * 100)
    place.write("s-002.tar", tar([("0.jpg", b"two")]))
    for pattern in ("s-{000..002}.tar", "s-*.tar"):
        found = seen(place.name(pattern))
        assert [key for key, _, _ in found] == [
            place.name("s-000.tar/0"),
            bad,
            place.name("s-002.tar/0"),
        ]
        assert "is no uncompressed tar" in str(found[1][1])
        assert found[2][1] == b"two"
    for sources in ([bad], [bad, bad]):
        with pytest.raises(DataError, match=r"s-001\.tar is no uncompressed tar"):
            listed(*sources)
