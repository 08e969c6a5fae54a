"""Writes shards of a prepared set, several at once; those that are there stay."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
import threading
import time

import simplejpeg
import tqdm

from vit_ssl_jax.data import decoding, records, resizing

QUALITY = 95  # of JPEGs that were resized


@dataclasses.dataclass(frozen=True)
class Shard:
    """What a worker writes: images by path, with labels, to a file."""

    file: pathlib.Path
    images: list  # of (path, file or archives.Member, label or None)
    resize: int  # px of the short side, 0: bytes stay what they are


def cut(images, folder, name, split, options) -> list[Shard]:
    """A split's images as shards."""
    count = -(-len(images) // options.shard)
    return [
        Shard(
            folder / records.shard_name(name, split, i, count),
            images[i * options.shard : (i + 1) * options.shard],
            options.resize,
        )
        for i in range(count)
    ]


def run(shards, processes) -> dict:
    """Writes the shards that aren't there: `{file: result}` of all, in their order."""
    total, results = sum(len(shard.images) for shard in shards), {}
    with (
        tqdm.tqdm(total=total, unit="image", disable=None) as bar,
        concurrent.futures.ProcessPoolExecutor(
            processes,
            multiprocessing.get_context("spawn"),
            initializer=end_with_parent,
            initargs=(os.getpid(),),
        ) as pool,
    ):
        futures = {pool.submit(write_shard, shard): shard for shard in shards}
        try:
            for future in concurrent.futures.as_completed(futures):
                shard = futures[future]
                results[shard.file] = future.result()
                bar.update(len(shard.images))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def end_with_parent(parent: int) -> None:
    """Makes a worker end once its parent is gone, however it went."""

    def look():
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def write_shard(shard: Shard) -> dict:
    """Writes a shard unless it is there: `{"records", "bytes", "broken"}`."""
    note = shard.file.with_name(f".{shard.file.name}.json")
    if shard.file.exists() and note.exists():
        return json.loads(note.read_text())
    result = dict(records=0, bytes=0, broken=[])

    def examples():
        for path, where, label in shard.images:
            try:
                content = where.read() if hasattr(where, "read") else where.read_bytes()
                pixels = decoding.decode(content)
            except (OSError, decoding.BrokenImageError) as error:
                result["broken"].append(f"{path}: {error}")
                continue
            if shard.resize and min(pixels.shape[:2]) > shard.resize:
                content = shrink(pixels, shard.resize)
            features = {"id": str(path).encode(), "image": content}
            record = records.example(
                features if label is None else features | {"label": label}
            )
            result["records"] += 1
            result["bytes"] += len(record)
            yield record

    records.write(shard.file, examples())
    note.write_text(json.dumps(result))
    return result


def shrink(pixels, side) -> bytes:
    """A JPEG of the image with a short side of `side` pixels."""
    h, w = pixels.shape[:2]
    shape = round(h * side / min(h, w)), round(w * side / min(h, w))
    made = resizing.resize(pixels, shape, "bicubic")
    return simplejpeg.encode_jpeg(made, quality=QUALITY, colorspace="RGB")
