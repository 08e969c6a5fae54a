"""Steps on images that live on the devices, beside the same step on one batch."""

import jax

from vit_ssl_jax import build, device_cache, feeds, memory, starting
from vit_ssl_jax.bench import step, timing


def measure(config, source, rounds=5):
    """Images a second of spans of steps, and of the step alone, taking turns.

    JSON-able: images_per_second, step_images_per_second, ratio of the first to the
    second. A span has all that a run gives it: its image numbers are drawn and sent.
    """
    train, _ = step.prepare(config)
    span = prepare(config, source)
    most = device_cache.MOST

    def steps():
        for _ in range(most):
            train()

    seconds = timing.take_turns({"step": steps, "span": span}, rounds)
    images = most * config.batch_size
    rates = {
        name: timing.summarize(values, images)["images_per_second"]
        for name, values in seconds.items()
    }
    return dict(
        images_per_second=rates["span"],
        step_images_per_second=rates["step"],
        ratio=timing.ratio(seconds["span"], seconds["step"]),
    )


def prepare(config, source):
    """Compiles spans and takes one: `function() -> None` that takes another."""
    loaded, _ = device_cache.load(config, source)
    run = device_cache.extend(build.make_run(config), config, loaded)
    call, _ = memory.compile_step(run.program)
    feed = feeds.from_devices(config, loaded, run, 0)
    state = run.program.init(jax.random.key(config.seed))
    key = starting.make_key(config.seed, run.program)

    def span():
        nonlocal state
        state, *rest = call(state, feed.put(feed.take(feed.most)), key)
        jax.block_until_ready((state, rest))

    span()
    return span
