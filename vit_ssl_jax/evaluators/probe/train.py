"""Linear probes: a grid of heads trained on a frozen encoder, resumable at any step.

Images go once through the encoder for all heads of the grid (`heads`): augmented, with
the encoder inside the heads' step, or as features of plain images that were kept.
"""

import contextlib
import dataclasses
import functools
import json
import time

import jax
import numpy as np

from vit_ssl_jax import partition, step
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import Unfit, accuracy
from vit_ssl_jax.evaluators.banks import check_labels
from vit_ssl_jax.evaluators.probe import heads, programs
from vit_ssl_jax.workdir import checkpoint
from vit_ssl_jax.workdir.folder import open_workdir, replace

ROWS = 1024  # images at a time when heads are judged


def train(
    config,
    feed,
    select,
    queries,
    *,
    classes,
    mesh,
    folder,
    stop_requested,
    say,
    about=(),
):
    """Trains the grid and judges every head: `{metric: float}`; None where stopped.

    `config` is `sweep.Config`, `feed` comes from `feeds`; `queries` and `select` are
    `({readout: [M F]}, labels)` of plain images. Metrics: `NAME/top1` of every head on
    the queries; `select/NAME/top1` on images held out of training for choosing a head;
    and of the head that is best there `best/NAME/top1` and `best/{top1, top5,
    mean_per_class}` on the queries. With `select` None the head is chosen on the
    queries themselves, which flatters it: its metrics are called `best_on_queries/...`.

    With a `folder` the probe is saved there, and the same call continues at the exact
    step; `stop_requested` is filled by `signals.stop_on_signal`. Raises UserError for
    labels that don't fit the `classes`, a batch that doesn't divide the mesh, and a
    folder of another probe, or of one on other images, which the dict `about` tells.
    """
    check_batch(config, mesh)
    check_classes("probe, queries", queries[1], classes)
    if select is not None:
        check_classes("probe, selection", select[1], classes)
    steps = count_steps(config, feed.images)
    if folder:
        check_folder(config, feed, folder, dict(about))
    widths = {readout: x.shape[1] for readout, x in queries[0].items()}
    how = dict(mesh=mesh, folder=folder, stop_requested=stop_requested, say=say)
    state = fit(config, feed, widths=widths, classes=classes, steps=steps, **how)
    if int(state.step) < steps:
        say(f"probe: stopped at step {int(state.step)} of {steps}")
        return None
    return judge(config, state, select, queries, mesh, say)


def count_steps(config, images):
    """Number of steps of a probe; raises UserError where its epochs hold none."""
    epoch_steps = config.epoch_steps or images // config.batch_size
    steps = round(config.epochs * epoch_steps)
    if steps < 1:
        raise Unfit(
            f"epochs: {config.epochs:g} epochs of {images} "
            f"images in batches of {config.batch_size} are no step; lower batch_size, "
            "or raise epochs or epoch_steps"
        )
    return steps


def fit(config, feed, *, widths, classes, steps, mesh, folder, stop_requested, say):
    """Trains the heads: the state after `steps` steps, or where a stop is requested."""
    init, update = programs.make_programs(
        config, feed.read, widths=widths, classes=classes, steps=steps, mesh=mesh
    )

    def advance(state, batch):
        check_labels("probe, training images", batch["label"])
        check_classes("probe, training images", batch["label"], classes)
        batch = step.put_batch(batch, mesh)
        jax.block_until_ready(state)  # no more than two batches on the devices
        with jax.set_mesh(mesh):
            return update(state, batch, feed.params)

    how = dict(steps=steps, advance=advance, stop_requested=stop_requested, say=say)
    run = functools.partial(loop, config, feed, **how)
    return resume(folder, init, partition.replicated(mesh), run)


def resume(folder, init, whole, run):
    """What `run(state, save)` returns, begun by `init()` or where `folder` is.

    `save(state)` saves there; without a folder it does nothing. `whole` is the sharding
    of the state.
    """
    if not folder:
        return run(init(), lambda state: None)
    with contextlib.closing(checkpoint.Checkpoints(folder, 1)) as saved:
        like = partition.laid_out(jax.eval_shape(init), whole)
        state, before = saved.restore(like) or (init(), 0.0)
        begun = time.perf_counter()
        return run(
            state,
            lambda state: saved.save(state, before + time.perf_counter() - begun),
        )


def loop(
    config, feed, state, save, *, advance, steps, stop_requested, say, name="probe"
):
    """Steps until the end or until a stop is requested; returns the state, saved."""
    start = int(state.step)
    batches = feed.batches(start)
    for done in range(start + 1, steps + 1):
        if stop_requested:
            break
        state, losses = advance(state, next(batches))
        if done % -(-steps // 10) == 0:
            least = min(float(x.min()) for x in jax.device_get(losses).values())
            say(f"{name}: step {done} of {steps}, lowest loss of a head {least:.4f}")
        if done % config.checkpoint_every == 0:
            save(state)
    save(state)
    return state


def judge(config, state, select, queries, mesh, say):
    """The metrics of `train`."""
    rank = make_ranker(config, mesh)
    accuracies = top1(config, rank(state, queries[0], 1), queries[1])
    metrics = {}
    for name, value in accuracies.items():
        metrics[f"{name}/top1"] = value  # top-1 accuracy of every head
    # Where there is but one head, nothing was chosen.
    how, chosen = "best" if len(accuracies) == 1 else "best_on_queries", accuracies
    if select is not None:
        how, chosen = "best", top1(config, rank(state, select[0], 1), select[1])
        for name, value in chosen.items():
            metrics[f"select/{name}/top1"] = value  # where a head is chosen
    best = max(chosen, key=chosen.get)
    group = next(g for g in config.groups if best in config.names(g))
    i = config.names(group).index(best)
    alone = state.replace(
        heads={group: jax.tree.map(lambda x: x[i : i + 1], state.heads[group])}
    )
    scores = accuracy.score(rank(alone, queries[0], 5)[group][0], queries[1])
    say(f"probe: {how} is {best}, top-1 {100 * scores['top1']:.2f} %")
    for metric, value in scores.items():
        metrics[f"{how}/{metric}"] = value  # accuracies of the head that is chosen
    metrics[f"{how}/{best}/top1"] = scores["top1"]  # its top-1, and its name
    return metrics


def make_ranker(config, mesh):
    """Makes `rank(state, {readout: [M F]}, best) -> {group: [H M best]}` in numpy."""
    whole = partition.replicated(mesh)
    compute = jax.jit(
        functools.partial(heads.rank, config), static_argnums=2, out_shardings=whole
    )
    ways = partition.ways(mesh)
    rows = -(-ROWS // ways) * ways

    def rank(state, features, best):
        parts, count = [], len(next(iter(features.values())))
        for first in range(0, count, rows):
            piece = {r: x[first : first + rows] for r, x in features.items()}
            missing = rows - min(rows, count - first)
            piece = {r: np.pad(x, ((0, missing), (0, 0))) for r, x in piece.items()}
            piece = partition.put(piece, partition.batch_sharding(mesh))
            ranked = jax.device_get(compute(state, piece, best))
            parts.append({g: ids[:, : rows - missing] for g, ids in ranked.items()})
        return {g: np.concatenate([p[g] for p in parts], axis=1) for g in parts[0]}

    return rank


def top1(config, ranked, labels):
    """Top-1 of every head, `{name: accuracy}`, from `{group: [H M 1]}`."""
    return {
        name: accuracy.score(ids, labels)["top1"]
        for group, of_heads in ranked.items()
        for name, ids in zip(config.names(group), of_heads)
    }


def check_classes(name, labels, classes):
    """Raises UserError for labels that are missing or aren't the heads' classes."""
    if labels.ndim == 2:
        beyond = labels.shape[1] - 1 if labels.shape[1] != classes else None
    else:
        check_labels(name, labels)
        beyond = labels.max() if labels.max() >= classes else None
    if beyond is not None:
        raise UserError(
            f"{name}: class numbers up to {beyond}, but those of the heads go from 0 "
            f"to {classes - 1}; evaluate on the classes that the probe is trained on"
        )


def check_batch(config, mesh):
    """Raises UserError unless the batch divides over the mesh and its pieces."""
    pieces, words = (config.accum if config.augment else 1), f"and accum={config.accum}"
    partition.check_batch(
        "batch_size", config.batch_size, mesh, pieces, f"{words} pieces"
    )


def check_folder(config, feed, folder, about):
    """Notes whose probe is in a folder, for all processes; UserError if it's another's."""
    path = open_workdir(folder) / "probe.json"
    new = dataclasses.asdict(config) | about
    for key in ("accum", "checkpoint_every"):  # change nothing that is learned
        del new[key]
    new["encoder"] = int(checkpoint.digest(feed.params))
    new = json.loads(json.dumps(new))
    with processes.together():
        if jax.process_index() == 0:
            compare_probes(path, new)


def compare_probes(path, new):
    """Writes what a folder's probe is; UserError where it was another."""
    used = path.exists() and (path.parent / "checkpoints").exists()
    old = json.loads(path.read_text()) if used else new
    keys = sorted(old.keys() | new.keys())
    changed = [f"{k}: {old.get(k)} -> {new.get(k)}" for k in keys]
    changed = [c for c, k in zip(changed, keys) if old.get(k) != new.get(k)]
    if changed:
        raise UserError(
            f"{path.parent} holds a probe with other settings ({'; '.join(changed)}); give "
            "it a new folder, or delete that one"
        )
    replace(path, json.dumps(new, indent=2) + "\n")
