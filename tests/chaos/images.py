"""Folders as they shouldn't be, and files of images with random bytes in them."""

import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image

from tests.chaos.stage import Fault, Row
from tests.data.test_mutations import GIB, MUTATE


def train_on_odd_folder(stage):
    """A folder with all that isn't an image: it is left out, and said."""
    folder = stage.fresh("photos")
    for name in ("cats", "dogs"):
        (folder / "train" / name).mkdir(parents=True)
        for i in range(40):
            pixels = stage.rng.integers(0, 256, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{i}.png")
    odd = folder / "train" / "cats"
    os.mkfifo(odd / "pipe.jpg")
    (odd / "device.jpg").symlink_to("/dev/zero")
    (odd / "up").symlink_to(folder)
    (odd / "lost.jpg").symlink_to("nowhere.jpg")
    (odd / "empty.jpg").touch()
    (odd / "text.jpg").write_text("no image")
    (odd / "huge.png").write_bytes(bomb())
    (odd / "\x1b[31mred.jpg").write_bytes(b"\xff\xd8no image")
    os.truncate(os.open(odd / "hole.jpg", os.O_CREAT | os.O_WRONLY), 3 * GIB)
    lost = []
    try:
        changes = dict(data__name="folder", data__dir=folder, data__max_broken=0.2)
        out = stage.finish(stage.fresh("odd"), **changes, steps=20)
        if "\x1b" in out:
            lost.append("a file's name wrote on the terminal")
        if "broken images were replaced" not in out:
            lost.append(f"left out without a word: {out[-300:]}")
    except Fault as fault:
        lost.append(str(fault))
    return Row("odd files in a folder", 9, "left out, and said", tuple(lost))


def bomb():
    """A PNG of 32,000 x 32,000 px in 121 kB."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        )

    side = 32_000
    rows = zlib.compress(bytes(side * (side // 8 + 1)), 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def mutate_images(stage):
    """Random bytes in files of eleven kinds, in 2 GiB of memory: pixels, or told broken."""
    count = 500 if stage.quick else 10_000
    command = [sys.executable, "-c", MUTATE, str(count), str(2 * GIB)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return Row("mutated images", count, "", (done.stderr[-300:],))
    found = json.loads(done.stdout)
    result = f"{found['pixels']:,} pixels, {found['broken']:,} told broken, none else; "
    result += f"the slowest {found['slowest']:.2f} s, at most {found['resident'] / GIB:.2f} GiB"
    return Row("mutated images", count, result)
