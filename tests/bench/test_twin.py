"""The PyTorch twins: as large as our models, the same work, and they train."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from tests.test_configs import shrink
from vit_ssl_jax import build
from vit_ssl_jax.bench import published_masks, report
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import stack
from vit_ssl_jax.ops import hog

torch = pytest.importorskip("torch")

from vit_ssl_jax.bench import torch_hog, torch_methods, torch_vit, twin

METHODS = sorted(torch_methods.METHODS)


def small(method, **changes):
    """A recipe of the method, shrunk; `changes` by dotted key with `__` for dots."""
    recipe = {"relvit": ("relvit_upstream.py", "cifar10")}.get(method)
    config = shrink(runs.load(*(recipe or [f"{method}_vitb.py"])))
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in changes.items()}
    )
    return config


def trained(module):
    """Number of trained parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize("method", METHODS)
def test_a_twin_has_as_many_parameters_as_our_model(method):
    config = small(method)
    params = build.make_run(config).program.state.params
    ours = sum(x.size for x in jax.tree.leaves(params))
    assert trained(torch_methods.METHODS[method](config)) == ours


@pytest.mark.parametrize("method", METHODS)
def test_a_step_trains_every_parameter(method, monkeypatch):
    config = small(method, optim__wd=0.0, vit__dtype="bfloat16")
    kept = {}
    monkeypatch.setattr(
        torch_methods.METHODS[method],
        "train",
        lambda self: kept.setdefault("module", self),
    )
    step = twin.make_step(config, "cpu", compiled=False)
    module = kept["module"]
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    step()
    for name, param in module.named_parameters():
        moved = not torch.equal(before[name], param)
        student = module.get_parameter(name.replace("teacher.", "vit."))
        fixed = not student.requires_grad
        assert moved != fixed, name


def test_the_block_is_ours(tiny, torch_weights):
    """Same weights, same tokens: the twin's block against the scanned one."""
    shapes = torch_weights.block_shapes("b", 32)
    weights = torch_weights.fill(shapes)
    names = {"attn.qkv": "qkv", "attn.proj": "out", "mlp.fc1": "mlp.0"}
    names |= {"mlp.fc2": "mlp.3", "norm1": "norm1", "norm2": "norm2"}
    state = {}
    for name, value in weights.items():
        part, _, kind = name.removeprefix("b.").rpartition(".")
        state[f"{names[part]}.{kind}"] = torch.tensor(value)
    block = torch_vit.Block(32, 128, 4, gelu="none", eps=1e-6)
    block.load_state_dict(state)
    tree = jax.tree.map(lambda x: x[None], torch_weights.block(weights, "b", 4))
    model = stack.Blocks(1, 4, 128, tiny.vit().style)
    x = np.random.default_rng(0).normal(size=(2, 5, 32)).astype(np.float32)
    with torch.no_grad():
        theirs = block(torch.tensor(x)).numpy()
    ours, _ = model.apply({"params": {"block": tree}}, jnp.asarray(x), False)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [0, 16])
def test_its_gradients_are_ours(window):
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    theirs = torch_hog.HOG(9, 8, window)(torch.tensor(image).permute(0, 3, 1, 2))
    ours = hog.hog(jnp.asarray(image), bins=9, cell=8, window=window)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_counts_of_published_masks_are_near_what_was_measured():
    """60 context tokens a batch of 8 at 224 px; a target is 15 to 20 % of 196."""
    method = runs.load("ijepa_vitb.py").method
    context, target = published_masks.token_counts(method, (14, 14), 8)
    assert 55 <= context <= 66
    assert 0.15 * 196 <= target <= 0.2 * 196
    alone, _ = published_masks.token_counts(method, (14, 14), 1)
    assert context < alone  # more images, a smaller least one


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("rotation", {}, "config.method.name=rotation"),
        ("mae", {"optim.name": "lars"}, "config.optim.name=lars"),
        ("mae", {"accum": 2}, "config.accum=2"),
    ],
)
def test_what_has_no_twin_is_refused(method, change, said):
    config = small(method)
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=said):
        twin.check(config)


def test_torch_is_imported_by_the_twin_alone():
    """`bench step` must run without it."""
    for path in (runs.ROOT / "vit_ssl_jax" / "bench").glob("*.py"):
        heads = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        allowed = path.stem == "twin" or path.stem.startswith("torch_")
        assert allowed or not any(head.startswith("torch") for head in heads), path


def test_a_twin_that_has_no_room_names_a_smaller_batch(monkeypatch):
    def make_step(config, device, compiled):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(twin, "make_step", make_step)
    with pytest.raises(UserError, match="Tried to .*--config.batch_size=8"):
        report.make_twins(runs.small(batch_size=16))
