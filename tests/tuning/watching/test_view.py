"""The cluster as it is now, with made-up answers of Ray's."""

from __future__ import annotations

import json

import pytest

from tuning.engine.mishaps import ERROR
from tuning.watching.view import ClusterView


def node(address: str, name: str, alive: bool = True, **has: float) -> dict:
    return {"NodeManagerAddress": address, "NodeID": name, "Alive": alive, "Resources": has, "NodeManagerHostname": "h"}


@pytest.fixture
def said() -> list[str]:
    return []


def test_who_comes_and_goes_is_told_and_written(tmp_path, said) -> None:
    file = tmp_path / "nodes.json"
    view = ClusterView(file, said.append)
    view._take([node("a", "1", CPU=2.0)], {"CPU": 2.0})
    assert said == [], "the first look tells nobody"
    view._take([node("a", "1", CPU=2.0), node("b", "2", CPU=4.0, GPU=1.0)], {"CPU": 6.0, "GPU": 1.0})
    assert view.nodes() == [("a", "1"), ("b", "2")]
    assert [(row["node"], row["gpu"]) for row in json.loads(file.read_text())["nodes"]] == [("a", 0.0), ("b", 1.0)]
    view._take([node("a", "1", CPU=2.0), node("b", "2", alive=False)], {"CPU": 2.0})
    assert said == ["node b joined", "node b is gone"]
    assert view.resources == {"CPU": 2.0}


def test_what_it_grows_to_counts_as_there() -> None:
    view = ClusterView(expected={"GPU": 8.0, "CPU": 4.0})
    assert view.resources == {"GPU": 8.0, "CPU": 4.0}
    view._take([], {"CPU": 16.0})
    assert view.resources == {"GPU": 8.0, "CPU": 16.0}


def test_bad_nodes_are_avoided_while_there_is_another(said) -> None:
    view = ClusterView(say=said.append)
    view._take([node("a", "1"), node("a", "2"), node("b", "3")], {})
    assert view.avoid() == ()
    for number in range(3):
        if view.bad.failed("a", number, ERROR):
            view.tell_bad("a")
    assert view.avoid() == ("1", "2")
    assert said[-1].startswith("node a: 3 different trials failed there")
    view.bad.unfit("b")
    assert view.avoid() == (), "nowhere else to go"
    view._take([node("a", "1")], {})
    view._take([node("a", "1"), node("b", "4")], {})
    assert view.avoid() == ("1", "2")[:1], "b was started anew"
