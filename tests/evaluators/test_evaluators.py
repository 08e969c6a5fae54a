"""What every evaluator has; settings that are missing, unknown or out of range."""

import pytest

from tests import runs
from vit_ssl_jax import evaluators
from vit_ssl_jax.errors import UserError

SPLITS = {"bank", "select", "queries", "split"}


def settings_in_recipes():
    """`[(recipe, evaluator, settings)]` of all that train."""
    found = []
    for recipe in runs.RECIPES:
        for argument in runs.arguments(recipe):
            evals = runs.load(recipe, *argument).evals.to_dict()
            found += [(recipe, name, settings) for name, settings in evals.items()]
    return found


def test_evaluators_are_found_by_their_files():
    assert evaluators.names() == [
        *("classify", "depth", "fewshot", "knn", "linear", "pretext", "probe"),
        *("segmentation", "uniformity"),
    ]


@pytest.mark.parametrize("name", evaluators.names())
def test_each_declares_its_settings_and_what_it_wants(name):
    module = evaluators.find(name)
    assert set(module.RANGES) <= evaluators.keys(name)
    assert module.__doc__ and module.Config.__doc__
    for function in ("wants", "check", "make"):
        assert callable(getattr(module, function))


def test_recipes_give_what_evaluators_read_and_no_more():
    found = settings_in_recipes()
    assert len(found) > 50
    for _, name, settings in found:
        c = evaluators.read_config(name, settings)
        wants = evaluators.find(name).wants(c)
        assert wants.splits and set(wants.splits) <= SPLITS & set(vars(c))


def test_a_name_may_have_more_behind_an_underscore():
    assert evaluators.find("classify_v2") is evaluators.find("classify")
    with pytest.raises(UserError, match="no evaluator 'banks'; known are classify, "):
        evaluators.find("banks")


def test_missing_and_unknown_keys_are_listed():
    settings = dict(every_epochs=1.0, bank="train", queries="test", c=1.0, kk=3)
    with pytest.raises(UserError, match=r"config.evals.linear: the keys") as error:
        evaluators.read_config("linear", settings)
    for line in ("- iterations (missing)", "- pool (missing)", "+ kk (unknown)"):
        assert line in str(error.value)
    assert "metric" not in str(error.value)


def test_a_value_out_of_range_is_named():
    settings = dict(bank="a", queries="b", pool="mean", c=0.0, iterations=10)
    with pytest.raises(UserError, match="config.evals.linear_2.c: 0.0 is not a finite"):
        evaluators.read_config("linear_2", settings)
