"""Small sets that live on the devices, and spans of steps on them in one program.

All images are loaded once, to every device. A step's batch is picked there, cropped and
flipped, in the order of the host's batches for the seed; the host sends image numbers
alone, and many steps are one call.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vit_ssl_jax import memory, partition, step, train_data
from vit_ssl_jax.data import whole
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.ops import cropping

MOST = 64  # steps of a span
SHARE = 0.5  # of a device's memory that images may take
CROPS = 2  # folded into a step's key; 0 and 1 are what `step.train_step` splits it into


def load(config, source):
    """The images of `config.data.device_cache`: `(whole.Whole, lines to say)`.

    `(None, [])` where it is off. Raises UserError for images that can't live there.
    """
    data = config.data
    if not data.get("device_cache", False):
        return None, []
    if data.randaugment:
        raise UserError(
            f"config.data.device_cache: randaugment={data.randaugment!r} is done on the "
            "host; set one of them to False or ''"
        )
    has = memory.of_device(jax.local_devices()[0])
    most = SHARE * has if has else np.inf
    loaded = whole.load(source, data.get("max_broken", 1.0), most)
    size = loaded.image.nbytes / 2**30
    line = (
        f"data: all images on every device, {size:.2g} GiB (config.data.device_cache)"
    )
    return loaded, [line]


def extend(run, config, loaded):
    """The run with a program of spans on images that are on the devices.

    Its step is (state, fed, key) -> (state, metrics, batch), the last step's batch;
    fed: pixels uint8 `[n h*w*3]`, label int32 `[n]`, id int32 `[MOST B]`, count int32.

    Raises UserError for an image without a label where the method needs labels.
    """
    if run.method.needs_labels:
        train_data.check_labels(loaded.label[loaded.stand_in], loaded.stand_in)
    shape = loaded.image.shape[1:3]
    how = train_data.augmentation(config.data)
    del how["mean"], how["randaugment"], how["pixels"]
    augment = cropping.make_augmentation(shape, **how)
    plain, whole_there = run.program, partition.replicated(run.mesh)
    batch_size, n = config.batch_size, len(loaded.image)

    def shape_of(dims, dtype, sharding=whole_there):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)

    fed = dict(
        pixels=shape_of((n, loaded.image[0].size), jnp.uint8),
        label=shape_of((n,), jnp.int32),
        id=shape_of((MOST, batch_size), jnp.int32, spread(run.mesh)),
        count=shape_of((), jnp.int32),
    )

    def draw(fed, i, key):
        ids = fed["id"][i]
        image = fed["pixels"][ids].reshape(batch_size, *shape, 3)
        batch = dict(image=augment(key, image), label=fed["label"][ids], id=ids)
        return jax.tree.map(partition.pin_batch, batch)

    layout = jax.tree.map(lambda x: x.sharding, plain.state)

    def span(state, fed, key):
        def one(i, carry):
            # Else the partitioner lays a loop's state out as it likes.
            state = jax.lax.with_sharding_constraint(carry[0], layout)
            crops_key = jax.random.fold_in(jax.random.fold_in(key, state.step), CROPS)
            batch = draw(fed, i, crops_key)
            return *plain.plain_step(state, batch, key), batch

        others = jax.eval_shape(one, 0, (state,))[1:]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), others)
        return jax.lax.fori_loop(0, fed["count"], one, (state, *zeros))

    batch_there = partition.batch_sharding(run.mesh)
    made = step.jit_step(span, run.mesh, plain.state, fed, [batch_there])
    return dataclasses.replace(run, program=plain.replace(step=made, batch=fed))


def spread(mesh):
    """Sharding of the ids of a span: `[MOST B]`, B over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, *partition.BATCH))


def put(loaded, mesh):
    """The images and labels on every device: `{pixels, label}`."""
    flat = loaded.image.reshape(len(loaded.image), -1)
    whole_there = partition.replicated(mesh)
    return {
        "pixels": partition.put(flat, whole_there),
        "label": partition.put(loaded.label, whole_there),
    }


def put_span(images, ids, mesh):
    """What a span is fed with: `images` of `put`, and the ids of its steps, `[b]` each."""
    rows = np.zeros((MOST, len(ids[0])), np.int32)
    rows[: len(ids)] = ids
    whole = (MOST, len(ids[0]) * jax.process_count())
    place = spread(mesh)
    return {
        **images,
        "id": jax.make_array_from_process_local_data(place, rows, whole),
        "count": partition.put(np.int32(len(ids)), partition.replicated(mesh)),
    }
