"""How fast a trial begins, at its smallest: the parts add up, and nothing is left changed. No time is asserted."""

from __future__ import annotations

import json

import pytest

SMALL = ["--spaces", "quickstart", "--published", "crrl", "--trials", "2", "--imports", "1"]


@pytest.fixture
def startup():
    from benchmarks import startup

    return startup


def test_beginnings_are_measured_and_written(startup, tmp_path, capsys, monkeypatch):
    gru = startup.published("crrl")
    small = startup.replace(gru, frames=16, encoder=startup.replace(gru.encoder, hidden=8))
    monkeypatch.setattr(startup, "published", lambda _: small)
    before = {name: getattr(owner, call) for name, (owner, call) in startup.PARTS.items()}
    out = tmp_path / "new" / "startup.json"
    assert startup.main([*SMALL, "--json", str(out)]) == 0
    assert before == {name: getattr(owner, call) for name, (owner, call) in startup.PARTS.items()}
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["command"].startswith("python -m benchmarks.startup --spaces quickstart")
    assert [r["import"] for r in told["imports"]] == ["tuning.cli", "nothing"]
    for size in ("quickstart", "crrl, published"):
        rows = {r["part"]: r for r in told["rows"] if r["size"] == size}
        assert list(rows) == [*startup.PARTS, startup.REST, "all"]
        parts = [r for part, r in rows.items() if part != "all"]
        for clock in ("wall", "cpu"):
            assert rows["all"]["first_ms"][clock] == pytest.approx(sum(r["first_ms"][clock] for r in parts))
        assert rows["model built"]["next_ms"]["wall"] > 0
        assert rows["all"]["parameters"] > 0
    printed = capsys.readouterr().out
    assert "| tuning.cli |" in printed
    assert printed.count("| model built |") == 2


def test_a_part_is_counted_without_the_parts_inside_it(startup, monkeypatch):
    """An outer part of 7 ticks with an inner one of 3, twice: 4 and 3 each."""
    ticks = iter([0.0, 2.0, 5.0, 7.0, 10.0, 12.0, 15.0, 17.0])
    monkeypatch.setattr(startup.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(startup.time, "process_time", lambda: 0.0)
    clock = startup.Clock()
    for _ in range(2):
        with clock.part("outer"), clock.part("inner"):
            pass
    assert clock.wall == pytest.approx({"outer": 8000.0, "inner": 6000.0})
    assert clock.cpu == {"outer": 0.0, "inner": 0.0}


def test_the_step_is_not_taken(startup, tmp_path):
    """What is measured ends where the first batch is taken: no weight has moved, no epoch is over."""
    source, (config, *_) = startup.of_space("quickstart")
    worker = startup.Worker(source, tmp_path)
    worker.begin(config)
    session = worker.trial.session
    assert (session.run.epoch, session.run.step) == (0, 0)
    assert all(p.grad is None for p in session.run.model.parameters())
    worker.begin(config)
    assert worker.trial.session is not session
    assert worker.trial.session.run.seed != session.run.seed


def test_what_is_missed_says_so(startup):
    row = {"size": "x", "parameters": 2_000_000, "remembered": 0, "part": "all", "first_ms": {"cpu": 1.0, "wall": 2.0}}
    slow, quick = (row | {"next_ms": {"cpu": cpu, "wall": 500.0}} for cpu in (100.5, 99.5))
    imported = [{"import": "tuning.cli", "ms": {"cpu": 301.0, "wall": 301.0}, "rounds": 3}]
    text = startup.lines([slow, quick], imported)
    assert text[2].endswith("| 100.5 (500.0) (target 100: missed) |")
    assert text[3].endswith("| 99.5 (500.0) |")
    assert "301.0 (301.0) (target 300: missed)" in text[-1]


@pytest.mark.parametrize("wrong", [["--trials", "0"], ["--imports", "0"], ["--spaces", "--published"]])
def test_wrong_sizes(startup, wrong):
    with pytest.raises(SystemExit) as ended:
        startup.parse(wrong)
    assert ended.value.code == 2
