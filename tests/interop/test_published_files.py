"""Files as MAE, I-JEPA, MaskFeat, RelViT, DeiT, DINO and Google saved theirs.

Their arrays are those of the goldens, made by the published code, or random ones under the
published names; what comes out is compared with the goldens' outputs, with transformers'
model of the same network, or with numpy's reading of the layout.
"""

import argparse
import dataclasses

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

import vit_ssl_jax
from tests import runs
from tests.interop import originals
from vit_ssl_jax import build, exporting, finished, partition, weights
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import recognise

torch = pytest.importorskip("torch")
HEADS = dict(heads=3, decoder_heads=4)


def read_golden(case):
    """The arrays of a golden case by their names."""
    with np.load(runs.ROOT / "tests" / "golden" / f"{case}.npz") as file:
        return dict(file)


def tensors(arrays):
    """Arrays as torch's tensors."""
    return {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}


def save(tree, path):
    """Saves a checkpoint; returns the path."""
    torch.save(tree, path)
    return path


def load_model(found):
    """`(model, params, ema)` of weights, as `finished` builds them."""
    config = finished.ConfigDict(finished.as_tuples(found.config))
    model = build.make_model(config, partition.make_mesh(finished.MESH)).method.model
    return model, found.tree["params"], found.tree["ema"]


def images_of(golden):
    """A golden's images, channels last."""
    return np.moveaxis(golden["in/imgs"], 1, -1)


def part(golden, prefix):
    """The arrays of a golden below `prefix`, under their own names."""
    return {
        k.removeprefix(prefix): x for k, x in golden.items() if k.startswith(prefix)
    }


def test_mae_whole_and_its_encoder_alone(tmp_path):
    golden = read_golden("mae")
    state = tensors(part(golden, "sd/"))
    args = argparse.Namespace(model="mae_vit_base_patch16", lr=1e-3)
    whole = {"model": state, "optimizer": {}, "epoch": 3, "scaler": {}, "args": args}
    found = weights.read(save(whole, tmp_path / "mae.pth"), **HEADS)
    assert (found.source, found.unknown) == ("mae", ())
    model, params, _ = load_model(found)
    keep = golden["out/ids_keep"]
    hide = np.argsort(golden["in/noise"], 1)[:, keep.shape[1] :]
    views = dict(image=images_of(golden), keep=keep, hide=hide)
    pixels = model.apply({"params": params}, views, False)
    expected = np.take_along_axis(golden["out/pred"], hide[:, :, None], 1)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)

    bare = {k: x for k, x in state.items() if "decoder" not in k and k != "mask_token"}
    found = weights.read(save({"model": bare}, tmp_path / "bare.pth"), heads=3)
    assert found.config["vit"]["posemb"] == "sincos"
    assert found.config["data"]["mean"] == [0.485, 0.456, 0.406]
    assert "taken for MAE's" in " ".join(found.lines)
    check_equal(found.tree["params"]["encoder"], params["encoder"])


def check_equal(ours, expected):
    """Two trees of arrays are the same, bit for bit."""
    ours, expected = flatten_dict(ours), flatten_dict(expected)
    assert sorted(ours) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=str(name))


@pytest.mark.parametrize("case", ["vit_token", "vit_avg", "mae_finetune_gp1"])
def test_classifiers_of_deit_and_mae(case, tmp_path):
    golden = read_golden(case)
    file = save({"model": tensors(part(golden, "sd/"))}, tmp_path / "file.pth")
    found = weights.read(file, heads=3)
    model, params, _ = load_model(found)
    assert found.config["data"]["num_classes"] == len(golden["sd/head.bias"])
    logits = model.apply({"params": params}, {"image": images_of(golden)}, False)
    np.testing.assert_allclose(logits, golden["out/logits"], atol=1e-5)


@pytest.mark.parametrize(("source", "wrapper"), [("timm", "timm"), ("plain", "mae")])
def test_positions_are_resampled_as_their_code_does(source, wrapper, tmp_path):
    """timm's files antialiased; others' as MAE and torch's bicubic do."""
    golden = read_golden("vit_token")
    state = part(golden, "sd/")
    found = weights.read(tensors(state), heads=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    config = found.config | {"recipe": f"weights:{wrapper}"}
    found = dataclasses.replace(found, config=config)
    encoder = vit_ssl_jax.load(found, size=(48, 48), say=lambda line: None)
    expected = golden[f"out/pos_{source}_12x12"]
    np.testing.assert_allclose(encoder.params["posemb"], expected, atol=1e-5)


def test_ijepa_gives_its_target_encoder_and_says_so(tmp_path):
    golden = read_golden("ijepa")
    parts = dict(encoder="encoder", predictor="predictor", target_encoder="target")
    tree = {
        ours: {
            f"module.{k}": x for k, x in tensors(part(golden, f"sd/{name}/")).items()
        }
        for ours, name in parts.items()
    }
    tree |= dict(opt={}, scaler=None, epoch=3, loss=0.1, batch_size=128, world_size=16)
    found = weights.read(save(tree, tmp_path / "ijepa.pth.tar"), heads=3)
    assert "the target encoder is taken" in " ".join(found.lines)
    encoder = vit_ssl_jax.load(
        tmp_path / "ijepa.pth.tar", heads=3, say=lambda line: None
    )
    ours = encoder.module.apply({"params": encoder.params}, images_of(golden), False)
    np.testing.assert_allclose(ours, golden["out/target_raw"], atol=2e-5)
    model, params, ema = load_model(found)
    student = {"params": params["encoder"]}
    tokens = model.encoder.apply(student, images_of(golden), False)
    np.testing.assert_allclose(tokens, golden["out/encoder_full"], atol=2e-5)
    assert set(params) == {"encoder", "predictor"} and set(ema) == {"encoder"}


@pytest.mark.parametrize("layout", ["slowfast", "mmpretrain"])
def test_maskfeat_in_both_layouts(layout, tmp_path):
    from vit_ssl_jax.interop import maskfeat

    golden = read_golden("maskfeat_slowfast")
    state = part(golden, "sd/")
    if layout == "mmpretrain":
        state = {maskfeat.mmpretrain_name(name): x for name, x in state.items()}
        state["target_generator.weight_x"] = np.zeros((1, 1, 3, 3), np.float32)
    else:
        state["hogs.0.weight_x"] = np.zeros((3, 1, 3, 3), np.float32)
    wrapper = dict(slowfast="model_state", mmpretrain="state_dict")[layout]
    tree = {wrapper: tensors(state), "epoch": 299, "cfg": "yaml: text"}
    found = weights.read(save(tree, tmp_path / "file.pyth"), heads=3)
    assert found.source == f"maskfeat-{layout}" and len(found.left_out) == 1
    model, params, _ = load_model(found)
    hide = golden["in/mask"].reshape(3, 16).astype(bool)
    views = dict(image=images_of(golden), hide=hide)
    ours = np.asarray(model.apply({"params": params}, views, False))
    np.testing.assert_allclose(ours, golden["out/pred_all"], atol=1e-5)


@pytest.mark.parametrize("case", ["relvit_upstream", "relvit_full"])
def test_relvit_lightning_checkpoints(case, tmp_path):
    golden = read_golden(case)
    state = part(golden, "sd/")
    tree = {"state_dict": tensors(state), "epoch": 99, "callbacks": {}, "loops": {}}
    facts = dict(heads=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = weights.read(save(tree, tmp_path / "last.ckpt"), **facts)
    assert found.source == "relvit"
    method = found.config["method"]
    assert method["relations"] == 1.0 and (method["labels"] > 0) == (
        case == "relvit_full"
    )
    left = [name for name in found.left_out if "v_lin" not in name]
    assert left == (["backbone.pos_embed"] if case == "relvit_upstream" else [])
    read = set(state) - set(found.left_out)
    count = sum(np.size(state[name]) for name in read)
    assert count == sum(np.size(x) for x in flatten_dict(found.tree["params"]).values())


def dino_names(version, swiglu):
    """`(transformers' name, the original's)` as pairs of text to replace."""
    pairs = [
        ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("embeddings.patch_embeddings.", "patch_embed.proj."),
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.mask_token", "mask_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.register_tokens", "register_tokens"),
        ("encoder.layer.", "blocks."),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
        ("attention.output.dense", "attn.proj"),
        ("attention.o_proj", "attn.proj"),
        ("mlp.weights_in", "mlp.w12"),
        ("mlp.weights_out", "mlp.w3"),
        ("layernorm.", "norm."),
    ]
    if version == 3:
        pairs += [("layer.", "blocks."), ("register_tokens", "storage_tokens")]
        pairs += [("mlp.gate_proj", "mlp.w1"), ("mlp.down_proj", "mlp.fc2")]
        up = "mlp.w2" if swiglu else "mlp.fc1"
        pairs += [("mlp.up_proj", up)] + [("mlp.fc2", "mlp.w3")] * swiglu
    return pairs


def as_original(state, version, swiglu, heads):
    """A state_dict of transformers' file under the names of DINOv2's or DINOv3's code."""
    out = {}
    for name, array in state.items():
        for old, new in dino_names(version, swiglu):
            name = name.replace(old, new)
        out[name] = array
    for i in range(2):
        query, key, value = (
            (
                "attention.attention.query",
                "attention.attention.key",
                "attention.attention.value",
            )
            if version == 2
            else ("attention.q_proj", "attention.k_proj", "attention.v_proj")
        )
        for kind in ("weight", "bias"):
            parts = [
                out.pop(f"blocks.{i}.{x}.{kind}", None) for x in (query, key, value)
            ]
            if parts[1] is None:  # published files hold numbers there, behind a mask
                parts[1] = np.full_like(parts[0], 7.0)
                mask = np.repeat(np.float32([1, 0, 1]), len(parts[0]))
                out[f"blocks.{i}.attn.qkv.bias_mask"] = mask
            out[f"blocks.{i}.attn.qkv.{kind}"] = np.concatenate(parts)
    if version == 3:
        count = 64 // heads // 4
        out["rope_embed.periods"] = np.float32(100.0 ** (np.arange(count) / count))
    return out


@pytest.mark.parametrize(
    ("case", "version"),
    runs.mostly_slow(
        [
            ("Dinov2Model", 2),
            ("Dinov2 SwiGLU", 2),
            ("Dinov2WithRegisters", 2),
            ("DINOv3", 3),
            ("DINOv3 SwiGLU", 3),
        ],
        ("Dinov2WithRegisters", 2),
        ("DINOv3", 3),
    ),
)
def test_dinov2_and_dinov3_under_their_own_names(case, version, tmp_path):
    from tests.interop.test_libraries import save_hf

    save_hf(case, tmp_path / "hf")
    state = load_file(tmp_path / "hf" / "model.safetensors")
    original = as_original(state, version, "SwiGLU" in case, heads=4)
    file = save(tensors(original), tmp_path / "pretrain.pth")
    ours = vit_ssl_jax.load(file, heads=4, size=(32, 32), say=lambda line: None)
    theirs = vit_ssl_jax.load(tmp_path / "hf", say=lambda line: None)
    images = originals.pixels(2, 32, 32)
    found = [
        np.asarray(e.module.apply({"params": e.params}, images, False))
        for e in (ours, theirs)
    ]
    np.testing.assert_array_equal(*found)


# ---- Google's ---------------------------------------------------------------------


def google_arrays(linen=False, top=False, representation=0, cls=True):
    """Random arrays of a ViT 2x16x2/4 at 12 px under Google's names."""
    rng = np.random.default_rng(0)
    norm2, mlp, attn = "LayerNorm_2", "MlpBlock_3", "MultiHeadDotProductAttention_1"
    if linen:
        norm2, mlp, attn = "LayerNorm_1", "MlpBlock_0", "MultiHeadDotProductAttention_0"
    shapes = {"embedding/kernel": (4, 4, 3, 16), "embedding/bias": (16,)}
    shapes["pos_embedding" if top else "Transformer/posembed_input/pos_embedding"] = (
        *(1, 9 + cls, 16),
    )
    if cls:
        shapes["cls"] = (1, 1, 16)
    for i in range(2):
        block = f"Transformer/encoderblock_{i}"
        for name in ("query", "key", "value"):
            shapes[f"{block}/{attn}/{name}/kernel"] = (16, 2, 8)
            shapes[f"{block}/{attn}/{name}/bias"] = (2, 8)
        shapes[f"{block}/{attn}/out/kernel"] = (2, 8, 16)
        shapes[f"{block}/{attn}/out/bias"] = (16,)
        shapes[f"{block}/{mlp}/Dense_0/kernel"] = (16, 40)
        shapes[f"{block}/{mlp}/Dense_0/bias"] = (40,)
        shapes[f"{block}/{mlp}/Dense_1/kernel"] = (40, 16)
        shapes[f"{block}/{mlp}/Dense_1/bias"] = (16,)
        for name in ("LayerNorm_0", norm2):
            shapes |= {f"{block}/{name}/{x}": (16,) for x in ("scale", "bias")}
    shapes |= {f"Transformer/encoder_norm/{x}": (16,) for x in ("scale", "bias")}
    width = representation or 16
    if representation:
        shapes["pre_logits/kernel"] = (16, width)
        shapes["pre_logits/bias"] = (width,)
    shapes |= {"head/kernel": (width, 5), "head/bias": (5,)}
    return {k: rng.normal(size=s).astype(np.float32) * 0.3 for k, s in shapes.items()}


def google_logits(arrays, image, linen=False, top=False):
    """The published forward pass in numpy float64, read from the layout alone."""
    w = {name: np.float64(x) for name, x in arrays.items()}
    norm2, mlp, attn = "LayerNorm_2", "MlpBlock_3", "MultiHeadDotProductAttention_1"
    if linen:
        norm2, mlp, attn = "LayerNorm_1", "MlpBlock_0", "MultiHeadDotProductAttention_0"

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * w[f"{name}/scale"] + w[f"{name}/bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    b = len(image)
    cut = image.reshape(b, 3, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    x = np.einsum("brcijk,ijkd->brcd", cut, w["embedding/kernel"]).reshape(b, 9, 16)
    x = x + w["embedding/bias"]
    table = w["pos_embedding" if top else "Transformer/posembed_input/pos_embedding"]
    if "cls" in w:
        x = np.concatenate([np.repeat(w["cls"], b, 0), x], 1)
    x = x + table
    for i in range(2):
        block = f"Transformer/encoderblock_{i}"
        y = norm(x, f"{block}/LayerNorm_0")
        q, k, v = (
            np.einsum("bnd,dae->bnae", y, w[f"{block}/{attn}/{n}/kernel"])
            + w[f"{block}/{attn}/{n}/bias"]
            for n in ("query", "key", "value")
        )
        scores = np.einsum("bnae,bmae->banm", q, k) / np.sqrt(8)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        y = np.einsum("banm,bmae->bnae", shares, v)
        y = np.einsum("bnae,aed->bnd", y, w[f"{block}/{attn}/out/kernel"])
        x = x + y + w[f"{block}/{attn}/out/bias"]
        y = norm(x, f"{block}/{norm2}")
        y = y @ w[f"{block}/{mlp}/Dense_0/kernel"] + w[f"{block}/{mlp}/Dense_0/bias"]
        y = gelu(y) @ w[f"{block}/{mlp}/Dense_1/kernel"]
        x = x + y + w[f"{block}/{mlp}/Dense_1/bias"]
    x = norm(x, "Transformer/encoder_norm")
    x = x[:, 0] if "cls" in w else x.mean(1)
    if "pre_logits/kernel" in w:
        x = np.tanh(x @ w["pre_logits/kernel"] + w["pre_logits/bias"])
    return x @ w["head/kernel"] + w["head/bias"]


GOOGLE = {
    "original": {},
    "linen": dict(linen=True),
    "i21k": dict(representation=16),
    "big_vision": dict(linen=True, top=True, cls=False),
}


@pytest.mark.parametrize("case", GOOGLE)
def test_google_files_give_the_logits_that_numpy_reads(case, tmp_path):
    arrays = google_arrays(**GOOGLE[case])
    np.savez(tmp_path / "file.npz", **arrays)
    found = weights.read(tmp_path / "file.npz")
    model, params, _ = load_model(found)
    image = originals.pixels(2, 12, 12) if case else None
    how = {k: v for k, v in GOOGLE[case].items() if k in ("linen", "top")}
    expected = google_logits(arrays, np.float64(image), **how)
    logits = model.apply({"params": params}, {"image": image}, False)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert found.config["vit"]["gelu"] == "tanh"
    assert found.config["data"]["mean"] == [0.5, 0.5, 0.5]


def test_google_files_come_out_again_and_scanned_ones_are_read(tmp_path):
    arrays = google_arrays()
    np.savez(tmp_path / "file.npz", **arrays)
    exporting.export(tmp_path / "file.npz", "npz", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as out:
        assert sorted(out.files) == sorted(arrays)
        for name in out.files:
            np.testing.assert_array_equal(out[name], arrays[name])
    linen = google_arrays(linen=True)
    blocks = [
        {k.partition(f"_{i}/")[2]: x for k, x in linen.items() if f"block_{i}/" in k}
        for i in range(2)
    ]
    scanned = {f"params/{k}": x for k, x in linen.items() if "block_" not in k}
    for name in blocks[0]:
        stacked = np.stack([block[name] for block in blocks])
        scanned[f"params/Transformer/encoderblock/{name}"] = stacked
    np.savez(tmp_path / "scanned.npz", **scanned)
    check_equal(
        weights.read(tmp_path / "scanned.npz").tree,
        weights.read(dict(linen)).tree,
    )


def test_a_classifier_on_an_attentive_pool_is_left_out(tmp_path):
    """Its encoder alone is read: the head makes sense behind that pool only."""
    arrays = google_arrays(linen=True, top=True, cls=False)
    arrays["MAPHead_0/probe"] = np.zeros((1, 1, 16), np.float32)
    found = weights.read(arrays)
    assert set(found.tree["params"]) == {"encoder"}
    assert set(found.left_out) == {"MAPHead_0/probe", "head/kernel", "head/bias"}
    assert "left out: MAPHead_0/probe, head/bias" in found.lines[-1]


# ---- what is refused ----------------------------------------------------------------


def test_names_that_fit_nothing_name_the_nearest(tmp_path):
    state = part(read_golden("vit_token"), "sd/")
    del state["blocks.0.norm1.weight"]
    with pytest.raises(UserError, match="its layout isn't known .* most like 'timm'"):
        recognise.recognise(weights.files.Content("x", state, {}), dict(heads=3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(drop="blocks.1.attn.proj.bias"), r"- blocks\.1\.attn\.proj\.bias"),
        (
            dict(add="blocks.0.attn.q_norm.weight"),
            r"\+ blocks\.0\.attn\.q_norm\.weight",
        ),
        (dict(cut="blocks.1.mlp.fc2.bias"), r"fc2\.bias has shape \(40,\)"),
        (dict(add="dist_token"), "DeiT's distilled ViT, whose second class token"),
        (dict(heads=5), "heads=5 doesn't divide its width of 48"),
        (dict(heads=None), "doesn't tell how many heads its width of 48"),
        (dict(mean=None), r"don't tell the mean and std .*\.convert import"),
    ],
)
def test_what_is_missing_too_much_or_unknown_is_one_message(change, said, tmp_path):
    state = part(read_golden("vit_token"), "sd/")
    facts = dict(heads=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    if "drop" in change:
        del state[change["drop"]]
    elif "add" in change:
        state[change["add"]] = np.zeros(16, np.float32)
    elif "cut" in change:
        state[change["cut"]] = state[change["cut"]][:40]
    elif "mean" in change:
        del facts["mean"], facts["std"]
    else:
        facts |= change
    facts = {name: value for name, value in facts.items() if value}
    with pytest.raises(UserError, match=said):
        vit_ssl_jax.load(tensors(state), **facts)
