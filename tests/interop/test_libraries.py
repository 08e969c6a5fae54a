"""Files of timm and transformers: in with equal outputs, out again bit for bit."""

import re

import numpy as np
import pytest
from safetensors.numpy import load_file

import vit_ssl_jax
from tests import runs
from tests.interop import originals
from vit_ssl_jax import convert, exporting, weights
from vit_ssl_jax.errors import UserError

originals.need()

SMALL = dict(
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=32,
    patch_size=8,
)
WIDE = dict(intermediate_size=256)
HF = {
    "ViTModel": ("ViTModel", "ViTConfig", WIDE),
    "ViTForImageClassification": (
        "ViTForImageClassification",
        "ViTConfig",
        WIDE | {"num_labels": 5},
    ),
    "IJepaModel": ("IJepaModel", "IJepaConfig", WIDE),
    "Dinov2Model": ("Dinov2Model", "Dinov2Config", {}),
    "Dinov2 SwiGLU": ("Dinov2Model", "Dinov2Config", dict(use_swiglu_ffn=True)),
    "Dinov2WithRegisters": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        dict(num_register_tokens=3),
    ),
    "DINOv3": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        WIDE | dict(num_register_tokens=4),
    ),
    "DINOv3 SwiGLU": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        WIDE | dict(num_register_tokens=4, use_gated_mlp=True, hidden_act="silu"),
    ),
}
TIMM = {
    "token": ("vit_tiny_patch16_224", dict(depth=2, img_size=64, num_classes=7)),
    "oblong": ("vit_tiny_patch16_224", dict(depth=1, img_size=(32, 64))),
    "fc_norm": (
        "vit_tiny_patch16_224",
        dict(depth=1, img_size=32, global_pool="avg", num_classes=7),
    ),
    "no class token": (
        "vit_huge_patch14_gap_224",
        dict(depth=1, img_size=28, embed_dim=64, num_heads=4, num_classes=7),
    ),
    "dinov2": ("vit_small_patch14_dinov2", dict(depth=1, img_size=28)),
    "registers": ("vit_small_patch14_reg4_dinov2", dict(depth=1, img_size=28)),
    "SwiGLU": (
        "vit_giant_patch14_reg4_dinov2",
        dict(depth=1, embed_dim=96, num_heads=4, img_size=28),
    ),
    "DeiT": ("deit_tiny_patch16_224", dict(depth=1, img_size=32, num_classes=7)),
}


def save_hf(case, folder):
    """A model of transformers with random weights, saved; returns it."""
    _, _, transformers = originals.load()
    name, config, more = HF[case]
    model = getattr(transformers, name)(getattr(transformers, config)(**SMALL, **more))
    originals.randomise(model).save_pretrained(folder)
    return model


def save_timm(case, folder):
    """A model of timm with random weights, saved for the hub; returns it."""
    _, timm, _ = originals.load()
    name, more = TIMM[case]
    model = originals.randomise(timm.create_model(name, pretrained=False, **more))
    timm.models.save_for_hf(model, folder, model_args=more, safe_serialization=True)
    return model


def without_registers(tokens, count):
    """What our ViT gives of their tokens `[B 1+R+N D]`."""
    tokens = tokens.detach().numpy()
    return (
        np.concatenate([tokens[:, :1], tokens[:, 1 + count :]], 1) if count else tokens
    )


def encode(encoder, images):
    """Our tokens of standardised images."""
    return np.asarray(encoder.module.apply({"params": encoder.params}, images, False))


@pytest.mark.parametrize(
    "case", runs.mostly_slow(HF, "ViTModel", "Dinov2WithRegisters", "DINOv3")
)
def test_transformers_files_give_equal_tokens_and_come_out_again(case, tmp_path):
    torch, _, _ = originals.load()
    theirs = save_hf(case, tmp_path / "in")
    images = originals.pixels(2, 32, 32)
    encoder = vit_ssl_jax.load(tmp_path / "in")
    with torch.no_grad():
        inner = getattr(theirs, "vit", theirs)
        tokens = inner(originals.channels_first(images)).last_hidden_state
    registers = getattr(theirs.config, "num_register_tokens", 0)
    expected = without_registers(tokens, registers)
    np.testing.assert_allclose(encode(encoder, images), expected, atol=1e-5)

    convert.import_file(tmp_path / "in", tmp_path / "run", {})
    exporting.export(tmp_path / "run", "hf", tmp_path / "out")
    check_same_arrays(tmp_path)
    again, report = type(theirs).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report
    with torch.no_grad():
        x = originals.channels_first(images)
        assert torch.equal(again.eval()(x)[0], theirs(x)[0])


@pytest.mark.parametrize("case", runs.mostly_slow(TIMM, "token", "registers"))
def test_timm_files_give_equal_tokens_and_come_out_again(case, tmp_path):
    torch, timm, _ = originals.load()
    theirs = save_timm(case, tmp_path / "in")
    images = originals.pixels(2, *theirs.patch_embed.img_size)
    encoder = vit_ssl_jax.load(tmp_path / "in")
    with torch.no_grad():
        tokens = theirs.forward_features(originals.channels_first(images))
    expected = without_registers(tokens, theirs.num_reg_tokens)
    error = np.abs(encode(encoder, images) - expected).max()
    assert error < 1e-5 * max(1.0, np.abs(expected).max())

    convert.import_file(tmp_path / "in", tmp_path / "run", {})
    exporting.export(tmp_path / "run", "timm", tmp_path / "out")
    check_same_arrays(tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    with torch.no_grad():
        x = originals.channels_first(images)
        assert torch.equal(again(x), theirs(x))
    assert tuple(again.pretrained_cfg["mean"]) == theirs.pretrained_cfg["mean"]


def check_same_arrays(tmp_path):
    """The exported file has the names and the bits of the imported one."""
    old, new = (load_file(tmp_path / x / "model.safetensors") for x in ("in", "out"))
    assert sorted(new) == sorted(old)
    for name, array in old.items():
        np.testing.assert_array_equal(new[name], array, err_msg=name)


@pytest.mark.parametrize("case", ["ViTForImageClassification", "Dinov2 SwiGLU"])
def test_a_state_dict_in_python_is_read_whatever_its_modules_are_called(case, tmp_path):
    model = save_hf(case, tmp_path)
    images = originals.pixels(1, 32, 32)
    facts = dict(heads=4, norm_eps=model.config.layer_norm_eps)
    given = vit_ssl_jax.load(dict(model.state_dict()), **facts)
    saved = vit_ssl_jax.load(tmp_path)
    np.testing.assert_array_equal(encode(given, images), encode(saved, images))


def test_vitmae_predicts_the_same_pixels_and_comes_out_again(tmp_path):
    torch, _, transformers = originals.load()
    config = transformers.ViTMAEConfig(
        **SMALL,
        **WIDE,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=128,
    )
    theirs = originals.randomise(transformers.ViTMAEForPreTraining(config))
    theirs.save_pretrained(tmp_path / "in")
    convert.import_file(tmp_path / "in", tmp_path / "run", {})
    exporting.export(tmp_path / "run", "hf", tmp_path / "out")
    old, new = (load_file(tmp_path / x / "model.safetensors") for x in ("in", "out"))
    published = {
        re.sub(r"decoder\.decoder_encoder\.layer", "decoder.decoder_layers", name): x
        for name, x in old.items()
    }
    assert sorted(new) == sorted(published)
    assert all(np.array_equal(new[name], x) for name, x in published.items())
    _, report = transformers.ViTMAEForPreTraining.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report

    images, noise = (
        originals.pixels(2, 32, 32),
        np.random.default_rng(1).random((2, 16)),
    )
    with torch.no_grad():
        logits = theirs(
            originals.channels_first(images), noise=torch.from_numpy(noise)
        ).logits.numpy()
    order = np.argsort(noise, axis=1)
    views = dict(image=images, keep=order[:, :4], hide=order[:, 4:])
    from vit_ssl_jax import finished, partition

    trained = finished.read_trained(tmp_path / "run")
    model, state = finished.load_model(trained, partition.make_mesh(finished.MESH))
    ours = model.method.model.apply({"params": state.params}, views, False)
    expected = np.take_along_axis(logits, views["hide"][:, :, None], axis=1)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_gated_mlp_of_another_activation_is_refused(tmp_path):
    _, _, transformers = originals.load()
    config = transformers.DINOv3ViTConfig(**SMALL, **WIDE, use_gated_mlp=True)
    transformers.DINOv3ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="its gated MLP has 'gelu'; SiLU alone"):
        weights.read(tmp_path)


def test_a_folder_in_pieces_is_read_and_a_missing_piece_is_told(tmp_path):
    model = save_hf("ViTModel", tmp_path / "whole")
    model.save_pretrained(tmp_path / "pieces", max_shard_size="60KB")
    files = sorted((tmp_path / "pieces").glob("model-*.safetensors"))
    assert len(files) > 2
    images = originals.pixels(1, 32, 32)
    whole, pieces = (vit_ssl_jax.load(tmp_path / x) for x in ("whole", "pieces"))
    np.testing.assert_array_equal(encode(pieces, images), encode(whole, images))
    files[1].unlink()
    with pytest.raises(UserError, match=f"aren't there: {files[1].name}"):
        weights.read(tmp_path / "pieces")
