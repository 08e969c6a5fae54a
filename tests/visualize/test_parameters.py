"""Positions and filters, of parameters that are known."""

import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.visualize import parameters


def test_similarity_of_a_sine_table_in_closed_form(make_encoder):
    """The mean of `cos(distance * frequency)` over axes and frequencies."""
    encoder = make_encoder(variant="1x32x2/8", posemb="sincos")
    alike = parameters.position_similarity(encoder)
    rows, cols = np.divmod(np.arange(16), 4)
    omega = 10000.0 ** (-np.arange(8) / 8)
    apart = [x[:, None] - x[None] for x in (rows, cols)]
    wanted = np.cos(np.multiply.outer(apart, omega)).mean(axis=(0, 3))
    np.testing.assert_allclose(alike, wanted, atol=1e-5)


def test_a_learned_table_is_compared_without_the_class_token(make_encoder):
    encoder = make_encoder(variant="1x32x2/8", posemb="learned", cls=True)
    table = encoder.params["posemb"][0, 1:]
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    np.testing.assert_allclose(
        parameters.position_similarity(encoder), table @ table.T, atol=1e-6
    )


@pytest.mark.parametrize(
    ("posemb", "said"), [("rope", "rotates queries and keys"), ("none", "no positions")]
)
def test_without_a_table_there_is_no_similarity(make_encoder, posemb, said):
    with pytest.raises(UserError, match=said):
        parameters.position_similarity(make_encoder(variant="1x32x2/8", posemb=posemb))


def test_a_filter_is_the_patch_that_its_channel_answers_most(make_encoder):
    """Shown to the ViT as an image, a filter makes its channel `|f|^2`."""
    encoder = make_encoder(variant="1x32x2/8")
    filters = parameters.filters(encoder)
    assert filters.shape == (32, 8, 8, 3)
    image = np.zeros((32, 32, 32, 3), np.float32)
    image[:, 8:16, 16:24] = filters
    answer = encoder.module.apply({"params": encoder.params}, image, method="embed")
    answer = np.asarray(answer[:, 6]) - encoder.params["patch"]["bias"]
    np.testing.assert_allclose(
        np.diagonal(answer), (filters**2).sum((1, 2, 3)), rtol=1e-4
    )


def test_principal_filters_span_what_the_filters_were_made_of(make_encoder):
    """Filters made of two patterns: the first two components are these, in order."""
    rng = np.random.default_rng(0)
    patterns = np.linalg.qr(rng.normal(size=(192, 2)))[0].T
    codes = np.linalg.qr(np.c_[np.ones(32), rng.normal(size=(32, 2))])[0][:, 1:]

    def plant(module, params):
        kernel = (codes * [2.0, 1.0] @ patterns).T.astype(np.float32)
        return params | {"patch": params["patch"] | {"kernel": kernel}}

    encoder = make_encoder(plant, variant="1x32x2/8")
    main = parameters.principal_filters(encoder, 2).reshape(2, -1)
    np.testing.assert_allclose(np.abs(main @ patterns.T), np.eye(2), atol=1e-5)
