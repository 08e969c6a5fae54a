"""python -m tests.studies.bench_peers [WORK ...]: our train step against PyTorch's, on this CPU.

Prints a Markdown table, a row a work and dtype: images a second of both, taking turns in
one process, and how many times as fast we are. Without noise on the machine 15 minutes.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from tests import runs

PLAIN = {"vit.dropout": 0.0, "vit.droppath": 0.0, "vit.remat": "none", "batch_size": 8}
# Config and what is changed in it: the sizes of the published steps that are timed.
WORKS = {
    "supervised ViT-S/16": (
        "supervised_vitb.py:modern",
        {"vit.variant": "S/16", "method.mixup": 0.0, "method.cutmix": 0.0},
    ),
    "MAE ViT-B/16": ("mae_vitb.py", {}),
    "I-JEPA ViT-B/16": ("ijepa_vitb.py", {"method.max_context": 63}),  # as theirs
    "RelViT ViT-S/4": ("relvit_upstream.py:cifar10", {"batch_size": 64}),
    "MaskFeat ViT-B/16": ("maskfeat_vitb.py", {}),
}


def measure(config, changes, dtype, steps=5):
    """The figures of `bench step --twin`."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        changes = PLAIN | changes | {"vit.dtype": dtype}
        flags = [f"--config.{key}={value}" for key, value in changes.items()]
        command = [sys.executable, "-m", "vit_ssl_jax.bench", "step", "--twin"]
        command += [f"--config=configs/{config}", f"--steps={steps}", f"--json={out}"]
        subprocess.run(
            command + flags,
            cwd=runs.ROOT,
            env=runs.environment(1),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return json.loads(out.read_text())


def row(name, found):
    """A line of the table."""
    cells = [name, found["dtype"], f"{found['images_per_second']:.2f}"]
    for twin in found["twins"].values():
        cells.append(f"{twin['images_per_second']:.2f} ({twin['ratio']:.2f} x)")
    return "| " + " | ".join(cells) + " |"


def main(names):
    """All works, or those whose names contain one of `names`."""
    print("| work | dtype | jax | torch eager (ratio) | torch compiled (ratio) |")
    print("|---|---|---|---|---|")
    for work, (config, changes) in WORKS.items():
        if names and not any(name in work for name in names):
            continue
        for dtype in ("float32", "bfloat16"):
            print(row(work, measure(config, changes, dtype)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
