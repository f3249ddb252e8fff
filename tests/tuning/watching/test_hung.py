"""How long a trial may be silent."""

from __future__ import annotations

from tuning.watching.hung import LEAST_S, UNKNOWN_S, Silence


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_limit_follows_the_slowest_epoch_of_the_method() -> None:
    silence = Silence(None, Clock())
    assert silence.limit("crrl") == UNKNOWN_S
    silence.epoch("crrl", 2.0)
    assert silence.limit("crrl") == LEAST_S
    silence.epoch("crrl", 600.0)
    silence.epoch("crrl", 3.0)
    assert silence.limit("crrl") == 6000.0
    assert silence.limit("pstl") == UNKNOWN_S
    assert Silence(7.0, Clock()).limit("crrl") == 7.0


def test_who_is_seen_for_the_first_time_is_waited_for_from_then() -> None:
    clock = Clock()
    silence = Silence(10.0, clock)
    clock.now = 1000.0
    assert silence.silent({"a": "m"}) == {}
    clock.now = 1010.0
    assert silence.silent({"a": "m", "b": "m"}) == {}
    clock.now = 1011.0
    assert silence.silent({"a": "m", "b": "m"}) == {"a": 11.0}
    assert silence.silent({"a": "m", "b": "m"}) == {}, "the kill gets as long again to be heard of"
    clock.now = 1022.0
    assert silence.silent({"a": "m", "b": "m"}) == {"a": 11.0, "b": 12.0}


def test_a_report_begins_the_wait_anew_and_who_ended_is_forgotten() -> None:
    clock = Clock()
    silence = Silence(10.0, clock)
    silence.silent({"a": "m"})
    clock.now = 9.0
    silence.heard("a")
    clock.now = 18.0
    assert silence.silent({"a": "m"}) == {}
    assert silence.silent({}) == {}
    clock.now = 30.0
    assert silence.silent({"a": "m"}) == {}, "the key came again, after an end"
