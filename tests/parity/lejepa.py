"""LeJEPA against rbalestr-lab/lejepa: projector and loss."""

import jax
import numpy as np

from tests.parity import build, ledger, mae
from vit_ssl_jax.interop import table
from vit_ssl_jax.methods import lejepa

ROUNDING = 1e-6  # of the largest gradient of a layer's weights


def projector_rows(projector, inputs):
    """Rows of the projector under torchvision's numbers (`ops.MLP`)."""
    rows, width = [], inputs
    for i, name in enumerate(("first", "second")):
        rows += table.dense_rows(
            str(3 * i), f"{name}_embed", width, projector.hidden, None
        )
        width = projector.hidden
        rows += table.norm_rows(str(3 * i + 1), f"{name}_norm", width, None)
    return rows + table.dense_rows(
        "6", "projection_embed", width, projector.features, None
    )


def rows(golden):
    """Rows of `lejepa`: projections, statistics, both losses, all gradients."""
    c = golden.config
    style = build.style(1e-6, "timm")
    projector = lejepa.Projector(c["hidden"], c["proj_dim"], style)
    names = projector_rows(projector, c["embed_dim"])
    params = table.import_params(names, golden.tensors("sd/"))
    numbers = dict(points=c["points"], furthest=c["t_max"], dtype=style.dtype)
    slices = golden.arrays["in/slices"]

    def judge(out):
        statistic, apart = lejepa.loss_parts(out, slices, **numbers)
        loss = c["lamb"] * statistic.mean() + (1.0 - c["lamb"]) * apart
        return loss, (statistic, apart)

    def project(params, embedding):
        out = projector.apply({"params": params}, embedding)
        return out.reshape(-1, c["views"], c["proj_dim"])

    @jax.jit
    def run(params, embedding):
        out = project(params, embedding)
        (loss, parts), of_out = jax.value_and_grad(judge, has_aux=True)(out)
        of_all = jax.grad(lambda *xs: judge(project(*xs))[0], argnums=(0, 1))
        return out, loss, parts, of_out, of_all(params, embedding)

    embedding = golden.arrays["in/embedding"]
    out, loss, (statistic, apart), of_out, (grads, of_in) = run(params, embedding)
    tensors = {"out/proj": out.swapaxes(0, 1), "out/statistic": statistic}
    losses = {"out/loss": loss, "out/sigreg": statistic.mean(), "out/invariance": apart}
    theirs = table.export_params(names, grads)
    nothing = {n: theirs.pop(f"{n}.bias") for n in ("0", "3")}
    inputs = {"grad/proj": of_out.swapaxes(0, 1), "grad/embedding": of_in}
    return [
        *ledger.compare(golden, tensors, ledger.TENSOR),
        *ledger.compare(golden, losses, ledger.LOSS),
        *ledger.compare(golden, inputs, ledger.GRADIENT),
        *mae.gradient_rows(golden, theirs, ""),
        *(row for n, x in nothing.items() for row in nothing_rows(golden, n, x)),
    ]


def nothing_rows(golden, layer, grad):
    """Rows of a bias before a batch norm, whose gradient is what rounding leaves."""
    largest = np.abs(golden.arrays[f"grad/{layer}.weight"]).max()
    limit = ledger.Tolerance(absolute=ROUNDING * float(largest))
    stored = {f"grad_l2/{n}": x for n, x in golden.json.get("grad_l2", {}).items()}
    name = f"{layer}.bias"
    return [
        *ledger.compare(golden, {f"grad/{name}": grad}, limit),
        *ledger.compare(
            golden, {f"grad_l2/{name}": np.linalg.norm(grad)}, limit, stored
        ),
    ]
