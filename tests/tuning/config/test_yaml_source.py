"""The YAML reader: YAML 1.2 scalars, places, duplicates, and nothing that a hostile file could do."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from methods.errors import InputError
from tuning.config.errors import ConfigError
from tuning.config.yaml_source import Leaf, Table, parse_yaml, plain, read_file


def read(text: str) -> object:
    report, root = parse_yaml(text, "x.yaml")
    report.raise_if_any()
    assert root is not None
    return plain(root)


def faults(text: str) -> list[tuple[int, int, str]]:
    report, _ = parse_yaml(text, "x.yaml")
    return [(f.line, f.col, f.message) for f in report.faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-2.", -2.0),
        ("12", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),  # YAML 1.1 would read 8
        ("1_000", "1_000"),
        ("1:30", "1:30"),  # YAML 1.1 would read 90
        ("2026-01-02", "2026-01-02"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("'true'", "true"),
        ('"1e-3"', "1e-3"),
        ("~", None),
        ("null", None),
        ("", None),
    ],
)
def test_scalars_are_yaml_1_2(text: str, value: object) -> None:
    got = read(f"a: {text}\n")
    assert got == {"a": value}
    assert type(got["a"]) is type(value)  # type: ignore[index]


def test_nodes_know_where_they_stand() -> None:
    _, root = parse_yaml("a:\n  bee: [1, x]\n", "x.yaml")
    assert isinstance(root, Table)
    inner = root.get("a")
    assert isinstance(inner, Table)
    assert (inner.key_place("bee").line, inner.key_place("bee").col, inner.key_place("bee").width) == (2, 3, 3)
    item = inner.get("bee").items[1]  # type: ignore[union-attr]
    assert isinstance(item, Leaf) and (item.place.line, item.place.col) == (2, 12)


def test_equal_keys_are_faults_with_both_lines() -> None:
    assert faults("a: 1\nb: 2\na: 3\nc: {x: 1, x: 2}\n") == [
        (3, 1, "'a' is given twice; the first is on line 1"),
        (4, 11, "'x' is given twice; the first is on line 4"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "col", "says"),
    [
        ("a: [\n", 2, 1, "expected the node content"),
        ("a: b: c\n", 1, 5, "mapping values are not allowed here"),
        ("a: 1\n\tb: 2\n", 2, 1, "found character '\\t'"),
        ("a: !!python/object/apply:os.system [x]\n", 1, 4, "tags are not allowed"),
        ("a: ! 1\n", 1, 4, "tags are not allowed"),
        ("a: !mine 1\n", 1, 4, "tags are not allowed"),
        ("a: *nobody\n", 1, 4, "undefined alias"),
        ("a: &x [*x]\n", 1, 4, "an alias may not lie inside"),
        ("a: 1\n---\nb: 2\n", 2, 1, "but found another document"),
        ("a: .inf\n", 1, 4, "finite"),
        ("a: .NaN\n", 1, 4, "finite"),
        ("a: 1e999\n", 1, 4, "finite"),
        ("a: " + "9" * 5000, 1, 4, "finite"),
        ("<<: {a: 1}\n", 1, 1, "merge keys"),
        ("1: 2\n", 1, 1, "a key must be a word, got '1'"),
        ("true: 2\n", 1, 1, "a key must be a word, got 'true'"),
        ("? [a]\n: b\n", 1, 3, "a key must be one word"),
        ("a: \x1b[31m\n", 1, 4, "U+001B"),
        ('a: "\\U00110000"\n', 1, 6, "cannot be read"),
        ('a: "\\ud800"\n', 1, 4, "surrogate"),
        ("- 1\n", 1, 1, "mapping of sections"),
        ("just words\n", 1, 1, "mapping of sections"),
        ("", 1, 1, "the file is empty"),
        ("# only a comment\n", 1, 1, "the file is empty"),
        ("x: " + "[" * 1000, 1, 43, "nested deeper than 40"),
    ],
)
def test_what_is_no_search_space_points_at_its_line(text: str, line: int, col: int, says: str) -> None:
    found = faults(text)
    assert len(found) == 1, found
    assert found[0][:2] == (line, col), found
    assert says in found[0][2]


def test_a_billion_laughs_is_refused_quickly() -> None:
    names = "abcdefghij"
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{y}: &{y} [{', '.join([f'*{x}'] * 10)}]" for x, y in pairwise(names)]
    start = time.process_time()
    assert "once aliases are followed" in faults("\n".join(lines))[0][2]
    assert time.process_time() - start < 30  # the expansion itself would be 10^10 values


def test_aliases_are_followed() -> None:
    assert read("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_file_that_is_too_large_is_not_parsed() -> None:
    assert "at most" in faults("a: " + "x" * 300_000)[0][2]


def test_unreadable_files_are_input_errors(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="there is no such file"):
        read_file(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="this is a folder"):
        read_file(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path / "a\0b")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError) as caught:
        read_file(latin)
    assert (caught.value.where[0].line, caught.value.where[0].col) == (2, 7)
    marked = tmp_path / "bom.yaml"
    marked.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(read_file(marked)) == {"a": 1}
