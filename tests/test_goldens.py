"""Our code computes what the published implementations printed (tests/golden)."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests import parity, runs
from tests.parity import ledger
from vit_ssl_jax.models import layers
from vit_ssl_jax.ops import patches, relations

FOLDER = pathlib.Path(__file__).parent / "golden"
# Case -> rows compared, no fewer.
COMPARED = {
    "adamw_toy": 25,
    "dino": 119,
    "ijepa": 9,
    "ijepa_mask_stats": 23,
    "ijepa_step": 144,
    "init_stats_ijepa": 687,
    "init_stats_mae": 1219,
    "init_stats_maskfeat": 459,
    "init_stats_relvit": 450,
    "lars_linprobe_wd0": 20,
    "lars_linprobe_wd1": 20,
    "layer_decay": 4,
    "lejepa": 27,
    "mae": 18,
    "mae_finetune_gp0": 6,
    "mae_finetune_gp1": 6,
    "mae_grads_normpix0": 97,
    "mae_grads_normpix1": 97,
    "relvit_downstream": 42,
    "relvit_downstream_grads": 32,
    "relvit_full": 80,
    "relvit_full_grads": 56,
    "relvit_labels": 32,
    "relvit_upstream": 66,
    "relvit_upstream_grads": 49,
    "maskfeat_blockmask_stats": 14,
    "maskfeat_hog": 6,
    "maskfeat_hog_natural": 2,
    "maskfeat_slowfast": 39,
    "maskfeat_slowfast_grads": 33,
    "schedules": 11,
    "sincos": 30,
    "vit_avg": 60,
    "vit_token": 60,
    "vit_token_grads": 44,
}


def failures(golden):
    return [row.quantity for row in parity.check(golden) if row.verdict == ledger.FAIL]


# Laws of many draws: 10 s and more each.
LONG = ("ijepa_mask_stats", "maskfeat_blockmask_stats")
LONG += ("init_stats_ijepa", "init_stats_mae", "init_stats_maskfeat")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case in LONG else [])
        for case in COMPARED
    ],
)
def test_case(case):
    rows = parity.check(ledger.load(FOLDER, case))
    bad = [row for row in rows if row.verdict != ledger.OK]
    assert not bad, "\n" + ledger.format_rows(bad)
    assert len(rows) >= COMPARED[case]


def test_every_stored_case_is_compared():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(COMPARED)


@pytest.fixture
def golden():
    return ledger.load(FOLDER, "mae")


def test_other_epsilon_fails(golden):
    config = golden.config | {"norm_eps": 1e-5}
    changed = dataclasses.replace(golden, json=golden.json | {"config": config})
    assert "out/pred" in failures(changed)


def test_tanh_gelu_fails(golden, monkeypatch):
    monkeypatch.setattr(layers, "gelu", lambda x, style: jax.nn.gelu(x))
    assert "out/block_enc0" in failures(golden)


def test_exchanged_query_and_key_fail(golden):
    swapped = {}
    for name, array in golden.arrays.items():
        if ".qkv." in name:
            q, k, v = np.split(array, 3)
            swapped[name] = np.concatenate([k, q, v])
    changed = dataclasses.replace(golden, arrays=golden.arrays | swapped)
    assert {"out/block_enc0", "out/block_dec0"} <= set(failures(changed))


def test_other_patch_order_fails(golden, monkeypatch):
    """(channel, row, column) as a convolution's weight is stored."""
    patchify = patches.patchify

    def channel_first(image, patch):
        x = patchify(image, patch)
        shape = x.shape
        x = x.reshape(*shape[:2], patch * patch, -1).swapaxes(-1, -2)
        return x.reshape(shape)

    monkeypatch.setattr(patches, "patchify", channel_first)
    failed = failures(golden)
    assert "out/patch_embed" in failed
    assert "out/normpix0/target" in failed


def test_other_initialisation_fails(monkeypatch):
    """Zero for the patch embedding's bias, which torch draws; and a wider kernel."""
    stats = ledger.load(FOLDER, "init_stats_relvit")
    init = dataclasses.replace(
        layers.INITS["timm"],
        patch_bias=lambda fan_in: jax.nn.initializers.zeros,
        dense=jax.nn.initializers.normal(0.03),
    )
    monkeypatch.setitem(layers.INITS, "timm", init)
    failed = " ".join(failures(stats))
    assert "patch_embed.proj.bias std" in failed
    assert "blocks.0.attn.qkv.weight std" in failed
    assert "cls_token" not in failed


def test_other_label_order_fails(monkeypatch):
    """What j is to i in place of what i is to j."""
    ours = relations.relations
    monkeypatch.setattr(
        relations, "relations", lambda order, grid: ours(order, grid).swapaxes(1, 2)
    )
    failed = failures(ledger.load(FOLDER, "relvit_labels"))
    assert "s3/relations" in failed and "s3/distances" not in failed


def test_a_case_that_raises_is_a_failed_row(golden):
    arrays = {n: x for n, x in golden.arrays.items() if n != "sd/norm.bias"}
    (row,) = parity.check(dataclasses.replace(golden, arrays=arrays))
    assert row.verdict == ledger.FAIL
    assert "raised UserError" in row.quantity


@pytest.mark.parametrize(
    ("changed", "status"),
    runs.mostly_slow(
        [(None, 0), ("in/unheard_of", 1), ("step1/token", 1)],
        (None, 0),
        ("step1/token", 1),
    ),
)
def test_the_command_fails_where_a_row_does(tmp_path, changed, status):
    """All rows right; an array that nothing compares; one that is wrong."""
    for suffix in ("json", "npz"):
        shutil.copy(FOLDER / f"adamw_toy.{suffix}", tmp_path)
    if changed:
        arrays = dict(np.load(tmp_path / "adamw_toy.npz"))
        arrays[changed.replace("in/", "")] = np.float32([1.0])
        np.savez(tmp_path / "adamw_toy.npz", **arrays)
    done = subprocess.run(
        [sys.executable, "-m", "tests.parity", tmp_path],
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    *_, last = done.stdout.splitlines()
    said = {None: "0 FAIL, 0 not", "in/unheard_of": "1 not", "step1/token": "1 FAIL"}
    assert said[changed] in last


def test_the_summary_counts_every_row():
    rows = parity.check(ledger.load(FOLDER, "adamw_toy"))
    rows.append(ledger.uncovered(ledger.load(FOLDER, "adamw_toy"), "x"))
    lines = [line.split("|")[1:-1] for line in ledger.summarise(rows).splitlines()[2:]]
    assert sum(int(line[1]) for line in lines) == len(rows)
    assert sum(int(line[2]) for line in lines) == 1


@pytest.mark.parametrize("ours", [[1.0, np.nan], [1.0], [1.0, 2.1]])
def test_ledger_refuses(golden, ours):
    row = ledger.compare_one(golden, "x", ours, [1.0, 2.0], ledger.TENSOR)
    assert row.verdict == ledger.FAIL


def test_ledger_tolerance(golden):
    both = ledger.Tolerance(relative=0.1, absolute=0.1)
    for ours, verdict in ((2.25, ledger.OK), (2.35, ledger.FAIL)):
        assert ledger.compare_one(golden, "x", ours, 2.0, both).verdict == verdict
    mine = np.array([1.0, 0.05])
    theirs = np.array([1.0, 0.0])
    for largest, verdict in ((0.06, ledger.OK), (0.04, ledger.FAIL)):
        limit = ledger.Tolerance(largest=largest)
        assert ledger.compare_one(golden, "x", mine, theirs, limit).verdict == verdict
