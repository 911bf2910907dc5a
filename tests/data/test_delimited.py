from pathlib import Path

import pytest

from hfclip.data.delimited import read_delimited
from hfclip.errors import DataError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def cells(path: Path) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for _, row in read_delimited(path).rows]


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("file,caption\na.jpg,one; two\nb.jpg,three; four\n", "comma"),
        ("file\tcaption\na.jpg\tone, two\nb.jpg\tthree, four\n", "tab"),
        ("file;caption\na.jpg;one, two\nb.jpg;three, four\n", "semicolon"),
        ("file|caption\na.jpg|one, two\nb.jpg|three, four\n", "bar"),
    ],
)
def test_the_delimiter_is_found_and_noted(table: Path, content: str, delimiter: str) -> None:
    table.write_text(content)
    found = read_delimited(table)
    assert found.note == f"table.csv: delimiter {delimiter}"
    assert found.names == ("file", "caption")
    mark = ";" if delimiter == "comma" else ","
    assert cells(table) == [("a.jpg", f"one{mark} two"), ("b.jpg", f"three{mark} four")]


def test_none_na_null_and_numbers_stay_text(table: Path) -> None:
    table.write_text("file,label\na.jpg,None\nb.jpg,NA\nc.jpg,null\nd.jpg,007\ne.jpg,1.0\nf.jpg,\n")
    labels = [row[1] for row in cells(table)]
    assert labels == ["None", "NA", "null", "007", "1.0", ""]


def test_quoted_commas_quotes_and_line_breaks_stay_in_their_cell(table: Path) -> None:
    table.write_bytes(
        b'file,caption\r\na.jpg,"a dog, a ""big"" one"\r\nb.jpg,"two\r\nlines"\r\n'
        b'c.jpg,a 5" pipe\r\n'
    )
    assert [row[1] for row in cells(table)] == ['a dog, a "big" one', "two\r\nlines", 'a 5" pipe']
    assert [line for line, _ in read_delimited(table).rows] == [2, 3, 5]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(table: Path, encoding: str) -> None:
    table.write_text("file,caption\na.jpg,café\n", encoding=encoding)
    assert read_delimited(table).rows == [(2, {"file": "a.jpg", "caption": "café"})]


def test_quotation_marks_that_are_not_closed_are_text_if_every_row_then_fits(table: Path) -> None:
    table.write_text('file\tcaption\na.jpg\t"hello\nb.jpg\tworld\n')
    found = read_delimited(table)
    assert [row["caption"] for _, row in found.rows] == ['"hello', "world"]
    assert found.note == "table.csv: delimiter tab, quotation marks are text"


def test_an_open_quotation_mark_far_below_is_text_too(table: Path) -> None:
    rows = "".join(f"{number}.jpg\tx\n" for number in range(300))
    table.write_text(f'file\tcaption\n{rows}a.jpg\t"hello\nb.jpg\tworld\n')
    found = read_delimited(table)
    assert [row["caption"] for _, row in found.rows[-2:]] == ['"hello', "world"]
    assert len(found.rows) == 302


def test_an_open_quotation_mark_that_no_reading_explains_is_an_error(table: Path) -> None:
    rows = "".join(f'{number}.jpg,"x, y"\n' for number in range(300))
    table.write_text(f'file,caption\n{rows}a.jpg,"hello\nb.jpg,world\n')
    with pytest.raises(DataError, match=r"cannot be read after line 301: .*Close every quotation"):
        read_delimited(table)


def test_a_row_with_another_number_of_cells_is_a_problem_with_its_line(table: Path) -> None:
    table.write_text("file,caption\na.jpg,one, two\nb.jpg,three\nc.jpg\nd.jpg,four,,\ne.jpg,five\n")
    found = read_delimited(table)
    assert [(line, row["caption"]) for line, row in found.rows] == [
        (3, "three"),
        (5, "four"),
        (6, "five"),
    ]
    advice = "Quote cells that contain a comma"
    assert found.problems == [
        (2, f"the row has 3 cells; the header has 2. {advice}"),
        (4, f"the row has 1 cells; the header has 2. {advice}"),
    ]


def test_a_table_without_a_header_has_numbered_columns(table: Path) -> None:
    table.write_text("a.jpg,one\nb.jpg,two\n")
    found = read_delimited(table)
    assert found.names == ("1", "2")
    assert found.rows == [(1, {"1": "a.jpg", "2": "one"}), (2, {"1": "b.jpg", "2": "two"})]
    assert found.note.endswith("no header (columns are numbered from 1)")


def test_two_possible_delimiters_are_asked_for(table: Path) -> None:
    table.write_text("id,x;y\n1,2;3\n")
    with pytest.raises(DataError, match="could be separated by comma and semicolon"):
        read_delimited(table)
    assert read_delimited(table, ";").names == ("id,x", "y")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"one column\nof text\n", "is no table"),
        (b"file,caption\na.jpg,caf\xe9\n", "not UTF-8: byte 0xe9 in line 2"),
        (b"file,file\na.jpg,b\n", "more than one column named 'file'"),
    ],
)
def test_a_malformed_table_is_refused(table: Path, content: bytes, message: str) -> None:
    table.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_delimited(table)


def test_a_delimiter_of_several_characters_is_refused(table: Path) -> None:
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected one character"):
        read_delimited(table, "::")
