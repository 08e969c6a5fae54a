"""Configs of the wrong kind, refused before jax is loaded."""

import pytest

from vit_ssl_jax import arguments, recipes
from vit_ssl_jax.errors import UserError


def test_a_config_of_the_wrong_kind_is_one_line():
    with pytest.raises(UserError, match="eval_small is an evaluation"):
        arguments.check_training(recipes.load("eval_small.py"))
    with pytest.raises(UserError, match="mae_vitb is a recipe to train"):
        arguments.check_evaluation(recipes.load("mae_vitb.py"))
    with pytest.raises(UserError, match="starts from a trained encoder; give --config"):
        arguments.check_training(recipes.load("finetune_vitb.py"))
    with pytest.raises(UserError, match="init_from: there is no checkpoint under /x"):
        arguments.check_training(recipes.load("quickstart.py", init_from="/x"))
