"""Batches of evaluators, shared by processes: each makes the rows of its own devices.

On the devices they are the very batch that one process would make, row by row, so that
results don't depend on how many processes there are.
"""

import jax

from vit_ssl_jax import partition, step


def rows_of(size, mesh):
    """The rows of a batch of `size` that this process's devices hold, sorted; None: all.

    They needn't be neighbours: on a slice of TPUs a host's chips form a square.
    """
    if jax.process_count() == 1:
        return None
    sharding = partition.batch_sharding(mesh)
    places = sharding.addressable_devices_indices_map((size,)).values()
    return sorted({row for (place,) in places for row in range(*place.indices(size))})


def place(batch, mesh):
    """Sends the rows of this process to its devices: `(batch, rest)`.

    batch: the whole one `[B ...]`, split over the mesh. rest: all of it but the images,
    whole in numpy on every process.
    """
    rest = {name: x for name, x in batch.items() if name != "image"}
    placed = step.put_batch(batch, mesh)
    if jax.process_count() > 1:
        rest = partition.fetch({name: placed[name] for name in rest})
    return placed, rest
