from hfclip.cli.output import sentence, table


def test_values_are_formatted_for_people() -> None:
    assert sentence(True) == "yes"
    assert sentence(False) == "no"
    assert sentence(1_234_567) == "1,234,567"
    assert sentence(["a", "b"]) == "a, b"
    assert sentence([]) == "none"
    assert sentence({"float16": 1_000, "int64": 3}) == "1,000 float16, 3 int64"


def test_a_table_has_a_column_for_each_name() -> None:
    rows = [{"name": "a", "size": 1_000}, {"name": "long", "size": 2}]
    assert table(rows).splitlines() == ["name  size", "a     1,000", "long  2"]
    assert table([]) == ""
