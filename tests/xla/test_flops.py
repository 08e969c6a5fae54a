"""FLOPs against numbers worked by hand, and a ViT's closed form."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from vit_ssl_jax import partition
from vit_ssl_jax.xla import flops


def array(*shape):
    """A shape of float32."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def square(x):
    """`[n n]` times itself: 2 n^3."""
    return x @ x


@pytest.mark.parametrize(
    ("function", "shapes", "wanted"),
    [
        (jnp.matmul, [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
        (jnp.matmul, [(4, 3, 5), (4, 5, 7)], 4 * 2 * 3 * 5 * 7),
        (lambda a, b: jnp.einsum("abc,dbc->ad", a, b), [(2, 3, 5), (7, 3, 5)], 420),
        (jnp.add, [(3, 3), (3, 3)], 0),
        (jax.jit(square), [(4, 4)], 128),
        (jax.checkpoint(square), [(4, 4)], 128),
        (jax.vmap(square), [(5, 4, 4)], 5 * 128),
        # The forward isn't needed for the gradient of a product, its two halves are.
        (jax.grad(lambda x: square(x).sum()), [(4, 4)], 3 * 128),
        (lambda x: jax.lax.fori_loop(0, 6, lambda i, y: y @ x, x), [(4, 4)], 6 * 128),
        (
            lambda x: jax.lax.scan(lambda y, _: (y @ x @ x, None), x, length=3)[0],
            [(4, 4)],
            3 * 2 * 128,
        ),
        (
            lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, square, x),
            [(4, 4)],
            2 * 128,
        ),
    ],
)
def test_hand_worked(function, shapes, wanted):
    assert flops.count(function, *(array(*shape) for shape in shapes)) == wanted


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_a_convolution(stride, groups):
    """An output is a sum over the window and the channels of its group."""

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    shapes = array(2, 8, 6, 4), array(3, 5, 4 // groups, 10)
    outputs = 2 * (8 // stride) * (6 // stride) * 10
    assert flops.count(convolve, *shapes) == 2 * outputs * 3 * 5 * 4 // groups


def test_all_devices_of_a_shard_map_count():
    mesh = partition.make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    spec = PartitionSpec(("data", "fsdp"))
    mapped = jax.shard_map(square, mesh=mesh, in_specs=spec, out_specs=spec)
    # Eight devices, each with [4 4] of [32 4].
    assert flops.count(mapped, array(32, 4)) == 8 * 128


def test_custom_derivatives_are_entered():
    @jax.custom_vjp
    def function(x):
        return square(x)

    function.defvjp(lambda x: (square(x), x), lambda x, g: (g @ x @ x,))
    assert flops.count(function, array(4, 4)) == 128
    gradient = jax.grad(lambda x: function(x).sum())
    assert flops.count(gradient, array(4, 4)) == 3 * 128


def test_a_loop_of_unknown_length_is_refused_if_it_matters():
    def loop(body):
        return lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 9, body, x)

    assert flops.count(loop(lambda y: y + 1), array(4, 4)) == 0
    with pytest.raises(ValueError, match="no known length"):
        flops.count(loop(square), array(4, 4))


def test_an_unknown_primitive_with_matmuls_is_refused():
    def solve(x):
        return jax.lax.custom_linear_solve(
            lambda y: y @ x, x, lambda matvec, b: b, symmetric=True
        )

    with pytest.raises(ValueError, match="primitive 'custom_linear_solve'"):
        flops.count(solve, array(4, 4))


@pytest.mark.parametrize(
    ("variant", "cls", "depth", "width", "hidden"),
    [("B/16", True, 12, 768, 3072), ("S/16", False, 12, 384, 1536)],
)
def test_a_vit_is_its_closed_form(tiny, variant, cls, depth, width, hidden):
    model = tiny.vit((224, 224), variant=variant, cls=cls, remat="dots")
    image, key = array(2, 224, 224, 3), jax.random.key(0)
    params = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros(image.shape), False), key
    )
    found = flops.count(lambda p, x: model.apply(p, x, False), params, image)
    patches, tokens = 196, 196 + cls
    layer = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    assert found == 2 * 2 * (patches * 3 * 16**2 * width + depth * layer)
    if variant == "B/16":  # 17.6 billion multiply-adds an image, as published
        assert found / 4 == pytest.approx(17.58e9, rel=1e-3)


def test_rematerialised_work_counts_again(tiny):
    """A training step is three forwards, four when everything is computed twice."""

    def step_flops(remat):
        model = tiny.vit((32, 32), variant="4x32x4/8", remat=remat)
        image = array(2, 32, 32, 3)
        params = jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros(image.shape), False)
        )

        def loss(params, image):
            return model.apply(params, image, True).sum()

        return [flops.count(f, params, image) for f in (loss, jax.grad(loss))]

    forward, step = step_flops("none")
    patch = 2 * 2 * 16 * 3 * 8**2 * 32  # whose input needs no gradient
    assert step == 3 * forward - patch
    blocks = forward - patch
    assert step < step_flops("full")[1] <= 4 * blocks + 2 * patch
