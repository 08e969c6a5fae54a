"""Eight CPU devices, no silent broadcasting, slow tests on demand, tiny runs."""

import functools
import os

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import runs
from vit_ssl_jax import closing, methods, optim
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import images

if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_disable_most_optimizations", True)  # halves compile time
SAVE_PICTURE = closing.save_picture


def pytest_configure(config):
    """Registers the marker; starts XLA, by default in haste.

    XLA reads its flags once. Slow tests compile as users do: they look at what is
    rounded, and at other devices' programs. Commands that tests start are in haste.
    """
    config.addinivalue_line("markers", "slow: long; runs with -m slow only")
    if "slow" in config.getoption("markexpr"):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{runs.FASTER} {os.environ.get('XLA_FLAGS', '')}")
        jax.jit(lambda x: x)(0.0)


def pytest_collection_modifyitems(config, items):
    """Leaves slow tests out unless -m speaks of them."""
    if "slow" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session", autouse=True)
def no_closing_pictures():
    """Runs end without their picture; who looks at it takes `closing_pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closing, "save_picture", lambda *_: "no picture: a test's run")
        yield


@pytest.fixture(scope="module")
def closing_pictures():
    """Runs of this module end with their picture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closing, "save_picture", SAVE_PICTURE)
        yield


@pytest.fixture
def users_compiler():
    """The compiler as users have it: without what makes CPU tests exact and fast."""
    options = {
        "jax_default_matmul_precision": None,
        "jax_disable_most_optimizations": False,
    }
    before = {name: jax.config.values[name] for name in options}
    for pair in options.items():
        jax.config.update(*pair)
    yield
    for pair in before.items():
        jax.config.update(*pair)


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIT = dict(
    variant="2x32x4/4",
    posemb="sincos",
    cls=False,
    droppath=0.0,
    dropout=0.0,
    dtype="float32",
    norm_eps=1e-6,
    gelu="exact",
    init="mae",
    remat="none",
    unroll=1,
    kernels="auto",
)
METHODS = dict(
    maskfeat=dict(mask_ratio=0.4, bins=9, cell=4, window=0, compat="none"),
    mae=dict(
        mask_ratio=0.75,
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=4,
        norm_pixels=True,
    ),
    ijepa=dict(
        predictor_width=16,
        predictor_depth=1,
        predictor_heads=4,
        num_contexts=1,
        num_targets=4,
        context_scale=(0.85, 1.0),
        context_aspect=(1.0, 1.0),
        target_scale=(0.15, 0.2),
        target_aspect=(0.75, 1.5),
        min_keep=4,
        max_context=0,
        compat="none",
        trim_batch=128,
        ema_start=0.996,
        ema_end=1.0,
        ipe_scale=1.0,
    ),
    colorization=dict(
        form="classification",
        patch_cells=2,
        neighbours=10,
        sigma=5.0,
        rebalance=0.5,
        prior_horizon=1000,
        temperature=0.38,
    ),
    relvit=dict(
        relations=1.0,
        distances=1.0,
        angles=1.0,
        positions=1.0,
        labels=0.0,
        smoothing=0.1,
        shuffle=True,
        patch_augment=True,
        mega=0,
        add_cls=False,
        compat="none",
    ),
    supervised=dict(
        pool="mean",
        loss="softmax",
        label_smoothing=0.1,
        representation=0,
        head_bias=0.0,
        head_std=0.02,
        ema=0.0,
        mixup=0.0,
        cutmix=0.0,
        mix_prob=1.0,
        mix_switch=0.5,
        erase=0.0,
    ),
    rotation=dict(turns="all", pool="mean"),
    jigsaw=dict(grid=2, tile=12, permutations=24, gray=0.3, pool="mean", compat="none"),
    context=dict(tile=8, gap=1, colour="drop", pairs="all", pool="mean"),
    dino=dict(
        prototypes=32,
        head_width=16,
        bottleneck_width=8,
        norm_last=True,
        freeze_epochs=1.0,
        local_crops=2,
        local_size=16,
        global_scale=(0.4, 1.0),
        local_scale=(0.05, 0.4),
        student_temperature=0.1,
        teacher_temperature=0.07,
        warmup_temperature=0.04,
        warmup_temperature_epochs=3,
        centre_momentum=0.9,
        ema_start=0.996,
        ema_end=1.0,
        pool="mean",
        compat="official",
    ),
    lejepa=dict(
        projector_width=16,
        projection_width=8,
        weight=0.02,
        slices=32,
        points=17,
        furthest=3.0,
        global_crops=2,
        local_crops=2,
        local_size=16,
        global_scale=(0.3, 1.0),
        local_scale=(0.05, 0.3),
        pool="mean",
    ),
)
OPTIM = dict(
    name="adamw",
    schedule="cosine",
    layer_decay=1.0,
    lr=1e-3,
    lr_batch=0,
    lr_start=0.0,
    lr_end=0.0,
    warmup_epochs=1,
    first_step=1,
    ipe_scale=1.0,
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    wd=0.05,
    wd_end=0.05,
    no_decay=("bias", "scale"),
    clip=0.0,
    clip_each=0.0,
)


class Tiny:
    """Builders of small things: 32 px images of 8x8 patches, width 32, two blocks."""

    mean, std = MEAN, STD

    def vit(self, size=(32, 32), final_norm=True, **changes):
        """A ViT; `changes` are keys of `config.vit`."""
        return vit.make_vit(ConfigDict(VIT | changes), size, final_norm=final_norm)

    def method(self, name, size=(32, 32), vit_changes=(), **changes):
        """A method; `changes` are hyper-parameters of its own."""
        context = methods.Context(
            vit=functools.partial(self.vit, size, **dict(vit_changes)),
            normalize=functools.partial(images.normalize, mean=MEAN, std=STD),
            mean_std=(MEAN, STD),
            steps=100,
            epochs=10.0,
            num_classes=10,
        )
        numbers = METHODS.get(name, {}) | changes
        return methods.make(dict(name=name, **numbers), context)

    def optimizer(self, steps=100, epochs=10, batch_size=16, **changes):
        """AdamW; `changes` are keys of `config.optim`."""
        sizes = dict(steps=steps, epochs=epochs, batch_size=batch_size)
        return optim.make_optimizer(ConfigDict(OPTIM | changes), **sizes)

    def bytes(self, count, size=(32, 32), seed=0):
        """A batch as the data pipeline gives it."""
        rng = np.random.default_rng(seed)
        return dict(
            image=rng.integers(0, 256, (count, *size, 3), np.uint8),
            label=rng.integers(0, 10, count, np.int32),
            id=np.arange(count, dtype=np.int32),
        )

    def batch(self, count, size=(32, 32), seed=0):
        """A batch as a method gets it."""
        batch = self.bytes(count, size, seed)
        return batch | {"image": np.float32(batch["image"]) / 255}

    def random(self, shapes, seed=0):
        """Arrays for a tree of shapes: scales near 1, all others near 0, none equal."""
        rng = np.random.default_rng(seed)

        def leaf(path, x):
            centre = float(path[-1].key == "scale")
            return np.float32(centre + 0.2 * rng.normal(size=x.shape))

        return jax.tree_util.tree_map_with_path(leaf, shapes)


class Torch:
    """Weights of a torch state_dict, filled by one rule, as a tree of ours."""

    def block_shapes(self, prefix, width):
        """Names and shapes of a block's parameters, in torch's order."""
        w, h = width, 4 * width
        shapes = {"norm1": (w,), "attn.qkv": (3 * w, w), "attn.proj": (w, w)}
        shapes |= {"norm2": (w,), "mlp.fc1": (h, w), "mlp.fc2": (w, h)}
        return self.with_bias({f"{prefix}.{name}": s for name, s in shapes.items()})

    def with_bias(self, shapes):
        """Adds a bias after every weight."""
        pairs = [((f"{n}.weight", s), (f"{n}.bias", s[:1])) for n, s in shapes.items()]
        return dict(pair for both in pairs for pair in both)

    def fill(self, shapes):
        """The rule of the test vectors: `0.2 sin(0.7 (k + 1) + 0.3 e)`, norms + 1."""
        out = {}
        for k, (name, shape) in enumerate(shapes.items()):
            e = np.arange(np.prod(shape)).reshape(shape)
            scale = "norm" in name and name.endswith("weight")
            out[name] = np.float32(0.2 * np.sin(0.7 * (k + 1) + 0.3 * e) + scale)
        return out

    def dense(self, sd, name):
        """Linear, or a convolution on patches: kernel `[in out]`, channel fastest."""
        weight = sd[f"{name}.weight"]
        if weight.ndim == 4:
            weight = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
        return {"kernel": weight.T, "bias": sd[f"{name}.bias"]}

    def norm(self, sd, name):
        """LayerNorm."""
        return {"scale": sd[f"{name}.weight"], "bias": sd[f"{name}.bias"]}

    def block(self, sd, prefix, heads):
        """One block."""
        qkv, out = (self.dense(sd, f"{prefix}.attn.{n}") for n in ("qkv", "proj"))
        width = len(out["bias"])
        shape = (3, heads, width // heads)
        qkv = {
            "kernel": qkv["kernel"].reshape(width, *shape),
            "bias": qkv["bias"].reshape(shape),
        }
        out["kernel"] = out["kernel"].reshape(*shape[1:], width)
        return {
            "norm1": self.norm(sd, f"{prefix}.norm1"),
            "attn": {"qkv": qkv, "out": out},
            "norm2": self.norm(sd, f"{prefix}.norm2"),
            "mlp": {
                "up": self.dense(sd, f"{prefix}.mlp.fc1"),
                "down": self.dense(sd, f"{prefix}.mlp.fc2"),
            },
        }

    def blocks(self, sd, prefix, heads, depth):
        """Scanned blocks: every leaf gains a layer axis."""
        each = [self.block(sd, f"{prefix}.{i}", heads) for i in range(depth)]
        return {"block": jax.tree.map(lambda *x: np.stack(x), *each)}


@pytest.fixture(scope="session")
def tiny():
    """Builders of small things."""
    return Tiny()


@pytest.fixture(scope="session")
def torch_weights():
    """Weights of a torch model by the rule of the published test vectors."""
    return Torch()
