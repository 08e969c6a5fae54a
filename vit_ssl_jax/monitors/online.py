"""A linear head and a k-NN that ride along with training and never touch it.

A program of its own runs after the step, on a part of the step's batch: whole images as
they are cropped for training, the encoder for downstream tasks, no gradient into it.
The step's program is the same with and without, and so are the weights.

The probe's state is the head with its momentum, and a queue of the newest images:
features, labels, and how each was judged before anything learned from it. The metrics
are means over the queue (progressive validation): a run that goes on from a checkpoint
writes the same numbers.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax import partition, step
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.monitors import health
from vit_ssl_jax.ops import batchnorm
from vit_ssl_jax.xla import flops

MOMENTUM, EPS = 0.9, 1e-6  # of the head's SGD; of the norm before it


class Probe:
    """The online probes of a run: their program, and when it runs."""

    def __init__(self, config, run, step_flops):
        """Finds what `config.online.share` of a step's FLOPs, `step_flops()`, pays for.

        Off without labels. Raises UserError for a queue that holds too few images.
        """
        c, classes, mesh = config.online, config.data.num_classes, run.mesh
        whole = partition.replicated(mesh)
        init = functools.partial(init_state, run.encoder.width, classes, c.queue)
        self.init = jax.jit(init, out_shardings=whole)  # () -> state
        self.like = partition.laid_out(jax.eval_shape(init), whole)
        see = functools.partial(
            see_images, run=run, rate=c.lr, k=c.k, temperature=c.temperature
        )
        self.images, self.every, self.line = 0, 1, "online probes: off"
        if c.share and not classes:
            self.line += ", the data has no labels"
        elif c.share:
            check_queue(c, mesh)
            self._plan(config, run, step_flops(), see)
        see = jax.jit(
            functools.partial(see, images=self.images),
            donate_argnums=0,
            out_shardings=whole,
        )
        self._see = step.with_mesh(see, mesh)
        self._k, self._temperature = c.k, c.temperature
        self._read = jax.jit(read, out_shardings=whole)

    def _plan(self, config, run, step_flops, see):
        """Sets how many images of a batch are seen, every how many steps."""
        state = run.program.state
        ways = partition.ways(run.mesh)
        most = min(config.batch_size, config.online.queue) // ways
        plain = with_plain_blocks(run)

        def cost(images):
            call = functools.partial(see, images=images, run=plain)
            with jax.set_mesh(run.mesh):
                return flops.count(
                    call, self.like, state.params, state.ema, run.program.batch
                )

        budget = config.online.share * step_flops
        each, self.every = afford(budget, cost(ways), most)
        self.images = each * ways
        share = cost(self.images) / (self.every * step_flops)
        self.line = (
            f"online probes: {self.images} of {config.batch_size} images every "
            f"{'step' if self.every == 1 else f'{self.every} steps'}, {100 * share:.2f} "
            f"% of the step's {step_flops / 1e9:.4g} GFLOP"
        )

    def due(self, done):
        """Whether it looks at the batch of step `done`."""
        return bool(self.images) and done % self.every == 0

    def after(self, state, batch, done, taken=None):
        """The train state once the probe, if it is due, has seen step `done`'s batch.

        taken: on the device, whether the step wasn't left out; None: it wasn't.
        """
        if not self.due(done):
            return state
        probe = self._see(state.probe, state.params, state.ema, batch, taken)
        return state.replace(probe=probe)

    def metrics(self, state, done):
        """Metrics `{online/...: scalar}` on the device; {} before the first time."""
        if not self.images or done < self.every:
            return {}
        values = self._read(state.probe)
        return {
            # accuracy of the head on images it has yet to learn from, mean over a queue
            "online/linear/top1": values["linear"],
            "online/linear/loss": values["loss"],  # cross-entropy of the head, likewise
            # accuracy of k-NN among the images of the queue, likewise
            f"online/knn_k{self._k}_T{self._temperature:g}/top1": values["knn"],
        }


def with_plain_blocks(run):
    """The run with an encoder without kernels, whose matmuls nobody could count."""
    encoder, method = run.encoder, run.method
    style = dataclasses.replace(encoder.style, kernels="plain")
    model = method.model.clone(encoder=encoder.clone(style=style))
    return dataclasses.replace(run, method=dataclasses.replace(method, model=model))


def check_queue(c, mesh):
    """Raises UserError for a queue shorter than the vote, or than a smallest batch."""
    ways = partition.ways(mesh)
    if c.queue < max(c.k, ways):
        raise UserError(
            f"config.online.queue: {c.queue} images are less than "
            f"config.online.k={c.k} neighbours or the {ways} devices; raise it"
        )


def afford(budget, one, most):
    """Plans `(count, every)`: what costs `one` is done `count` times in `every` steps.

    At most `most` times; `budget` a step is never exceeded.
    """
    if one > budget:
        return 1, math.ceil(one / budget)
    return min(int(budget // one), most), 1


def init_state(width, classes, queue):
    """The state before any image: a head of zeros and an empty queue."""
    head = {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)}
    return {
        "head": head,
        "momentum": jax.tree.map(jnp.zeros_like, head),
        "queue": {
            "features": jnp.zeros((queue, width)),
            "label": jnp.zeros(queue, jnp.int32),
            "linear": jnp.zeros(queue),  # 1 where the head was right
            "loss": jnp.zeros(queue),
            "knn": jnp.zeros(queue),  # 1 where the vote was right
        },
        "seen": jnp.zeros((), jnp.int32),  # images so far
    }


def see_images(
    probe, params, ema, batch, taken=None, *, images, run, rate, k, temperature
):
    """The probe's next state, from `images` of a batch `{image uint8, label}`.

    `taken`, a bool scalar, is whether it learns from them; None: it does.
    """
    small = {"image": batch["image"], "label": batch["label"]}
    small = step.take(small, images, run.mesh)
    encoder = run.method.encoder(params, ema)
    image = run.normalize(step.prepare(small)["image"])
    features = health.mean_feature(run.encoder, encoder, image)
    new = learn(
        probe, features, small["label"], rate=rate, k=k, temperature=temperature
    )
    if taken is None:
        return new
    return jax.tree.map(lambda x, was: jnp.where(taken, x, was), new, probe)


def learn(probe, features, label, *, rate, k, temperature):
    """Judges features `[n D]` with labels `[n]`, queues them, moves the head.

    An image without a label (-1) is queued, but neither judged nor learned from.

    The head is softmax regression by SGD with momentum, its input standardised by mean
    and deviation of the queue, new features included (they need no label).
    """
    old, seen = probe["queue"], probe["seen"]
    score = vote(features, old, seen, probe["head"]["bias"].shape[0], k, temperature)
    length, count = len(old["label"]), len(label)
    slots = (seen + jnp.arange(count)) % length
    queued = old["features"].at[slots].set(features)
    mean, variance = moments(queued, seen + count)
    x = batchnorm.standardize(features, mean, variance, EPS)

    known = label >= 0

    def loss_fn(head):
        logits = jnp.einsum("nd,dc->nc", x, head["kernel"], precision="highest")
        logits = logits + head["bias"][None]
        loss = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.maximum(label, 0)
        )
        loss = jnp.where(known, loss, 0.0)
        return loss.sum() / jnp.maximum(known.sum(), 1), (logits, loss)

    grads, (logits, loss) = jax.grad(loss_fn, has_aux=True)(probe["head"])
    momentum = jax.tree.map(lambda m, g: MOMENTUM * m + g, probe["momentum"], grads)
    new = {
        "features": features,
        "label": label,
        "linear": (logits.argmax(-1) == label).astype(jnp.float32),
        "loss": loss,
        "knn": (score.argmax(-1) == label).astype(jnp.float32),
    }
    return {
        "head": jax.tree.map(lambda w, m: w - rate * m, probe["head"], momentum),
        "momentum": momentum,
        "queue": jax.tree.map(lambda q, x: q.at[slots].set(x), old, new),
        "seen": seen + count,
    }


def vote(features, queue, seen, classes, k, temperature):
    """Class scores `[n C]` of features `[n D]` by the first `seen` rows of a queue.

    Weight `exp(cosine / temperature)` of the `k` nearest (Wu et al., 2018).
    """
    x, bank = health.unit(features), health.unit(queue["features"])
    cosine = jnp.einsum("nd,qd->nq", x, bank, precision="highest")
    filled = (jnp.arange(len(queue["label"])) < seen) & (queue["label"] >= 0)
    cosine, nearest = jax.lax.top_k(jnp.where(filled[None], cosine, -jnp.inf), k)
    rows = jnp.arange(len(features))[:, None]
    scores = jnp.zeros((len(features), classes))
    return scores.at[rows, queue["label"][nearest]].add(jnp.exp(cosine / temperature))


def moments(features, seen):
    """Mean and variance `[D]` over the first `seen` rows of `[Q D]`."""
    filled = (jnp.arange(len(features)) < seen)[:, None]
    count = jnp.minimum(seen, len(features))
    mean = jnp.where(filled, features, 0.0).sum(0) / count
    squares = jnp.square(features - mean[None])
    return mean, jnp.where(filled, squares, 0.0).sum(0) / count


def read(probe):
    """Means over the queue: shares of right answers `linear`, `knn`; mean `loss`."""
    queue = probe["queue"]
    filled = jnp.arange(len(queue["label"])) < probe["seen"]
    count = jnp.maximum((filled & (queue["label"] >= 0)).sum(), 1)
    return {n: queue[n].sum() / count for n in ("linear", "loss", "knn")}
