"""The smallest sizes: that all forms are checked, that a wrong one stops the run, and the shape of what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import layouts

SMALL = ["--batch", "1", "--frames", "8", "--width", "2", "--rounds", "1"]


def test_every_form_agrees_and_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "layouts.json"
    assert layouts.main([*SMALL, "--parts", "forms", "others", "dropout", "solver", "--json", str(path)]) == 0
    told = json.loads(path.read_text())
    assert {check["form"] for check in told["checks"]} == set(layouts.FORMS)
    assert {row["side"] for row in told["rows"] if row["part"] == "step, bf16"} == set(layouts.FORMS)
    assert "DOES NOT" not in capsys.readouterr().out


def test_a_form_that_computes_something_else_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(block: Any, x: Tensor, graph: Tensor) -> Tensor:
        return layouts.modules(block, x, graph.transpose(1, 2))

    monkeypatch.setattr(layouts, "FORMS", {"as is": layouts.modules, "wrong": wrong})
    monkeypatch.setattr(layouts, "checks", lambda forms: [layouts.check(form) for form in forms])
    monkeypatch.setattr(layouts, "MEASURES", {"forms": lambda _: pytest.fail("timed nonetheless")})
    setup = layouts.parse([*SMALL, "--forms", "as is"])
    assert setup.batch == 1
    assert not layouts.check("wrong")["agree"]
    assert layouts.main([*SMALL, "--parts", "forms", "--forms", "wrong"]) == 1
    assert "wrong DOES NOT AGREE" in capsys.readouterr().out


def test_a_varied_block_has_the_names_of_the_encoders() -> None:
    setup = layouts.Setup(1, 8, 2, 1, 1.0, ("fp32",), ("as is",))
    own, other = (layouts.encoder(setup.config("fp32"), form) for form in (None, "as is"))
    assert list(own.state_dict()) == list(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), other.parameters(), strict=True))
