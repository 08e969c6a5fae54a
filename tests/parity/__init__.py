"""The ledger: our code against numbers that the published implementations printed.

python -m tests.parity FOLDER [--json OUT]

reads a folder of golden vectors (tests/golden/README.md has the format) and prints one
row a quantity: case, quantity, largest absolute error, the same over the largest entry,
tolerance, verdict. Exits with status 1 when a row fails or something isn't covered.
"""

import pathlib
import re

import jax
from flax.errors import FlaxError

from tests.parity import (
    blockmasks,
    dino,
    finetuning,
    ijepa,
    initial,
    ledger,
    lejepa,
    mae,
    maskfeat,
    multiblock,
    optimizers,
    probing,
    relvit,
    supervised,
    tables,
)
from vit_ssl_jax.errors import UserError

CASES = {  # name of a case -> rows of `ledger.Golden`
    r"mae": mae.tensors,
    r"mae_grads_normpix[01]": mae.gradients,
    r"mae_finetune_\w+": finetuning.rows,
    r"dino": dino.rows,
    r"lejepa": lejepa.rows,
    r"ijepa": ijepa.tensors,
    r"ijepa_step": ijepa.step,
    r"ijepa_mask_stats": multiblock.rows,
    r"vit_(token|avg)": supervised.tensors,
    r"vit_(token|avg)_grads": supervised.gradients,
    r"maskfeat_hog(_natural)?": maskfeat.histograms,
    r"maskfeat_(slowfast|mmpretrain)": maskfeat.tensors,
    r"maskfeat_(slowfast|mmpretrain)_grads": maskfeat.gradients,
    r"maskfeat_blockmask_stats": blockmasks.statistics,
    r"relvit_labels": relvit.labels,
    r"relvit_\w+_grads": relvit.gradients,
    r"relvit_\w+": relvit.tensors,
    r"sincos": tables.sincos,
    r"schedules": optimizers.schedules,
    r"adamw_toy": optimizers.adamw,
    r"lars_linprobe_\w+": probing.lars,
    r"layer_decay": probing.layer_decay,
    r"init_stats_\w+": initial.rows,
}
# CASE/ARRAY that is given, not compared.
GIVEN = (
    r".*/(in|sd)/.*|sincos/.*_idx|schedules/.*/(epoch_f64|step)"
    r"|adamw_toy/(lr_f64|[xy]\d+|loss\d+|step0/.*|grad\d+/.*)"
    r"|maskfeat_hog.*/out/sensitive_cells|relvit_labels/s\d+/perm"
    r"|lars_linprobe_\w+/([xy]\d+|step0/.*|zero_w/grad)"
)
# What a case raises that doesn't fit our models or lacks an array.
ERRORS = (UserError, FlaxError, ArithmeticError, LookupError, TypeError, ValueError)


def check_folder(folder):
    """Rows of every case in a folder."""
    stems = sorted(path.stem for path in pathlib.Path(folder).glob("*.json"))
    return [row for stem in stems for row in check(ledger.load(folder, stem))]


def check(golden):
    """Rows of a case; what no function compares is "not covered"."""
    functions = [f for name, f in CASES.items() if re.fullmatch(name, golden.kind)]
    if not functions:
        return [ledger.uncovered(golden, "the whole case")]
    try:
        with jax.default_matmul_precision("highest"):
            rows = functions[0](golden)
    except ERRORS as error:  # one broken case must not hide the others
        return [ledger.broken(golden, error)]
    seen = {row.quantity for row in rows}
    rest = [
        name
        for name in golden.arrays
        if name not in seen and not re.fullmatch(GIVEN, f"{golden.kind}/{name}")
    ]
    return rows + [ledger.uncovered(golden, name) for name in rest]
