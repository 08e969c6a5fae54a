"""Is the representation alive? Numbers of its collapse, and an alarm, while training."""

import jax
import jax.numpy as jnp

from vit_ssl_jax import partition, step
from vit_ssl_jax.models import vit

# Shares of a number's value at the start, and readings in a row: by experiment, see
# docs/results/health.md.
COLLAPSED = {"ssl/rankme": 0.5, "ssl/feature_std": 0.6, "ssl/target_std": 0.6}
PATIENCE = 3


def rankme(features):
    """Effective rank of features `[n D]`, 1 to min(n, D): scalar.

    RankMe (Garrido et al., 2023): the exponential of the entropy of the singular
    values, divided by their sum. Not centred, so features that are all alike have 1.
    """
    values = jnp.linalg.svd(features, compute_uv=False)
    shares = values / jnp.maximum(values.sum(), 1e-30)
    return jnp.exp(-jnp.sum(shares * jnp.log(shares + 1e-7)))


def feature_std(features):
    """Deviation over images of unit-length features `[n D]`, times sqrt(D): scalar.

    0 where all images have one feature; 1 where features point everywhere alike
    (SimSiam, Chen & He, 2021, section 4.1).
    """
    return unit(features).std(0).mean() * features.shape[1] ** 0.5


def cosine_spread(features):
    """Deviation of the cosine between the features `[n D]` of two images: scalar.

    0 where all images are alike, about 1 / sqrt(D) where features point everywhere
    alike, 1 where they lie on one line to both sides.
    """
    x = unit(features)
    cosines = jnp.einsum("id,jd->ij", x, x, precision="highest")
    pairs = 1.0 - jnp.eye(len(x))
    mean = (cosines * pairs).sum() / pairs.sum()
    return jnp.sqrt((jnp.square(cosines - mean) * pairs).sum() / pairs.sum())


def target_std(targets):
    """Deviation over tokens and images of targets `[... D]`, of their RMS: scalar.

    0 where all tokens have one target, 1 where nothing is common to them.
    """
    flat = targets.reshape(-1, targets.shape[-1]).astype(jnp.float32)
    rms = jnp.sqrt(jnp.square(flat).mean())
    return flat.std(0).mean() / jnp.maximum(rms, 1e-30)


def unit(features):
    """Rows of length 1: `[n D] -> [n D]`."""
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(length, 1e-12)


def mean_feature(encoder, params, image):
    """The mean over patches of a ViT's output: `[B H W C] -> [B D]` float32.

    Of images of another size (`config.data.train_size`) resized to the ViT's.
    """
    if image.shape[1:3] != encoder.size:
        shape = len(image), *encoder.size, image.shape[-1]
        image = jax.image.resize(image, shape, "bilinear")
    tokens = encoder.apply({"params": params}, image, False)
    return vit.pool(tokens, "mean", encoder.cls).astype(jnp.float32)


def make_measure(method, normalize, mesh, *, images):
    """`measure(state, batch, key) -> {ssl/...: scalar}` of `images` of a batch.

    Features are those of the encoder for downstream tasks on whole, standardised
    images, the mean over patches. `ssl/target_std` is there where a network makes the
    targets (`Method.features`): pixels can't collapse.
    """
    encoder = method.model.encoder

    def measure(state, batch, key):
        key = jax.random.fold_in(key, state.step)
        batch = step.prepare(batch)
        views = method.make_views(key, batch)
        image, views = step.take((normalize(batch["image"]), views), images, mesh)
        params = method.encoder(state.params, state.ema)
        features = mean_feature(encoder, params, image)
        metrics = {
            # effective rank of the features, from 1 to the least of images and width
            "ssl/rankme": rankme(features),
            # deviation of unit-length features over images, times the root of the
            # width: 0 where all are alike, 1 where they point everywhere alike
            "ssl/feature_std": feature_std(features),
            # deviation of the cosine of two images' features: 0 where all are alike
            "ssl/cosine_spread": cosine_spread(features),
        }
        if method.features:
            targets = method.make_targets(state.ema, views, state.step)
            # of a teacher's targets, over tokens and images, as a share of their root
            # mean square: 0 where all are alike
            metrics["ssl/target_std"] = target_std(method.features(targets))
        return metrics

    whole = partition.replicated(mesh)
    return step.with_mesh(jax.jit(measure, out_shardings=whole), mesh)


def find_collapse(history):
    """What has collapsed, in words, or "": pure, of `{ssl/...: float}`, oldest first.

    The first reading is the network at its start, for what is low depends on the data
    and the network. A number has collapsed where its last `PATIENCE` readings are all
    below its share of the start in `COLLAPSED`.
    """
    if len(history) <= PATIENCE:
        return ""
    start, last = history[0], history[-PATIENCE:]
    low = [
        f"{name[4:]} fell from {start[name]:.3g} to {last[-1][name]:.3g}"
        for name, share in COLLAPSED.items()
        if name in start and all(row[name] < share * start[name] for row in last)
    ]
    return ", ".join(low) and (
        f"the representation collapses: {', '.join(low)} since the start, the last "
        f"{PATIENCE} readings below the limit. Lower config.optim.lr, or for a method "
        "with a teacher raise config.method.ema_start"
    )


class Monitor:
    """The health of a run: when it is measured, and whether it is in alarm."""

    def __init__(self, config, run, history):
        """`history`: what the run has measured so far, oldest first."""
        c, ways = config.health, partition.ways(run.mesh)
        self._every, self._stop = c.every, c.policy == "stop"
        self._history = list(history)
        images = max(min(c.images, config.batch_size) // ways, 1) * ways
        self._measure = make_measure(run.method, run.normalize, run.mesh, images=images)

    def due(self, done):
        """Whether to measure after step `done`: the first, and every so often."""
        return bool(self._every) and (done == 1 or done % self._every == 0)

    def check(self, state, batch, key):
        """Measures a state: `{ssl/...: float}`, and words to say: where an alarm begins.

        Under the policy "stop" also where it goes on.
        """
        state = state.replace(opt_state=(), probe={})
        with jax.transfer_guard("disallow"):
            metrics = self._measure(state, batch, key)
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        before = bool(self._history) and self._history[-1]["ssl/alarm"]
        collapse = find_collapse([*self._history, metrics])
        metrics["ssl/alarm"] = float(bool(collapse))  # 1: one has collapsed
        self._history.append(metrics)
        return metrics, collapse if self._stop or not before else ""
