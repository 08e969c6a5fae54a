"""GPUs by name: figures against the makers', devices that compile, words on bad input."""

import importlib.metadata
import re

import jax
import jax.numpy as jnp
import pytest

from vit_ssl_jax import host, partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import cards, topologies

GIB = 2**30
# Name, marketed memory in GB, dense bfloat16 TFLOP/s by NVIDIA's data sheets.
SOLD = [
    ("rtx4090", 24, 165.2),
    ("a6000", 48, 155),
    ("a100-40", 40, 312),
    ("a100-80", 80, 312),
    ("h100", 80, 989),
    ("h200", 141, 989),
    ("b200", 180, 2250),
]


@pytest.mark.parametrize(("name", "memory", "peak"), SOLD)
def test_figures_are_those_that_cards_are_sold_with(name, memory, peak):
    card = cards.CARDS[name]
    assert card.peak_flops == peak * 1e12
    assert 0.97 < card.memory_bytes / (memory * 1e9) < 1.1
    assert card.hbm_bytes == int(host.GPU_MEMORY * card.memory_bytes)
    # Matrix units: at most 8,192 multiply-adds a clock and processor.
    assert peak * 1e12 / (card.processors * card.clock * 1e9) <= 2 * 8192


def test_every_card_has_a_row_above():
    assert [name for name, _, _ in SOLD] == list(cards.CARDS)


def test_names_of_hosts():
    assert topologies.parse("h100:8") == (1, cards.CARDS["h100"], "8")
    assert topologies.parse("2*a100-80:4") == (2, cards.CARDS["a100-80"], "4")
    assert topologies.chip_of("NVIDIA H200").name == "h200"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "h1000:8",
            "'h1000:8' is no topology.*cards .rtx4090, a6000, a100-40, a100-80, h100",
        ),
        ("h100", "'h100' is no topology"),
        ("h100:0", "'h100:0': h100 has one number of cards a host, at least 1"),
        ("0*h100:8", "at least 1"),
        ("h100:2x4", "h100 has one number"),
        ("v5e:8", "v5e has 2 sizes"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(UserError, match=message):
        topologies.get_devices(name)


def test_the_compiler_says_what_to_install(monkeypatch):
    """Where it is missing, and where it is of another jax."""
    version = importlib.metadata.version

    def missing(name):
        if name.startswith("jax-cuda"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match=r"pip install -e '\.\[plan-gpu\]', or pip "):
        topologies.get_devices("h100:8")

    def older(name):
        return "0.1.2" if name.startswith("jax-cuda") else version(name)

    monkeypatch.setattr(importlib.metadata, "version", older)
    wanted = f"jax-cuda13-plugin=={jax.__version__}"
    with pytest.raises(UserError, match=f"0.1.2.*jax is {jax.__version__}.*{wanted}"):
        topologies.get_devices("h100:8")


def test_heads_may_be_split_over_more_cards_than_a_host_has():
    pytest.importorskip("jax_cuda13_plugin")
    devices, _ = topologies.get_devices("2*h100:2")
    mesh = partition.make_mesh(dict(data=-1, fsdp=-1, tensor=4), devices)
    assert dict(mesh.shape) == dict(data=1, fsdp=1, tensor=4)


@pytest.mark.parametrize("name", cards.CARDS)
def test_the_compiler_is_told_everything(name):
    """An empty text would end the process: all its fields are there, with values."""
    text = cards.target(cards.CARDS[name])
    fields = dict(re.findall(r"^  (\w+): (\S.*)$", text, re.MULTILINE))
    assert len(fields) >= 25 and all(fields.values())
    assert fields["name"] == f'"{cards.CARDS[name].kind}"'
    assert re.search(r"cuda_compute_capability \{ major: \d+ minor: \d ", text)
    assert 'platform_name: "CUDA"' in text and "dnn_version_info { major: 9" in text


@pytest.mark.parametrize("name", cards.CARDS)
def test_a_program_is_compiled_for_every_card(name, users_compiler):
    """A matmul by cuBLAS and cuDNN's attention, on two hosts."""
    pytest.importorskip("jax_cuda13_plugin")
    devices, card = topologies.get_devices(f"2*{name}:2")
    assert len(devices) == 4 and {d.device_kind for d in devices} == {card.kind}
    assert partition.slices(devices) == [0, 0, 1, 1]
    sizes = dict(data=-1, fsdp=-1, tensor=1)
    mesh = partition.make_mesh(sizes, devices)
    assert dict(mesh.shape) == dict(data=2, fsdp=2, tensor=1)  # fsdp within a host
    place = partition.batch_sharding(mesh)
    q = jax.ShapeDtypeStruct((8, 64, 4, 64), jnp.bfloat16, sharding=place)
    w = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16)

    def function(q, w):
        out = jax.nn.dot_product_attention(q, q, q, implementation="cudnn")
        return out.reshape(8, 64, 256) @ w

    with jax.set_mesh(mesh):
        lowered = jax.jit(function).lower(q, w)
    options = topologies.options(f"2*{name}:2", card)
    text = lowered.compile(compiler_options=options).as_text()
    assert "__cudnn$fmha" in text and "__cublas" in text
