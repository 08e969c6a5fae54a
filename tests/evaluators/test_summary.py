"""The closing words say what the numbers say."""

from vit_ssl_jax.evaluators import summary


def results(learned, untrained, raw_pixels):
    row = dict(learned=learned, untrained=untrained, raw_pixels=raw_pixels)
    return {"knn": row, "linear": row | {"learned": 0.9}}


def test_gains_are_told():
    said = summary.verdict(results(0.8, 0.7, 0.5), ["knn", "linear"])
    assert "+10.0 points in k-NN and +20.0 points in the linear probe" in said
    assert "raw pixels" not in said


def test_what_did_not_help_is_told_too():
    said = summary.verdict(results(0.34, 0.35, 0.46), ["knn", "linear"])
    assert said.startswith("Training did not help throughout: -1.0 points in k-NN")
    assert "In k-NN the learned encoder is not above raw pixels" in said


def test_the_table_has_a_row_a_representation():
    lines = summary.table(results(0.8, 0.7, 0.5), ["knn", "linear"]).splitlines()
    assert lines[1].split() == ["learned", "80.0", "%", "90.0", "%"]
    assert lines[3].split() == ["raw", "pixels", "50.0", "%", "50.0", "%"]
