"""The time that a compiled step would take: estimates by the kind of device.

A TPU's cycles are its compiler's and its kernels' machine code's. A GPU's compiler says
nothing: its seconds are a closed form (`roofline`). A CPU has neither.
"""

from vit_ssl_jax import partition
from vit_ssl_jax.plan import cards, roofline
from vit_ssl_jax.plan.program import collectives, hlo, parts

UNKNOWN = dict.fromkeys(
    (
        "cycles_per_step",
        "cycles_per_image",
        "peak_fraction",
        "parts",
        "uncosted",
        "roofline",
        "collectives",
        "communication",
        "seconds_per_step",
        "images_per_second",
        "epoch_hours",
        "run_hours",
    )
) | dict(kernels=[], unknown_loops=[])


def read(module, costs, chip, facts, run, config):
    """What `plan.plan` tells of time and communication: a dict of plain values.

    `module` is None where the compiler refused, `costs` are `kernel_costs`, `chip` is a
    `topologies.Chip`, a `cards.Card`, or None, `facts` are what the plan has so far.
    """
    if not module:
        return UNKNOWN
    cost = make_cost(module, costs, chip)
    places = partition.slices(list(run.mesh.devices.flat))  # between them it is slower
    rows = collectives.find(module, facts["mesh"], cost, places)
    figures = UNKNOWN | dict(collectives=collectives.merge(rows))
    figures |= dict(unknown_loops=hlo.unknown_loops(module))
    if not chip:
        return figures | dict(unknown_loops=[])
    if isinstance(chip, cards.Card):
        figures |= read_card(module, chip, facts, rows)
    else:
        figures |= read_cycles(module, costs, chip, facts)
        cycles = figures["cycles_per_step"]
        communication = collectives.estimate(rows, chip, cycles)
        seconds = (cycles + communication["exposed_cycles"]) / chip.hertz
        figures |= dict(communication=communication, seconds_per_step=seconds)
    images = config.batch_size / figures["seconds_per_step"]
    return figures | dict(
        images_per_second=images,
        epoch_hours=config.data.num_examples / images / 3600,
        run_hours=run.steps * figures["seconds_per_step"] / 3600,
    )


def kernel_costs(text, module, chip, say):
    """Costs of the custom kernels of a program for TPUs: `{instruction: cost.Cost}`."""
    if not chip or hlo.KERNEL not in text:
        return {}
    from vit_ssl_jax.plan.kernel_cost import cost  # starts compilations of its own

    return cost.estimate(text, chip, say)


def make_cost(module, costs, chip):
    """Makes `Instruction -> cycles` of one execution; on a GPU nanoseconds."""
    if isinstance(chip, cards.Card):
        return roofline.make_cost(module, chip)
    return parts.make_cost({name: cost.cycles for name, cost in costs.items()})


def read_cycles(module, costs, chip, facts):
    """Cycles of a chip an image, in all and by part, and the share of peak they mean."""
    cycles = {name: cost.cycles for name, cost in costs.items()}
    by_part = parts.cycles_by_part(module, parts.make_cost(cycles))
    total, images = sum(by_part.values()), facts["batch_size"] / facts["devices"]
    return dict(
        cycles_per_step=total,
        cycles_per_image=total / images,
        peak_fraction=facts["model_flops_per_image"]
        / (total / images * chip.peak_flops_per_cycle),
        parts={part: value / images for part, value in by_part.items()},
        kernels=parts.kernel_rows(module, costs),
        uncosted=parts.uncosted(module, cycles),
    )


def read_card(module, card, facts, rows):
    """Seconds of a step on a card by the closed form, and the share of peak they mean."""
    bounds = roofline.estimate(module, card, rows)
    seconds = bounds["compute_seconds"] + bounds["exposed_seconds"]
    flops = facts["model_flops_per_image"] * facts["batch_size"] / facts["devices"]
    return dict(
        seconds_per_step=seconds,
        peak_fraction=flops / (seconds * card.peak_flops),
        roofline=bounds,
        communication=dict(
            wire_bytes=sum(row["wire"] * row["count"] for row in rows),
            seconds=bounds["message_seconds"],
            exposed_seconds=bounds["exposed_seconds"],
            exposed_share=bounds["exposed_seconds"] / seconds if seconds else 0.0,
        ),
    )
