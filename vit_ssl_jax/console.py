"""What a run prints on the console: what it is, each line, its results."""

import time

import jax

import vit_ssl_jax
from vit_ssl_jax import freezing, optim
from vit_ssl_jax.errors import printable
from vit_ssl_jax.models import vit

NOTICE = (
    30.0  # seconds that spot machines of Google's cloud have when they are taken away
)


def say(text):
    """Prints a line of the run before it has a `workdir.metrics.Writer`."""
    if jax.process_index() == 0:
        print(printable(text), flush=True)


def save_line(took, step):
    """What a save costs, and whether it and a step fit into NOTICE; both in seconds."""
    line = f"a save takes {took:.1f} s beside the steps, of {step:.2g} s each"
    if took + step <= NOTICE:
        return line
    return (
        f"{line}: a machine that is taken away after {NOTICE:.0f} s, as spot machines are, "
        "loses the steps since its last checkpoint; lower config.checkpoint_every, or ask "
        "for longer notice (launch/slurm.sh has two minutes)"
    )


def introduce(config, run, lines):
    """Prints what is about to run: devices, `lines`, model, steps, learning rates."""
    devices, mesh = jax.devices(), run.mesh.shape
    axes = " ".join(f"{name}={size}" for name, size in mesh.items())
    say(
        f"vit_ssl_jax {vit_ssl_jax.__version__}, jax {jax.__version__}, "
        f"{len(devices)} {devices[0].device_kind} device(s), mesh {axes}"
    )
    for line in lines:
        say(line)
    state = run.program.state
    total, encoder = (
        vit.parameter_count(p) / 1e6 for p in (state.params, run.encoder_params(state))
    )
    say(
        f"model: {config.method.name}, ViT {config.vit.variant} on a grid of "
        f"{'x'.join(map(str, run.encoder.grid))}: {total:.2f} M parameters, "
        f"{encoder:.2f} M of them in the encoder"
    )
    say(
        f"run: {run.steps} steps of {config.batch_size} images "
        f"({run.steps / run.steps_per_epoch:.1f} epochs), peak learning rate "
        f"{run.peak_rate:g}"
    )
    if config.optim.layer_decay != 1:
        depth = run.encoder.depth
        say(optim.describe_layers(config.optim.layer_decay, depth, run.peak_rate))
    if (blocks := config.optim.get("train_blocks", -1)) >= 0:
        say(freezing.describe(blocks, run.encoder.depth))


def say_start(run, done, lines, changed):
    """Prints `lines`, what `changed` in the config, and the step that is `done`."""
    for line in lines:
        say(line)
    for line in changed:
        say(f"note: changed since this run was started: {line}")
    if done == run.steps:
        say(f"already finished at step {done}")
    else:
        say(f"starting at step {done}" if done else "starting afresh")


def duration(seconds):
    """Seconds as "1h02m", "3m20s" or "45s"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def console_line(done, steps, metrics):
    """One line: step, loss, and once a step has been timed speed, data wait and ETA."""
    line = f"step {done}/{steps}  loss {metrics['train/loss']:.4f}"
    if "perf/step_seconds" in metrics:
        left = (steps - done) * metrics["perf/step_seconds"]
        line += (
            f"  {metrics['perf/img_per_sec']:.4g} img/s"
            f"  data wait {100 * metrics['perf/data_wait_frac']:.0f} %"
            f"  ETA {duration(left)}"
        )
    return line


def results_line(results):
    """One line of evaluation results: accuracies in per cent, all else as it is."""
    cells = (
        f"{k} {100 * v:.1f} %" if k.endswith("top1") else f"{k} {v:.4g}"
        for k, v in results.items()
    )
    return "  ".join(cells)


class Clock:
    """Wall time of a run in seconds, over all its sessions."""

    def __init__(self, begun, before):
        self._begun, self._before = begun, before

    def __call__(self):
        return self._before + time.perf_counter() - self._begun
