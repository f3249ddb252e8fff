"""`skeltune new` writes a space that loads, with every parameter of every method in it."""

from __future__ import annotations

import pytest

from methods.errors import InputError
from methods.fields import field_table
from methods.registry import get_method, list_methods
from tuning.space import load_search
from tuning.space.template import template


@pytest.mark.parametrize("chosen", [[], *([name] for name in list_methods())])
def test_it_loads(chosen):
    text = template(chosen, data="data/mine", name="mine")
    spec, space = load_search(text)
    assert set(space.methods) == set(chosen or list_methods())
    assert (spec.name, spec.data.set) == ("mine", "data/mine")
    for name in space.methods:
        assert space.free[name] > 1
        for field in field_table(get_method(name).config):
            assert f"        {field}:" in text


def test_the_published_configuration_is_inside():
    _, space = load_search(template())
    assert len(space.start_draws()) == len(list_methods())
    assert space.start_notes == ()  # nothing had to be moved into a range


def test_unknown_methods_are_named():
    with pytest.raises(InputError, match="did you mean 'skeletonclr'"):
        template(["skeletonclear"])
