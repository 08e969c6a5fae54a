"""Ten thousand damaged files through the decoders: pixels or an error, nothing else."""

import io
import json
import struct
import subprocess
import sys
import tracemalloc

import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax.data import decoding

ROUNDS, GIB = 10_000, 2**30
MUTATE = """
import io, json, pathlib, re, resource, sys, time
import numpy as np, skimage.data
from PIL import Image
from vit_ssl_jax.data import decoding

rounds, limit = map(int, sys.argv[1:])
image = Image.fromarray(skimage.data.astronaut()[:160, :200])
files = []
for kind, how in (
    ("JPEG", {}), ("JPEG", dict(progressive=True)), ("JPEG", dict(subsampling=0)),
    ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {}),
    ("TIFF", dict(compression="tiff_lzw")), ("PPM", {}), ("AVIF", {}),
):
    file = io.BytesIO()
    image.save(file, kind, **how)
    files.append(file.getvalue())
decode = decoding.decode
for whole in files:
    decode(whole)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
rng = np.random.default_rng(0)
found = dict(pixels=0, broken=0, slowest=0.0)
for i in range(rounds):
    file = bytearray(files[i % len(files)])
    for _ in range(rng.integers(1, 9)):
        how, place = rng.integers(4), int(rng.integers(len(file)))
        if how == 0:
            file[place] = rng.integers(256)
        elif how == 1:
            file[place] ^= 1 << rng.integers(8)
        elif how == 2:
            del file[place : place + int(rng.integers(1, 64))]
        else:
            file[place:place] = rng.bytes(int(rng.integers(1, 16)))
        file = file or bytearray(1)
    begun = time.perf_counter()
    try:
        pixels = decode(bytes(file), quick=bool(i % 2))
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        found["pixels"] += 1
    except (OSError, decoding.BrokenImageError):
        found["broken"] += 1
    found["slowest"] = max(found["slowest"], time.perf_counter() - begun)
# of this process alone: getrusage's peak begins with that of the process that forked it
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
found["resident"] = int(peak[1]) * 1024
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_a_head_that_says_too_much_is_broken_before_there_is_memory(kind):
    """60,000 x 60,000 px in a file of some hundred bytes."""
    file = io.BytesIO()
    Image.new("RGB", (258, 257)).save(file, kind)
    content, side = file.getvalue(), 60_000
    for order in (">H", "<H", ">I", "<I"):
        for old in (257, 258):
            old, new = struct.pack(order, old), struct.pack(order, side)
            content = content.replace(old, new)
    tracemalloc.start()
    with pytest.raises(decoding.BrokenImageError, match="too large|not a whole"):
        decoding.decode(content)
    assert tracemalloc.get_traced_memory()[1] < GIB
    tracemalloc.stop()


@pytest.mark.slow
def test_damaged_files_are_pixels_or_an_error():
    """In a process with 8 GiB of addresses: no crash, no hang, memory as of a few."""
    done = subprocess.run(
        [sys.executable, "-c", MUTATE, str(ROUNDS), str(8 * GIB)],
        cwd=runs.ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["pixels"] + found["broken"] == ROUNDS
    assert min(found["pixels"], found["broken"]) > ROUNDS / 20
    assert found["slowest"] < 10 and found["resident"] < 2 * GIB
