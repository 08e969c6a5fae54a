"""Cases to compare: two layers of every kind of block in a step, and their input.

B batch, N tokens, D width.
"""

import dataclasses
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition, step
from vit_ssl_jax.models import attention, stack
from vit_ssl_jax.models.fused import blocks as fused

DEPTH = 2
ROWS = 12800  # tokens on a device at most
CPU_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class Case:
    """Blocks as a step runs them: on tokens `[B N D]`, some of them not valid."""

    blocks: stack.Blocks
    shape: tuple
    axes: int  # of `valid`: 0 all are, 1 the first of an image `[B]`, 2 any `[B N]`

    def __str__(self):
        _, tokens, width = self.shape
        some = ", some not valid" if self.axes else ""
        return f"width {width}, {self.blocks.heads} heads, {tokens} tokens{some}"


def find_cases(run):
    """Every kind of `stack.Blocks` that the step of a `build.Run` calls: `[Case]`."""
    cases, call = {}, inspect.signature(stack.Blocks.__call__)

    def listen(function, args, kwargs, context):
        blocks = context.module
        if isinstance(blocks, stack.Blocks) and context.method_name == "__call__":
            given = call.bind(blocks, *args, **kwargs).arguments
            if given.get("collect") is None:
                cases[make_case(blocks, given, run.mesh)] = None
                # Their shape is all that the rest asks for, whether they work or not.
                return given["x"].astype(jnp.float32), None
        return function(*args, **kwargs)

    program = run.program
    key = step.key_shape(program.replicated)
    with jax.set_mesh(run.mesh), nn.intercept_methods(listen):
        # A new function: one that it knows jax doesn't trace again.
        jax.eval_shape(
            lambda *arrays: program.plain_step(*arrays),
            *(program.state, program.batch, key),
        )
    return list(cases)


def make_case(blocks, given, mesh):
    """The `Case` of a call: two layers, nothing drawn, no more rows than needed."""
    batch, tokens, width = given["x"].shape
    ways = partition.ways(mesh)
    most = CPU_ROWS if mesh.devices.flat[0].platform == "cpu" else ROWS
    axes = getattr(given.get("valid"), "ndim", 0)
    # A power of two, so that kernels choose the tiles that they have for many images.
    most = 2 ** max(most // fused.padded(tokens), 1).bit_length() // 2
    images = min(batch // ways, most)
    two = stack.Blocks(DEPTH, blocks.heads, blocks.hidden, blocks.style, parent=None)
    return Case(two, (images * ways, tokens, width), axes)


def draw(case, mesh):
    """Draws parameters, tokens `[B N D]`, `valid`, gradient `[B N D]` on the devices.

    All are numbers of bfloat16, so that no form begins with a rounding.
    """
    style = dataclasses.replace(case.blocks.style, kernels="plain")
    plain = case.blocks.clone(style=style)
    x = jax.ShapeDtypeStruct(case.shape, jnp.float32)
    shapes = jax.eval_shape(
        lambda x: plain.init(jax.random.key(0), x, False)["params"], x
    )

    def make(key):
        keys = iter(jax.random.split(key, len(jax.tree.leaves(shapes)) + 3))
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: draw_parameter(next(keys), path, leaf.shape), shapes
        )
        x, grad = jax.random.normal(next(keys), (2, *case.shape))
        valid = draw_valid(next(keys), case)
        grad = only_valid(grad, valid)
        params, x, grad = jax.tree.map(
            lambda a: jax.lax.reduce_precision(a, 8, 7), (params, x, grad)
        )
        return params, x, valid, grad

    batch = partition.batch_sharding(mesh)
    valid = batch if case.axes else None
    layout = partition.shardings(shapes, mesh), batch, valid, batch
    key = jax.random.key(0, impl="rbg")  # compiles in half the time
    return jax.jit(make, out_shardings=layout)(key)


def draw_parameter(key, path, shape):
    """Draws a parameter that keeps activations near 1 (kernels: by their inputs)."""
    name, layer = path[-1].key, path[-2].key
    noise = jax.random.normal(key, shape)
    if name != "kernel":
        return 0.1 * noise + (name == "scale")
    return noise * np.prod(shape[1:3] if layer == "out" else shape[1]) ** -0.5


def draw_valid(key, case):
    """Draws `attention.attend`'s `valid`, about a quarter of the tokens not valid."""
    batch, tokens, _ = case.shape
    if case.axes == 2:
        valid = jax.random.bernoulli(key, 0.75, (batch, tokens))
        return valid.at[:, 0].set(True)
    return jax.random.randint(key, batch, 1, tokens + 1) if case.axes else None


def only_valid(x, valid):
    """Sets tokens `[B N D]` that aren't valid to 0."""
    valid = attention.as_mask(valid, x.shape[1])
    return x if valid is None else jnp.where(valid[..., None], x, 0.0)
