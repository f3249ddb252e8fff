"""How a fault looks: line, caret, long and hostile lines."""

from __future__ import annotations

import pickle

from tuning.config.errors import ConfigError, Fault, Place, snippet


def test_the_caret_underlines_the_place() -> None:
    assert snippet("ab: cde", Place(12, 5, 3)) == "   12 | ab: cde\n      |     ^^^"


def test_a_long_line_is_cut_around_the_caret() -> None:
    shown = snippet("x" * 500 + "HERE" + "y" * 500, Place(1, 501, 4)).splitlines()
    assert len(shown[0]) < 200
    at = shown[1].index("^")
    assert shown[0][at : at + 4] == "HERE"


def test_the_caret_stays_inside_the_line_and_tabs_line_up() -> None:
    assert snippet("ab", Place(1, 1, 999)).splitlines()[1] == "      | ^^"
    assert snippet("\tab", Place(1, 2, 2)).splitlines()[1] == "      | \t^^"
    assert snippet("", Place(1, 1)).splitlines()[1] == "      | ^"


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in snippet("a: \x1b[31mred", Place(1, 1))


def test_an_error_carries_all_faults_through_a_pickle() -> None:
    error = ConfigError([Fault("f", 1, 2, "one"), Fault("f", 3, 4, "two", "snip")])
    again = pickle.loads(pickle.dumps(error))
    assert again.where == error.where
    assert str(again) == str(error) == "f:1:2: one\nf:3:4: two\nsnip"
