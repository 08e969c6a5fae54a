"""Every recipe's step, as it is, traced and lowered for TPUs and GPUs: seconds each."""

import jax
import pytest

from tests import runs
from vit_ssl_jax import build, step
from vit_ssl_jax.models import attention
from vit_ssl_jax.plan import topologies

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_compiler")]
TARGETS = ("v5e:2x4", "v6e:2x4", "h100:8", "a100-80:8")
# How jax calls cuDNN's attention until the program is split over devices.
CUDNN = "@CustomSPMDPartitioning"


def cases():
    """`(file, arguments)` of all recipes; of those alike but for their data the first."""
    found = {}
    # ViT-L's heads are as wide as ViT-B's, and nothing else of it is new.
    for file in (name for name in runs.RECIPES if "vitl" not in name):
        # These programs are those of the others, narrower: one will do.
        narrow = file in ("own.py", "pretext_cpu.py", "quickstart.py", "imagenette.py")
        choices = runs.arguments(file)
        # A variant has other masks, which are the same arrays: those of ViT-B will do.
        one = narrow or (not choices[0] and "vitb" not in file)
        for given in choices[: 1 if one else None]:
            config = runs.load(file, *given)
            key = file, str(config.vit), str(config.method), str(config.data.size)
            found.setdefault(key, (file, given))
    return list(found.values())


@pytest.fixture(scope="module")
def devices():
    """`{name: devices}` of all targets."""
    for package in ("libtpu", "jax_cuda13_plugin"):
        pytest.importorskip(package)
    return {name: topologies.get_devices(name)[0] for name in TARGETS}


def lower(config, devices):
    """The text of the lowered step, the batch one that the devices divide."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        parts = len(devices) * config.accum
        config.batch_size = -(-config.batch_size // parts) * parts
        config.steps = 10
        if not config.data.num_classes:
            config.data.num_classes = 10
    text = step.lower(build.make_run(config, devices).program).as_text()
    jax.clear_caches()
    return text


@pytest.mark.parametrize(("file", "given"), cases())
def test_every_recipe_is_lowered_for_every_target(devices, file, given):
    """And in bfloat16 a GPU's attention is cuDNN's.

    Of pre-training ViT-B all four, else one a kind.
    """
    config = runs.load(file, *given)
    first = file.endswith("_vitb.py") and given == runs.arguments(file)[0]
    names = TARGETS if first else ("v6e:2x4", "h100:8")
    for name, there in ((name, devices[name]) for name in names):
        text = lower(config, there)
        flash = config.vit.dtype == "bfloat16" and name.startswith(("h", "a"))
        assert (CUDNN in text) == flash, name


@pytest.mark.parametrize("file", ["supervised_vitb.py", "mae_vitb.py", "ijepa_vitb.py"])
def test_what_once_failed_fails_again_without_the_arrangement(
    devices, file, monkeypatch
):
    """Odd numbers of tokens, 197 and 265 among them, as jax gets them then."""
    monkeypatch.setattr(attention, "arrange", lambda x, valid: (x, None, lambda y: y))
    config = runs.load(file)
    if file == "ijepa_vitb.py":
        with config.unlocked():
            config.method.max_context = 95  # else its numbers are all even
    with pytest.raises(NotImplementedError, match="Unsupported sequence length"):
        lower(config, devices["h100:8"])
