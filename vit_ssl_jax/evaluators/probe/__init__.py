"""Linear probes: a grid of heads on a frozen encoder, images augmented or kept features.

`sweep` says which heads, `train` learns them, `heads` is the arithmetic, `feeds` where the
features come from.
"""

import dataclasses

from vit_ssl_jax.distributed.signals import Stopped
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import Wants, banks, sharing
from vit_ssl_jax.evaluators.probe import feeds, sweep, train
from vit_ssl_jax.models import readouts

CUT = ("batch_size", "crop", "ratio", "single_draw", "flip", "seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(sweep.Config):
    """Settings: those of the grid, and the images."""

    bank: str  # split that is learned from
    select: str  # split that a head is chosen on; "": on the queries
    queries: str  # split whose images are judged
    crop: tuple  # (smallest, largest) share of an augmented image
    ratio: tuple  # (smallest, largest) width / height of it
    single_draw: bool  # MAE's own crop, drawn once and clamped
    flip: bool  # half of the augmented images


RANGES = sweep.RANGES


def wants(c):
    """Features of plain images; to learn from augmented ones where `c.augment`."""
    splits = ["queries"] + ["select"] * bool(c.select) + ["bank"] * (not c.augment)
    return Wants(
        features=dict.fromkeys(splits, c.readouts),
        augmented=("bank",) if c.augment else (),
    )


def check(c, run, open_split):
    """Raises UserError for what doesn't fit the labels, the mesh or the encoder."""
    if c.schedule == "step" and not c.step_epochs:
        raise UserError("step_epochs: 0 epochs to a step of the rate; give some")
    if c.schedule == "milestones" and not c.milestones:
        raise UserError("milestones: none, at which the rate falls; give some epochs")
    if c.nesterov and c.optimizer != "sgd":
        raise UserError(
            f"nesterov: {c.optimizer} has none; set False, or optimizer='sgd'"
        )
    if c.norm_group and c.batch_size > c.norm_group and c.batch_size % c.norm_group:
        raise UserError(
            f"norm_group: {c.norm_group} images don't divide a batch of {c.batch_size}; "
            "0 normalises by the whole batch"
        )
    banks.check_splits(c, open_split)
    train.check_batch(c, run.mesh)
    train.count_steps(c, len(open_split("bank")))
    for readout in c.readouts:
        readouts.check_readout(readout, run.encoder.depth, run.encoder.cls)


def make(c, run):
    """Makes `evaluate(state, inputs)`, which goes on where it was stopped."""
    grid = sweep.Config(**{key: getattr(c, key) for key in sweep.FIELDS})
    cut = {key: getattr(c, key) for key in CUT}

    def evaluate(state, inputs):
        source = inputs.source("bank")
        if c.augment:
            feed = feeds.augmented(
                grid,
                run.encoder,
                run.encoder_params(state),
                run.normalize,
                lambda start: inputs.augmented("bank", start, **cut),
                len(source),
            )
        else:
            rows = sharing.rows_of(grid.batch_size, run.mesh)
            feed = feeds.cached(grid, inputs.features("bank"), rows)
        metrics = train.train(
            grid,
            feed,
            inputs.features("select") if c.select else None,
            inputs.features("queries"),
            classes=source.num_classes,
            mesh=run.mesh,
            folder=inputs.folder if c.augment else None,
            stop_requested=inputs.stop_requested,
            say=inputs.say,
            about=inputs.record("bank") | {key: cut[key] for key in CUT[1:-1]},
        )
        if metrics is None:
            raise Stopped
        return metrics

    return evaluate
