"""How all kernels are called: a grid over tiles of rows, one layer of each buffer."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

VMEM = 120 * 2**20  # bytes that a kernel may use


def rows(tile, width):
    """BlockSpec of a tile of rows of `[R width]`."""
    return pl.BlockSpec((tile, width), lambda i, layer: (i, 0))


def layer_rows(tile, width, which=0):
    """BlockSpec of a tile of rows of layer `layer[which]` of `[L R width]`."""
    return pl.BlockSpec((None, tile, width), lambda i, layer: (layer[which], i, 0))


def image(*shape):
    """BlockSpec of one image's part, of `shape`, of `[B *shape]`."""
    return pl.BlockSpec((None, *shape), lambda i, layer: (i, *(0 for _ in shape)))


def weight(array):
    """BlockSpec of layer `layer[3]` of `[L . .]`, fetched once."""
    return pl.BlockSpec(
        (None, *array.shape[1:]),
        lambda i, layer: (layer[3], 0, 0),
        pipeline_mode=pl.Buffered(1),
    )


def total(shape):
    """A float32 sum over the grid: `(shape, spec)` of an output.

    The kernel adds to it in VMEM; it is written to memory once, at the end.
    """
    struct = jax.ShapeDtypeStruct(shape, jnp.float32)
    zeros = (0,) * len(shape)
    return struct, pl.BlockSpec(
        shape, lambda i, layer: zeros, pipeline_mode=pl.Buffered(1)
    )


def call(
    kernel,
    *,
    name,
    grid,
    layer,
    inputs,
    rewritten=(),
    buffers=(),
    outputs=(),
    scratch=(),
    vmem=VMEM,
    interpret,
):
    """Runs `kernel(*inputs, *results, *scratch)` over the grid: a list of results.

    `inputs` are `(array, spec)`. Results are, in order: inputs that are written
    elsewhere in place, `(number of the input, spec)`; `buffers` that are written in
    place without being read, `(array, spec)`; `outputs`, `(shape and dtype, spec)`.
    `layer` int32: which layers of buffers are meant. `vmem`: bytes that it may use.
    """
    unread = [(b, pl.BlockSpec(memory_space=pl.ANY)) for b, _ in buffers]
    arrays, specs = zip(*inputs, *unread)
    count, extra = len(inputs), len(buffers)
    places = [i for i, _ in rewritten] + list(range(count, count + extra))
    shapes = [jax.ShapeDtypeStruct(arrays[i].shape, arrays[i].dtype) for i in places]

    def body(layer_ref, *refs):
        del layer_ref
        kernel(*refs[:count], *refs[count + extra :])

    return pl.pallas_call(
        body,
        name=name,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(grid,),
            in_specs=specs,
            out_specs=[spec for _, spec in (*rewritten, *buffers, *outputs)],
            scratch_shapes=scratch,
        ),
        out_shape=[*shapes, *(shape for shape, _ in outputs)],
        # Operand 0 is the layer.
        input_output_aliases={1 + place: i for i, place in enumerate(places)},
        compiler_params=pltpu.CompilerParams(
            vmem_limit_bytes=vmem, dimension_semantics=("arbitrary",)
        ),
        interpret=interpret,
    )(jnp.reshape(layer, (-1,)).astype(jnp.int32), *arrays)


def zero_at_start(*refs):
    """Sets sums over the grid to 0 in its first step."""

    @pl.when(pl.program_id(0) == 0)
    def _():
        for ref in refs:
            ref[...] = jnp.zeros_like(ref)
