"""What a run says of itself before its first step."""

import jax

import vit_ssl_jax
from vit_ssl_jax import optim
from vit_ssl_jax.models import vit


def introduce(say, config, run, state, lines, changed):
    """What is about to run, on what, and where it starts."""
    devices, mesh = jax.devices(), run.mesh.shape
    axes = " ".join(f"{name}={size}" for name, size in mesh.items())
    say(
        f"vit_ssl_jax {vit_ssl_jax.__version__}, jax {jax.__version__}, "
        f"{len(devices)} {devices[0].device_kind} device(s), mesh {axes}"
    )
    for line in lines:
        say(line)
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
    for line in changed:
        say(f"note: changed since this run was started: {line}")
    done = int(state.step)
    if done == run.steps:
        say(f"already finished at step {done}")
    else:
        say(f"starting at step {done}" if done else "starting afresh")
