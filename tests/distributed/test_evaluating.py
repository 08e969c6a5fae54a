"""The evaluate command as several processes: the digits of one, one voice, one end."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests import runs
from vit_ssl_jax import train

FAKE = dict(set="fake", train="train[:203]", select="train[300:401]", test="test[:101]")
SUITE = """
import json
import pathlib

from ml_collections import ConfigDict


def get_config():
    text = pathlib.Path(__file__).with_suffix(".json").read_text()
    return ConfigDict(json.loads(text, object_hook=tuples))


def tuples(tree):
    return {k: tuple(map(deep, v)) if isinstance(v, list) else v for k, v in tree.items()}


def deep(v):
    return tuple(map(deep, v)) if isinstance(v, list) else v
"""
KNN = dict(pool="mean", k=(5, 20), temperature=0.07, standardize=True)
CUT = dict(crop=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip=True, seed=0, batch_size=32)
JUDGES = dict(
    knn=KNN,
    fewshot=dict(pool="mean", shots=(1, 3), seeds=(0, 1), ridge=1024.0),
    linear=dict(pool="mean", c=0.1, iterations=20),
)
GRID = CUT | dict(
    readouts=((1, "mean"), (2, "mean")),
    batch_norm=(True, False),
    norm_group=16,  # half a batch
    optimizer="lars",
    momentum=0.9,
    nesterov=False,
    rates=(0.1, 1.0),
    rate_batch=0,
    decays=(0.0,),
    decay_bias=False,
    schedule="cosine",
    step_epochs=0.0,
    milestones=(),
    rate_end=0.0,
    warmup_epochs=0.0,
    epochs=3.0,
    epoch_steps=0,
    accum=2,
    augment=True,
    single_draw=True,
    checkpoint_every=5,
)
EVALS = {
    "probes": dict(probe=GRID, probe_kept=GRID | dict(augment=False, accum=1)),
    "views": dict(
        uniformity=CUT | dict(pool="mean", images=100, alpha=2.0, t=2.0),
        pretext={},
        knn=KNN,
    ),
    "baselines": JUDGES,
    "classifier": dict(classify=dict(label_map=(), only_present=False)),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Workdir of a short run of MAE."""
    folder = tmp_path_factory.mktemp("mae")
    train.train(runs.small("mae", steps=2), folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Workdir of a classifier with averaged weights."""
    folder = tmp_path_factory.mktemp("classifier")
    config = runs.small("mae", steps=2)
    config.recipe = "supervised"
    supervised = runs.load("pretext_cpu.py", "supervised").method
    with config.unlocked():
        config.method = supervised.copy_and_resolve_references()
        config.method.ema = 0.5
        config.evals = ConfigDict({})
    train.train(config, folder)
    return folder


def suite(folder, evals, baselines=False, **task):
    """Writes a suite of one task into a folder; its file."""
    config = runs.load("eval_quickstart.py").copy_and_resolve_references().unlock()
    config.tasks = {"task": config.tasks.embedded.to_dict() | FAKE | task}
    config.evals, config.baselines = evals, baselines
    config.recipe, config.eval_batch_size = "suite", 48
    (folder / "suite.json").write_text(config.to_json())
    (folder / "suite.py").write_text(SUITE)
    return folder / "suite.py"


def start(config, checkpoint, workdir, *flags, count=1, devices=1, places=()):
    """Starts the command as `count` processes, in the folders `places` where given."""
    port, command = runs.free_port(), [sys.executable, "-m", "vit_ssl_jax.evaluate"]
    command += [f"--config={config}", f"--checkpoint={checkpoint}", *flags]
    command += [f"--workdir={workdir}"] * bool(workdir)
    one = [f"--coordinator=localhost:{port}", f"--num_processes={count}"]
    one += ["--start_timeout=100"]
    return [
        subprocess.Popen(
            [*command, *(one + [f"--process_id={i}"] if count > 1 else ())],
            cwd=places[i] if places else runs.ROOT,
            env=runs.environment(devices) | {"PYTHONPATH": str(runs.ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]


def finish(processes):
    """Outputs of processes, and their status."""
    outputs = [process.communicate(timeout=400)[0] for process in processes]
    return outputs, [process.returncode for process in processes]


def read(workdir):
    """The one file of results that there is."""
    (file,) = workdir.glob("evaluations/*.json")
    return json.loads(file.read_text())


def same_digits(config, checkpoint, folder, counts):
    """Results of one process, after those of others have been found to be equal.

    The devices are as many in all: on others a loss may differ in its last bits.
    """
    started = {
        n: start(
            config,
            checkpoint,
            folder / str(n),
            count=n,
            devices=max(counts) // n,
        )
        for n in (1, *counts)
    }
    ended = {n: finish(processes) for n, processes in started.items()}
    for n, (outputs, codes) in ended.items():
        assert codes == [0] * n, "\n".join(outputs)
        for silent in outputs[1:]:  # one process says and writes
            assert "checkpoint" not in silent and "|" not in silent, silent
    found = {n: read(folder / str(n)) for n in ended}
    for n in counts:
        assert found[n]["finished"]
        assert found[n]["results"] == found[1]["results"], n
    return found[1]["results"]


@pytest.mark.slow
def test_two_processes_find_what_one_does(trained, tmp_path):
    """k-NN, few-shot, logistic regression: equal numbers, not nearly equal ones."""
    config = suite(tmp_path, JUDGES)
    results = same_digits(config, trained, tmp_path, (2,))
    assert results["task/knn/k5_T0.07_mean_standardized/top1"] > 0.5  # ten colours
    assert {"task/fewshot/shots3_l1024_mean/std", "task/linear/C0.1_mean/top1"} <= set(
        results
    )


@pytest.mark.slow  # ~ 60 s each
@pytest.mark.parametrize("kind", EVALS)
def test_every_evaluator_of_two_and_four_processes_finds_what_one_does(
    request, tmp_path, kind
):
    config = suite(tmp_path, EVALS[kind], kind == "baselines")
    run = request.getfixturevalue("classifier" if kind == "classifier" else "trained")
    results = same_digits(config, run, tmp_path, (2, 4))
    known = {
        "probes": "task/probe_kept/best/top5",
        "views": "task/pretext/loss",
        "baselines": "task/raw_pixels/linear/C0.1_mean/top1",
        "classifier": "task/classify/ema/top5",
    }
    assert known[kind] in results


@pytest.mark.slow  # ~ 60 s
def test_a_stop_that_one_hears_stops_both_and_four_go_on(trained, tmp_path):
    """At the exact step of a probe, which is of as many steps with and without."""
    grid = GRID | dict(epochs=30.0)  # 180 steps
    config = suite(tmp_path, dict(probe=grid))
    alone = start(config, trained, tmp_path / "one", devices=4)
    pair = start(config, trained, tmp_path / "two", count=2, devices=2)
    lines = iter(pair[0].stdout.readline, "")
    assert any(line.startswith("probe: step 18 of 180") for line in lines)
    pair[1].send_signal(signal.SIGTERM)
    (said, other), codes = finish(pair)
    assert codes == [0, 0], said + other
    assert said.strip().endswith("the same command continues with the task it was at")
    done = int(re.search(r"probe: stopped at step (\d+) of 180", said)[1])
    assert 18 <= done < 180
    assert "stopped" not in other
    assert not list((tmp_path / "two").glob("evaluations/*.json"))

    outputs, codes = finish(start(config, trained, tmp_path / "two", count=4))
    assert codes == [0] * 4, outputs
    first = int(re.search(r"probe: step (\d+) of 180", outputs[0])[1])
    assert first > done  # steps that are done aren't done again
    assert finish(alone)[1] == [0]
    assert read(tmp_path / "two")["results"] == read(tmp_path / "one")["results"]


def photos(folder, count):
    """Two classes of images in a folder; `count` in all."""
    rng = np.random.default_rng(0)
    for i in range(count):
        name = folder / ("train" if i % 3 else "test") / "ab"[i % 2] / f"{i}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(name)


def on_two_hosts(trained, tmp_path, counts, checkpoint):
    """Ends two processes in folders with so many photos and a link to a run, or none."""
    places = [tmp_path / f"host{i}" for i in range(2)]
    for place, count in zip(places, counts):
        place.mkdir()
        photos(place / "photos", count)
    (places[0] / "run").symlink_to(trained)
    knn = dict(KNN, k=(3,))
    data = dict(set="folder", dir="photos", train="train", select="", test="test")
    config = suite(tmp_path, dict(knn=knn), **data)
    outputs, codes = finish(
        start(config, checkpoint, tmp_path / "out", count=2, places=places)
    )
    assert codes == [1, 1], outputs
    return outputs


def test_data_that_one_host_lacks_ends_both_with_its_name(trained, tmp_path):
    outputs = on_two_hosts(trained, tmp_path, (24, 0), trained)
    for output in outputs:
        assert "error: process 1 on " in output
        assert "lacks what process 0 on" in output
        assert "config.tasks.task: " in output and "photos" in output
        assert "Put the same data on every host" in output
        assert "Traceback" not in output


@pytest.mark.slow  # ~ 15 s
def test_other_images_on_one_host_are_refused(trained, tmp_path):
    outputs = on_two_hosts(trained, tmp_path, (24, 23), trained)
    for output in outputs:
        assert "config.tasks.task: train is not the same on all hosts" in output
        assert re.search(r"15 images on \S+ \(process 1\), 16 on", output), output


@pytest.mark.slow  # ~ 15 s
def test_a_checkpoint_that_one_host_lacks_ends_both(trained, tmp_path):
    outputs = on_two_hosts(trained, tmp_path, (24, 24), "run")
    assert "error: there is no checkpoint under run" in outputs[1]
    assert re.search(r"error: on \S+: there is no checkpoint under run", outputs[0])


SHARE = """
import sys
import jax
import numpy as np
from vit_ssl_jax import partition
from vit_ssl_jax.distributed import clusters, processes
from vit_ssl_jax.evaluators import sharing
index, port = int(sys.argv[1]), sys.argv[2]
processes.start(clusters.Group(f"localhost:{port}", 2, index), {}, 60)
devices = np.array(jax.devices())[[0, 2, 1, 3]]  # as on a slice: hosts in turn
mesh = jax.sharding.Mesh(devices.reshape(4, 1, 1), partition.MESH_AXES)
rng = np.random.default_rng(0)
whole = dict(image=rng.integers(0, 256, (12, 4, 4, 3), np.uint8), id=np.arange(12))
whole |= dict(label=rng.integers(0, 2, (12, 5), np.uint8), valid=whole["id"] < 11)
rows = sharing.rows_of(12, mesh)
placed, rest = sharing.place({name: x[rows] for name, x in whole.items()}, mesh)
for name, x in whole.items():
    np.testing.assert_array_equal(partition.fetch(placed[name]), x)
    assert name == "image" or (rest[name] == x).all()
print("rows", *rows, flush=True)
"""


@pytest.mark.slow  # ~ 10 s
def test_hosts_whose_devices_take_turns_make_one_batch():
    """With sets of classes as labels; the rows of a process are apart."""
    port = str(runs.free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, str(index), port],
            cwd=runs.ROOT,
            env=runs.environment(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    outputs, codes = finish(processes)
    assert codes == [0, 0], outputs
    assert "rows 0 1 2 6 7 8\n" in outputs[0]
    assert "rows 3 4 5 9 10 11\n" in outputs[1]
