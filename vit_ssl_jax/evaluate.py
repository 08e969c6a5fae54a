"""python -m vit_ssl_jax.evaluate --config=configs/eval_SUITE.py --checkpoint=DIR[,DIR...]

Judges finished encoders: every task of the suite with every evaluator, for one checkpoint
or several. DIR is a run's workdir (its newest checkpoint) or a `checkpoints/STEP` in it.
"""

import json
import statistics

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from vit_ssl_jax import build, checkpoint, command, partition, pretrained, step
from vit_ssl_jax.data import sources
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators.suite import Suite, kind
from vit_ssl_jax.signals import stop_on_signal
from vit_ssl_jax.workdir import open_workdir, replace

SPLITS = ("train", "select", "test")


def evaluate(config, checkpoints, workdir="", say=print):
    """Evaluates checkpoints by a suite: `{checkpoint: {metric: float}}`.

    `config` is that of `configs/eval_*.py` or `probe_*.py`. What the model is comes
    from the config.json beside each checkpoint; `config.variant` says which ViT is
    expected, "" any. Results are printed and written to `evaluations/` in the run's
    workdir, or in `workdir` where that is given; a probe that trains for long saves
    itself there, too, and the same call goes on. Tasks whose data isn't there are left
    out with a line. Raises UserError where nothing can be evaluated.
    """
    config = config.copy_and_resolve_references()
    say(f"{config.recipe}: {', '.join(config.tasks)}")
    folders = [checkpoint.find_folder(path) for path in checkpoints]
    trained = {folder: read_trained(folder, config) for folder in folders}
    tasks = open_tasks(config, say)
    found = {}
    with stop_on_signal() as asked:
        for folder in folders:
            out = open_workdir(workdir or folder.parent.parent) / "evaluations"
            out.mkdir(exist_ok=True)
            say(f"checkpoint {folder}")
            results = {}
            for name, task in tasks.items():
                values = run_task(
                    config, name, task, trained[folder], folder, out, asked, say
                )
                if asked:
                    say("stopped; the same command goes on")
                    return found
                results |= {f"{name}/{key}": value for key, value in values.items()}
            results |= averages(config, tasks, results)
            write(config, trained[folder], folder, results, out)
            found[str(folder)] = results
    say(table(found))
    return found


def read_trained(folder, config):
    """The config that a checkpoint was trained with, fitted to this evaluation."""
    trained = ConfigDict(as_tuples(pretrained.read_whole_config(folder)))
    if config.variant not in ("", trained.vit.variant):
        trained.vit.variant = config.variant  # doesn't fit: the error lists the arrays
    trained.mesh = config.mesh
    mesh = partition.make_mesh(config.mesh)
    trained.batch_size = mesh.shape["data"] * mesh.shape["fsdp"]
    trained.accum, trained.steps = 1, 1
    trained.online.share, trained.health.every = 0.0, 0
    return trained


def as_tuples(tree):
    """JSON's lists as tuples, as they are in a config."""
    if isinstance(tree, dict):
        return {key: as_tuples(value) for key, value in tree.items()}
    return tuple(map(as_tuples, tree)) if isinstance(tree, list) else tree


def open_tasks(config, say):
    """The tasks whose data is there; a line says which are not, and why."""
    tasks, why = {}, ""
    for name, task in config.tasks.items():
        try:
            for split in filter(None, (task[key] for key in SPLITS)):
                source = sources.open_source(
                    task.set, task.dir, split, label=task.label
                )
                if not source.num_classes:
                    raise UserError(f"{source.name} has no labels")
        except UserError as error:
            why = f"config.tasks.{name}: {error}"
            say(f"task {name} is off: {why}")
            continue
        tasks[name] = task
    if not tasks:
        raise UserError(f"no task can be evaluated; the last one said: {why}")
    return tasks


def run_task(config, name, task, trained, folder, out, asked, say):
    """All evaluators on a task: `{evaluator/metric: float}`."""
    trained = trained.copy_and_resolve_references()
    classified = any(kind(name) == "classify" for name in config.evals)
    if classified and task.size not in ((), trained.data.size):
        raise UserError(
            f"config.tasks.{name}.size: the classifier was trained at "
            f"{trained.data.size}, not at {task.size}; give that size, and a resize "
            "that goes with it"
        )
    if task.size:
        trained.data.size = task.size
    data = dict(
        name=task.set,
        dir=task.dir,
        label=task.label,
        size=trained.data.size,
        resize=task.resize or min(trained.data.size),
        squash=task.squash,
        interpolation=task.interpolation,
        eval_batch_size=config.eval_batch_size,
    )
    run, state = load(trained, folder, head=classified)
    splits = dict(bank=task.train, select=task.select)
    splits |= dict(queries=task.test, split=task.test)
    evals = {
        key: dict(settings, every_epochs=0.0, metric=task.metric, **splits)
        for key, settings in config.evals.to_dict().items()
    }
    judge = ConfigDict(dict(data=data, evals=evals))
    probes = out / f"{config.recipe.replace(':', '_')}-{folder.name}" / name
    suite = Suite(judge, run, True, say, folder=probes, asked=asked)
    found = suite.evaluate(state)
    return {key.removeprefix("eval/"): value for key, value in found.items()}


def load(trained, folder, *, head):
    """The run that a checkpoint's model belongs to, and its state without optimiser.

    Of the parameters only the encoder's, unless a classifier's `head` is asked for.
    """
    run = build.make_run(trained)
    if head:
        params, averaged, _ = checkpoint.load_params(folder, run.program.state.params)
        ema = averaged or {}
    else:
        encoder, _ = pretrained.load(folder, run)
        params, ema = {"encoder": encoder}, {"encoder": encoder}
    done = jnp.asarray(int(folder.name), jnp.int32)
    return run, step.TrainState(done, params, opt_state=(), ema=ema)


def averages(config, tasks, results):
    """Means over the tasks of a group, and over all, of what all of them report."""
    groups = {}
    for name in config.tasks:
        groups.setdefault("mean", []).append(name)
        groups.setdefault(config.tasks[name].group, []).append(name)
    found = {}
    for group, names in groups.items():
        if not group or len(names) < 2 or not all(name in tasks for name in names):
            continue  # a mean over part of a suite is no figure of the suite
        common = None
        for name in names:
            own = {k[len(name) + 1 :] for k in results if k.startswith(f"{name}/")}
            common = own if common is None else common & own
        for key in sorted(common):
            values = [results[f"{name}/{key}"] for name in names]
            found[f"{group}/{key}"] = statistics.mean(values)
    return found


def write(config, trained, folder, results, out):
    """One JSON a checkpoint and suite, which the results command reads."""
    if jax.process_index():
        return
    name = config.recipe.replace(":", "_")
    content = dict(
        evaluation=config.recipe,
        recipe=trained.recipe,
        checkpoint=str(folder),
        step=int(folder.name),
        results=results,
        config=json.loads(config.to_json_best_effort()),
    )
    text = json.dumps(content, indent=2) + "\n"
    replace(epath.Path(out) / f"{name}-{folder.name}.json", text)


def table(found):
    """Markdown: a row a metric, a column a checkpoint; of a probe's grid the best."""
    names = dict.fromkeys(name for results in found.values() for name in results)
    names = [n for n in names if "/probe" not in n or "/best" in n]
    columns = [epath.Path(folder) for folder in found]
    head = [f"{path.parent.parent.name} {path.name}" for path in columns]
    lines = [
        "| " + " | ".join(["metric", *head]) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    for name in names:
        cells = [show(name, results.get(name)) for results in found.values()]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def show(name, value):
    """Accuracies in per cent, all else as it is."""
    if value is None:
        return ""
    if name.endswith(("top1", "top5", "mean_per_class", "std")):
        return f"{100 * value:.2f}"
    return f"{value:.4g}"


def run(config, checkpoint, workdir):
    """The command."""
    paths = [path for path in checkpoint.split(",") if path]
    evaluate(config, paths, workdir)


if __name__ == "__main__":
    command.start(
        run,
        optional=("workdir",),
        config="Suite, configs/eval_NAME.py or configs/probe_NAME.py.",
        checkpoint="Workdirs of runs or their checkpoints/STEP, parted by commas.",
        workdir="Folder for the results; else the run's own.",
    )
