"""The benchmark of the conversion at its smallest: it runs, the readers agree, the file has its shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["--files", "3", "--rounds", "1", "--repeats", "1", "--seconds", "5"]


@pytest.fixture
def benchmarks(monkeypatch):
    """The package is no part of the distribution: it is run from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import conversion, plain_skeletons

    return conversion, plain_skeletons


def test_it_measures_and_the_readers_agree(benchmarks, tmp_path, capsys):
    conversion, _ = benchmarks
    out = tmp_path / "conversion.json"
    assert conversion.main([*SMALL, "--json", str(out)]) == 0
    told = json.loads(out.read_text(encoding="utf-8"))
    sides = ["official way", "lean, line by line", "ours, as listed", "ours, by ID", "ours, by ID, in the archive"]
    assert [row["side"] for row in told["rows"]] == sides
    assert len(told["checks"]) == 4 and all(check["agree"] and check["clips"] for check in told["checks"])
    cases = [(row["files"], row["clips"], row["workers"]) for row in told["conversions"]]
    assert cases == [(3, 3, 1), (12, 12, 1), (3, 3, 2), (12, 12, 2)]
    assert all(row["peak_mib"]["median"] > 1 for row in told["conversions"])
    printed = capsys.readouterr().out
    assert "| reading | ours, by ID |" in printed and "| 12 files | 2 |" in printed


def test_a_difference_stops_the_benchmark(benchmarks, monkeypatch, tmp_path, capsys):
    conversion, plain = benchmarks
    real = plain.read_lean
    monkeypatch.setattr(plain, "read_lean", lambda path: real(path) + np.float32(1e-6))
    assert conversion.main([*SMALL, "--json", str(tmp_path / "no.json")]) == 1
    assert "NOT THE SAME numbers: lean" in capsys.readouterr().out
    assert not (tmp_path / "no.json").exists()


def test_names_are_names_of_the_dataset_each_once(benchmarks):
    from methods.data.reading.ntu_facts import parse_name

    _, plain = benchmarks
    names = [plain.name(number) for number in range(1000)]
    assert len(set(names)) == 1000 and all(parse_name(name) is not None for name in names)


@pytest.mark.parametrize("wrong", [["--files", "0"], ["--rounds", "0"], ["--repeats", "0"]])
def test_wrong_sizes(benchmarks, wrong):
    with pytest.raises(SystemExit) as ended:
        benchmarks[0].parse(wrong)
    assert ended.value.code == 2
