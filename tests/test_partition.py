"""Where arrays live: the golden table of a ViT, and what every big weight needs."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from tests import runs
from vit_ssl_jax import build, partition, step
from vit_ssl_jax.errors import UserError

# A scanned ViT with a classifier on 2x2x2 devices. Layers are never sharded.
GOLDEN = {
    "encoder/patch/kernel": P(None, "fsdp"),
    "encoder/patch/bias": P(),
    "encoder/cls": P(),
    "encoder/posemb": P(None, None, "fsdp"),
    "encoder/blocks/block/norm1/scale": P(),
    "encoder/blocks/block/norm1/bias": P(),
    "encoder/blocks/block/attn/qkv/kernel": P(None, "fsdp", None, "tensor", None),
    "encoder/blocks/block/attn/qkv/bias": P(None, None, "tensor", None),
    "encoder/blocks/block/attn/out/kernel": P(None, "tensor", None, "fsdp"),
    "encoder/blocks/block/attn/out/bias": P(),
    "encoder/blocks/block/norm2/scale": P(),
    "encoder/blocks/block/norm2/bias": P(),
    "encoder/blocks/block/mlp/up/kernel": P(None, "fsdp", "tensor"),
    "encoder/blocks/block/mlp/up/bias": P(None, "tensor"),
    "encoder/blocks/block/mlp/down/kernel": P(None, "tensor", "fsdp"),
    "encoder/blocks/block/mlp/down/bias": P(),
    "encoder/norm/scale": P(),
    "encoder/norm/bias": P(),
    "head/kernel": P("fsdp", None),
    "head/bias": P(),
}


def names(path):
    """Names of a path, joined."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)


def flat(tree):
    """`{path: leaf}`."""
    return {names(p): x for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def state_shapes(tiny, method, size):
    """Shapes of a method's whole state."""
    batch = step.batch_shapes(2, size, None)
    init = functools.partial(step.init_state, method=method, optimizer=tiny.optimizer())
    return jax.eval_shape(init, jax.random.key(0), batch)


@pytest.fixture(scope="module")
def mesh():
    """Two devices on every axis."""
    return partition.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})


def test_golden_table_of_a_vit(tiny, mesh):
    changes = {"cls": True, "posemb": "learned"}
    method = tiny.method("supervised", vit_changes=changes, pool="cls")
    shapes = state_shapes(tiny, method, (32, 32)).params
    ours = {k: s.spec for k, s in flat(partition.shardings(shapes, mesh)).items()}
    assert ours == GOLDEN


def test_moments_and_teacher_live_with_their_weights(tiny, mesh):
    shapes = state_shapes(tiny, tiny.method("ijepa"), (32, 32))
    specs = {k: s.spec for k, s in flat(partition.shardings(shapes, mesh)).items()}
    weights = {k.removeprefix("params/"): v for k, v in specs.items() if "params/" in k}
    assert any(any(spec) for spec in weights.values())
    for moment in ("mu", "nu"):
        of = {
            k.split(f"/{moment}/")[1]: v for k, v in specs.items() if f"/{moment}/" in k
        }
        assert of == weights
    teacher = {
        k.removeprefix("ema/"): v for k, v in specs.items() if k.startswith("ema/")
    }
    assert teacher == {k: v for k, v in weights.items() if k.startswith("encoder/")}


def spec_of(rules, mesh, **shape):
    """The layout of one array, named by the end of its path."""
    (name, sizes), *_ = shape.items()
    module, leaf = name.split("_")
    tree = {module: {leaf: jax.ShapeDtypeStruct(sizes, jnp.float32)}}
    return jax.tree.leaves(partition.specs(tree, mesh, rules))[0]


SPLIT = ("fsdp", "data")


def test_moments_are_split_over_all_that_share_the_batch(mesh):
    """Over both axes where they divide a size together, else each where it can."""
    moments = functools.partial(spec_of, partition.MOMENTS, mesh)
    assert moments(up_kernel=(32, 6)) == P(SPLIT, "tensor")
    assert moments(up_kernel=(2, 6, 6)) == P(None, "fsdp", "tensor")
    assert moments(up_kernel=(7, 6)) == P(None, "tensor")
    assert moments(up_kernel=(32, 5)) == P(SPLIT, None)
    assert moments(out_kernel=(3, 2, 32, 12)) == P(None, "tensor", SPLIT, None)
    assert moments(up_bias=(6,)) == P("tensor")
    assert moments(norm_scale=(8,)) == P()
    # The parameters themselves never are.
    assert spec_of(partition.RULES, mesh, up_kernel=(32, 6)) == P("fsdp", "tensor")
    assert spec_of(None, mesh, up_kernel=(32, 6)) == P("fsdp", "tensor")


def test_shards_fill_tiles_where_they_can():
    """Of ViT-B on 8 chips; where nothing fills a tile, parameters are split all the same."""
    mesh = partition.make_mesh({"data": 1, "fsdp": 8, "tensor": 1})
    of = functools.partial(spec_of, None, mesh)
    assert of(up_kernel=(768, 3072)) == P("fsdp", None)
    assert of(down_kernel=(3072, 768)) == P("fsdp", None)
    assert of(qkv_kernel=(768, 3, 12, 64)) == P(None, None, None, "fsdp")
    assert of(qkv_kernel=(1024, 3, 16, 64)) == P(None, None, "fsdp", None)
    assert of(out_kernel=(12, 64, 768)) == P(None, "fsdp", None)
    assert of(out_kernel=(12, 60, 768)) == P(None, None, "fsdp")  # 96 of 128 lanes
    assert of(up_kernel=(24, 36)) == P("fsdp", None)


def test_a_program_lays_out_moments_alone_by_their_own_rules(tiny, mesh):
    numbers = {"batch_size": 8, "size": (32, 32), "accum": 1}
    method = tiny.method("ijepa")
    program = step.make_program(method, tiny.optimizer(), mesh, **numbers)
    specs = {k: x.sharding.spec for k, x in flat(program.state).items()}
    kernels = {k: v for k, v in specs.items() if k.endswith("encoder/patch/kernel")}
    places = {
        "/mu/": P(None, SPLIT),
        "/nu/": P(None, SPLIT),
        "params/": P(None, "fsdp"),
        "ema/": P(None, "fsdp"),
    }
    assert len(kernels) == len(places)
    for place, expected in places.items():
        (kernel,) = [v for k, v in kernels.items() if place in k]
        assert kernel == expected
    weights = partition.shardings(program.state.params, mesh, partition.RULES)
    assert {k: x.spec for k, x in flat(weights).items()} == {
        k.removeprefix("params/"): v for k, v in specs.items() if k[:7] == "params/"
    }


VIT_B = [name for name in runs.RECIPES if name.endswith("_vitb.py")]


@pytest.mark.parametrize("name", VIT_B)
def test_every_big_weight_of_a_vit_b_has_a_row(name, mesh):
    config = runs.load(name)
    config.mesh.update(data=-1, fsdp=1, tensor=1)
    shapes = build.make_run(config).program.state.params
    big = {
        path: x
        for path, x in jax.tree_util.tree_leaves_with_path(shapes)
        if x.size * x.dtype.itemsize >= 2**20
    }
    assert len(big) >= 4
    for path, x in big.items():
        assert any(partition.spec(path, x.shape, mesh)), f"{names(path)} has no row"


def test_an_axis_that_does_not_divide_stays_whole(mesh):
    tree = {"up": {"kernel": jax.ShapeDtypeStruct((3, 8), jnp.float32)}}
    assert partition.shardings(tree, mesh)["up"]["kernel"].spec == P(None, "tensor")


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ((2, 2, 2), (2, 2, 2)),
        ((-1, 2, 1), (4, 2, 1)),
        ((1, -1, 4), (1, 2, 4)),
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, -1, 1), (1, 8, 1)),
        ((-1, -1, 2), (1, 4, 2)),
    ],
)
def test_one_mesh_size_may_be_left_open(sizes, shape):
    mesh = partition.make_mesh(dict(zip(partition.MESH_AXES, sizes)))
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == shape


@pytest.mark.parametrize(
    "sizes", [(3, 1, 1), (-1, 2, -1), (-1, -1, -1), (-1, 3, 1), (0, 1, 8), (-2, 2, 2)]
)
def test_bad_mesh_sizes_are_refused(sizes):
    with pytest.raises(UserError, match="config.mesh"):
        partition.make_mesh(dict(zip(partition.MESH_AXES, sizes)))


def test_a_batch_is_split_over_data_and_fsdp(mesh):
    assert partition.batch_sharding(mesh).spec == P(("data", "fsdp"))
