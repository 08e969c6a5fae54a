"""DINO beside a plain PyTorch of float64, and what follows from its definition."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import parity
from tests.parity import dino as golden_dino
from tests.parity import ledger
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import fair, table
from vit_ssl_jax.methods import dino

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
CLS = (("posemb", "learned"), ("cls", True))


@pytest.fixture(scope="module")
def golden():
    return ledger.load(FOLDER, "dino")


def torch_gradients(golden):
    """The gradients of a case in float64, by its names."""
    torch = pytest.importorskip("torch")
    f, c = torch.nn.functional, golden.config

    def tensors(prefix):
        found = golden.tensors(prefix).items()
        return {name: torch.tensor(x, dtype=torch.float64) for name, x in found}

    def block(p, x):
        b, n, d = x.shape
        y = f.layer_norm(x, (d,), p["norm1.weight"], p["norm1.bias"], 1e-6)
        qkv = f.linear(y, p["attn.qkv.weight"], p["attn.qkv.bias"])
        qkv = qkv.reshape(b, n, 3, c["num_heads"], -1).permute(2, 0, 3, 1, 4)
        y = f.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(b, n, d)
        x = x + f.linear(y, p["attn.proj.weight"], p["attn.proj.bias"])
        y = f.layer_norm(x, (d,), p["norm2.weight"], p["norm2.bias"], 1e-6)
        y = f.gelu(f.linear(y, p["mlp.fc1.weight"], p["mlp.fc1.bias"]))
        return x + f.linear(y, p["mlp.fc2.weight"], p["mlp.fc2.bias"])

    def backbone(p, image):
        p = {n.removeprefix("backbone."): x for n, x in p.items()}
        weight, bias = (p[f"patch_embed.proj.{k}"] for k in ("weight", "bias"))
        x = f.conv2d(image, weight, bias, stride=c["patch_size"]).flatten(2).mT
        place, side = p["pos_embed"], image.shape[-1] // c["patch_size"]
        old = math.isqrt(place.shape[1] - 1)
        grid = place[:, 1:].mT.reshape(1, -1, old, old)
        if side != old:
            factor = (side + 0.1) / old
            grid = f.interpolate(grid, scale_factor=(factor,) * 2, mode="bicubic")
        first = (p["cls_token"] + place[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first, x + grid.flatten(2).mT], 1)
        for i in range(c["depth"]):
            prefix = f"blocks.{i}."
            own = {n.removeprefix(prefix): w for n, w in p.items()}
            x = block(own, x)
        x = f.layer_norm(x, x.shape[-1:], p["norm.weight"], p["norm.bias"], 1e-6)
        return x[:, 0]

    def head(p, x):
        for i in (0, 2, 4):
            x = f.linear(x, p[f"head.mlp.{i}.weight"], p[f"head.mlp.{i}.bias"])
            x = f.gelu(x) if i < 4 else f.normalize(x, dim=-1)
        v, g = (p[f"head.last_layer.weight_{k}"] for k in "vg")
        return f.linear(x, g * v / v.norm(dim=1, keepdim=True))

    student, teacher = tensors("sd/student/"), tensors("sd/teacher/")
    trained = {
        n: x.requires_grad_()
        for n, x in student.items()
        if f"grad/{n}" in golden.arrays
    }
    inputs = tensors("in/")
    seen = [inputs[k].flatten(0, 1) for k in ("global", "local") if k in inputs]
    out = head(student, torch.cat([backbone(student, x) for x in seen]))
    told = head(teacher, backbone(teacher, seen[0]))
    temperature = golden.arrays["out/teacher_temp"][c["epoch"]]
    told = ((told - inputs["center"]) / temperature).softmax(-1).chunk(2)
    said = (out / c["student_temp"]).log_softmax(-1).chunk(2 + c["local_crops"])
    pairs = [(q, p) for i, q in enumerate(told) for j, p in enumerate(said) if i != j]
    loss = sum(-(q.detach() * p).sum(-1).mean() for q, p in pairs) / len(pairs)
    names = list(trained)
    return dict(zip(names, torch.autograd.grad(loss, [trained[n] for n in names])))


def test_gradients_are_nearer_to_float64_than_the_stored_ones(golden):
    """So it is these that the ledger's tolerance for DINO is for."""
    exact = {name: x.numpy() for name, x in torch_gradients(golden).items()}
    model = golden_dino.make_model(golden)
    names = fair.dino_rows(model)
    params, ema = (
        table.import_params(names, golden.tensors(f"sd/{who}/"))
        for who in ("student", "teacher")
    )
    ema = {**ema, "centre": golden.arrays["in/center"][0]}
    run = golden_dino.make_step(golden, model)
    grads = run(params, ema, golden_dino.make_views(golden))[3]
    ours = table.export_params(names, grads)

    def worst(found):
        return max(
            np.abs(found(n) - x).max() / np.abs(x).max() for n, x in exact.items()
        )

    assert len(exact) == len(golden.tensors("grad/"))
    assert worst(lambda n: ours[n]) < 2e-6 < worst(lambda n: golden.arrays[f"grad/{n}"])


def test_positions_of_the_plain_size_fail_the_ledger(golden, monkeypatch):
    """A factor of 0.1 more is seen."""
    monkeypatch.setitem(dino.EXCESS, "official", 0.0)
    failed = {r.quantity for r in parity.check(golden) if r.verdict == ledger.FAIL}
    assert {"out/student", "out/loss"} <= failed and "out/teacher" not in failed


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize("crops", [2, 5])
def test_loss_is_the_mean_over_pairs_of_different_crops(crops):
    rng = np.random.default_rng(crops)
    out, told = rng.normal(size=(3, crops, 7)), softmax(rng.normal(size=(3, 2, 7)))
    pairs = [
        -(told[:, t] * np.log(softmax(out[:, v] / 0.1))).sum(-1).mean()
        for t in range(2)
        for v in range(crops)
        if v != t
    ]
    targets = {"probability": jnp.float32(told)}
    loss, metrics = dino.loss_fn(jnp.float32(out), targets, temperature=0.1)
    np.testing.assert_allclose(loss, np.mean(pairs), rtol=1e-5)
    entropy = -(told * np.log(told)).sum(-1).mean()
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["divergence"], loss - entropy, rtol=1e-4)


def test_a_student_that_says_what_it_is_told_is_not_apart_from_it():
    told = softmax(np.random.default_rng(0).normal(size=(4, 1, 9))).repeat(2, 1)
    out = jnp.float32(0.1 * np.log(told))[:, :1].repeat(5, 1)
    _, metrics = dino.loss_fn(out, {"probability": jnp.float32(told)}, temperature=0.1)
    assert abs(metrics["divergence"]) < 1e-6


def test_the_teacher_gets_warmer_epoch_by_epoch(tiny):
    """Three epochs of warm-up from 0.04 to 0.07; the tiny run has ten of ten steps."""
    method = tiny.method("dino")
    views = jax.jit(method.make_views)(jax.random.key(0), tiny.batch(2))
    params = jax.jit(method.model.init, static_argnums=2)(
        jax.random.key(1), views, False
    )
    ema = method.init_ema(params["params"])
    centre = jnp.linspace(-0.1, 0.1, 32)
    ema |= {"centre": centre}
    teacher = {"params": {name: ema[name] for name in ("encoder", "head")}}
    out = method.model.apply(teacher, {"global": views["global"]}, False)
    targets = jax.jit(lambda step: method.make_targets(ema, views, step))
    for step, temperature in (
        (0, 0.04),
        (9, 0.04),
        (10, 0.055),
        (20, 0.07),
        (99, 0.07),
    ):
        expected = jax.nn.softmax((out - centre[None, None]) / temperature)
        found = targets(jnp.int32(step))
        np.testing.assert_allclose(found["probability"], expected, atol=2e-6)
        np.testing.assert_allclose(found["output"], out.mean(1), atol=1e-6)


def test_momentum_is_half_a_cosine_and_the_centre_an_average(tiny):
    method = tiny.method("dino", ema_start=0.9, ema_end=1.0)
    weights = method.update_ema.keywords["weights"]
    for step in (0, 1, 37, 99, 100):
        theirs = 1.0 + 0.5 * (0.9 - 1.0) * (1 + math.cos(math.pi * step / 100))
        np.testing.assert_allclose(weights(step), (theirs, 1 - theirs), atol=1e-7)
    tree = {name: {"w": jnp.ones(3)} for name in ("encoder", "head")}
    ema = {**tree, "centre": jnp.full(4, 2.0)}
    params = jax.tree.map(lambda x: 3.0 * x, tree) | {"other": jnp.ones(2)}
    targets = {"output": jnp.float32([[1, 2, 3, 4], [3, 4, 5, 6]])}
    moved = method.update_ema(ema, params, targets, 0)
    np.testing.assert_allclose(
        moved["centre"], 0.9 * 2 + 0.1 * np.arange(2, 6), rtol=1e-6
    )
    for name in ("encoder", "head"):
        np.testing.assert_allclose(moved[name]["w"], 0.9 + 0.1 * 3.0, rtol=1e-6)


def test_prototypes_wait_for_their_epoch(tiny):
    assert tiny.method("dino", freeze_epochs=1.5).frozen[0] == (
        ("head", "prototypes"),
        15,
    )
    assert tiny.method("dino", freeze_epochs=0.0).frozen[0][1] == 0


def test_a_learned_length_multiplies_and_a_fixed_one_is_one(tiny):
    heads = [
        tiny.method("dino", norm_last=fixed).model.head.clone(parent=None)
        for fixed in (True, False)
    ]
    x = jnp.float32(np.random.default_rng(0).normal(size=(2, 3, 32)))
    fixed, learned = (head.init(jax.random.key(0), x)["params"] for head in heads)
    assert set(learned) - set(fixed) == {"gain"}
    plain = heads[0].apply({"params": fixed}, x)
    assert np.abs(plain).max() <= 1 + 1e-6  # cosines
    longer = {**fixed, "gain": jnp.full(32, 3.0)}
    np.testing.assert_allclose(
        heads[1].apply({"params": longer}, x), 3 * plain, rtol=1e-5
    )
    scaled = {**fixed, "prototypes": 5.0 * fixed["prototypes"]}
    np.testing.assert_allclose(heads[0].apply({"params": scaled}, x), plain, atol=1e-6)


@pytest.mark.parametrize("fixed", [True, False])
def test_published_names_are_read_and_written(golden, fixed):
    """With a fixed gain of one, and with a trained one."""
    config = golden.config | {"norm_last_layer": fixed}
    other = dataclasses.replace(golden, json=golden.json | {"config": config})
    names = fair.dino_rows(golden_dino.make_model(other))
    theirs = golden.tensors("sd/student/")
    gain = "head.last_layer.weight_g"
    theirs[gain] = theirs[gain] * (1.0 if fixed else np.float32(2.0))
    params = table.import_params(names, theirs)
    assert ("gain" in params["head"]) != fixed
    back = table.export_params(names, params)
    assert back.keys() == theirs.keys()
    jax.tree.map(np.testing.assert_array_equal, back, theirs)


@functools.cache
def features(tiny, compat, side, vit=CLS):
    """Of crops of one size by fixed weights: `[2 1 32]`."""
    model = tiny.method("dino", vit_changes=vit, compat=compat).model
    views = {
        "global": jnp.zeros((1, 2, 32, 32, 3)),
        "local": jnp.zeros((1, 2, 16, 16, 3)),
    }
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), views, False))
    image = np.float32(np.random.default_rng(2).normal(size=(2, 1, side, side, 3)))
    bound = model.bind({"params": tiny.random(shapes["params"])})
    return bound.features(jnp.asarray(image), False), bound, image


def test_a_whole_crop_is_what_the_encoder_makes_of_an_image(tiny):
    found, bound, image = features(tiny, "official", 32)
    pooled = bound.encoder(jnp.asarray(image[:, 0]), False)[:, 1:].mean(1)
    np.testing.assert_allclose(found[:, 0], pooled, atol=1e-5)


def test_compat_moves_the_positions_of_local_crops_alone(tiny):
    for side, moved in ((32, False), (16, True)):
        one, other = (features(tiny, c, side)[0] for c in ("official", "none"))
        assert (np.abs(one - other).max() > 1e-3) == moved
    rope = (("posemb", "rope"), ("cls", False))
    one, other = (features(tiny, c, 16, rope)[0] for c in ("official", "none"))
    np.testing.assert_array_equal(one, other)  # no table


@pytest.mark.parametrize("size", [0, 3, 18, 36])
def test_local_crops_of_half_patches_are_refused(tiny, size):
    with pytest.raises(UserError, match=f"config.method.local_size: {size} "):
        tiny.method("dino", local_size=size)


def test_without_local_crops_there_are_two(tiny):
    method = tiny.method("dino", local_crops=0)
    views = jax.eval_shape(method.make_views, jax.random.key(0), tiny.batch(3))
    assert {k: v.shape for k, v in views.items()} == {"global": (3, 2, 32, 32, 3)}


def test_numbers_of_another_case_are_read_from_its_config(golden):
    config = golden.config | {"warmup_teacher_temp_epochs": 5, "epochs": 7}
    other = dataclasses.replace(golden, json=golden.json | {"config": config})
    found = golden_dino.temperatures(other.config)
    np.testing.assert_allclose(found[:5], np.linspace(0.04, 0.07, 5))
    assert found.shape == (7,) and np.all(found[5:] == 0.07)
    cut = golden_dino.temperatures(other.config | {"epochs": 3})
    np.testing.assert_array_equal(cut, found[:3])
