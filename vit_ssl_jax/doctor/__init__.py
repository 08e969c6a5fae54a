"""Whether this machine is fit to train: software, kernels, collectives, storage, data.

Each check is a function that returns findings (`findings.make`); the short one that
`main` makes by itself is `once.check_kernels`.
"""

import jax

from vit_ssl_jax import build, recipes
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.doctor import (
    collective,
    feed,
    findings,
    fused_blocks,
    machine,
    storage,
)
from vit_ssl_jax.errors import UserError

READ_SECONDS = 3.0
# Whose shapes are checked where no recipe is given.
CPU_RECIPE, RECIPE = "quickstart.py", "mae_vitb.py"
DEVICES = (
    "jax can't start on its devices: end what else uses them, or `pip install -e` again "
    "with '.[cuda]' or '.[tpu]'"
)
REPORT = "report this line with the versions above"


def diagnose(config=None, workdir="", seconds=READ_SECONDS):
    """Yields the findings on this machine, each when it is known.

    config: a recipe, or None: shapes are ViT-B/16's on an accelerator and the
        quickstart's on a CPU, and no data is read.
    workdir: folder to write to and to leave as it was; "": nothing is written.
    seconds: to read data for.

    A finding is a dict of name, ok, text, cure (what to do, "" where nothing is to be
    done or the text says it), and numbers by name. Of several processes each makes all
    checks, and what isn't ok on one isn't on any.
    """
    checks = (
        ("software", REPORT, machine.check_software),
        ("host", REPORT, machine.check_host),
        ("devices", DEVICES, machine.check_devices),
    )
    for name, cure, check in checks:
        results = agree(findings.examine(name, cure, check))
        yield from results
    if "devices" not in results[-1]:  # jax has none
        yield findings.left_out("all others", "first the devices")
        return
    given = config is not None
    if not given:
        cpu = jax.default_backend() == "cpu"
        config = recipes.load(CPU_RECIPE if cpu else RECIPE)
    results, run = check_config(config)
    yield from results
    checked = []
    if run:
        checked = agree(
            findings.examine("kernels", fused_blocks.CURE, fused_blocks.check, run)
        )
        yield from checked
    cure = f"devices can't reach each other: look at the network, or {REPORT}"
    yield from agree(
        findings.examine("collective", cure, collective.check, jax.devices())
    )
    yield from check_storage(workdir)
    if not given:
        yield findings.left_out("data", "give --config=configs/NAME.py")
        return
    speed = fused_blocks.find_speed(checked)
    yield from agree(
        findings.examine("data", feed.CURE, feed.check, config, speed, seconds)
    )


def check_config(config):
    """Findings on whether the recipe can run on the devices; and its `build.Run`."""
    runs = []

    def build_run():
        runs.append(build.make_run(config))
        axes = " ".join(f"{axis}={n}" for axis, n in runs[0].mesh.shape.items())
        return findings.make("recipe", True, f"{config.recipe} on a mesh {axes}")

    results = agree(findings.examine("recipe", REPORT, build_run))
    return results, runs[0] if results[0]["ok"] else None


def check_storage(workdir):
    """Findings on the workdir and on a checkpoint in it."""
    if not workdir:
        why = "give --workdir=DIR"
        return [findings.left_out(name, why) for name in ("workdir", "checkpoint")]

    def both():
        with storage.opened(workdir) as root:
            out = agree(
                findings.examine("workdir", storage.CURE, storage.check_file, root)
            )
            if not out[0]["ok"]:
                why = "first the workdir"
                return [*out, findings.left_out("checkpoint", why)]
            mesh = jax.sharding.Mesh(jax.devices(), ("all",))
            more = findings.examine(
                "checkpoint", storage.CURE, storage.check_checkpoint, root, mesh
            )
            return out + agree(more)

    return findings.examine("workdir", storage.CURE, both)


def agree(results):
    """The findings, and those that another process has and this one hasn't."""
    bad = [finding for finding in results if not finding["ok"]]
    try:
        with processes.together():
            if bad:
                raise UserError(findings.describe(bad[0]))
    except UserError as error:
        if not bad:
            return [findings.make(results[0]["name"], False, str(error)), *results]
    return results
