"""Steps left out: those that aren't finite, and those whose gradient is a spike.

A step that is left out leaves parameters, optimiser and averages as they were, and is
counted. It is judged within the step's program, by loss, gradient norm and the updated
parameters; nothing is asked of the host.

A spike is a gradient norm above a bound of the last `WINDOW` norms: the median of their
logarithms and so many deviations, a deviation being 1.4826 times the median distance from
it (MAD; Leys et al., 2013). Median and MAD stand up to spikes among the norms, which mean
and standard deviation don't, and after `WINDOW / 2` steps they follow norms that are higher
for good; logarithms, for norms change by factors. 128 steps and 6 deviations are those of OLMo-core's
`SkipStepOptimizer` (Ai2, 2024), which takes mean and standard deviation.
"""

import dataclasses

import jax
import jax.numpy as jnp

WINDOW = 128  # gradient norms that are remembered
ENOUGH = 32  # of them there must be before one can be a spike
LEAST = 0.1  # deviation of their logarithms: six are a factor of 1.8
NORMAL = 1.4826  # deviation of a normal distribution over its MAD


@dataclasses.dataclass(frozen=True)
class Rules:
    """How many steps may be left out in a row, and what a spike is."""

    nonfinite: int  # the last that ends the run; 1: the first does
    spikes: int
    deviations: float  # above the median; 0: there are no spikes


def read_rules(config):
    """The `Rules` of `config.nonfinite` and `config.spike`; None where no step is judged."""
    nonfinite, spike = config.get("nonfinite"), config.get("spike")
    skip = bool(nonfinite) and nonfinite.policy == "skip"  # which older recipes lack
    watched = bool(spike) and spike.policy != "off"
    if not (skip or watched):
        return None
    return Rules(
        nonfinite=nonfinite.most if skip else 1,
        spikes=spike.most if watched and spike.policy == "skip" else 1,
        deviations=spike.deviations if watched else 0.0,
    )


def fresh():
    """What is remembered before the first step; a part of the run's state."""
    return {
        "count": jnp.zeros((), jnp.int32),  # steps left out
        "row": jnp.zeros((), jnp.int32),  # of them in a row, up to the last step
        "last": jnp.zeros((), jnp.int32),  # the last of them; 0: none
        "ended": jnp.zeros((), jnp.int32),  # the one that ends the run; 0: none
        "norms": jnp.zeros(WINDOW, jnp.float32),  # of gradients; 0: none yet
    }


def leave_out(rules, before, after, metrics):
    """The state after a step, or `before` but for its count: `(state, metrics)`.

    `before` and `after` are the `step.TrainState`s around it, `metrics` has its loss and
    gradient norm; what is added to it is float32 or int32 scalars.
    """
    loss, norm = metrics["train/loss"], metrics["train/grad_norm"]
    old, done = before.skips, after.step
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    finite &= all_finite((after.params, after.ema))
    bound = spike_bound(old["norms"], rules.deviations)
    bad = ~finite | (norm > bound)
    row = jnp.where(bad, old["row"] + 1, 0)
    over = row >= jnp.where(finite, rules.spikes, rules.nonfinite)
    slot = before.step % WINDOW
    kept = jnp.where(jnp.isfinite(norm), norm, old["norms"][slot])
    skips = {
        "count": old["count"] + bad,
        "row": row,
        "last": jnp.where(bad, done, old["last"]),
        "ended": jnp.where(bad & over & (old["ended"] == 0), done, old["ended"]),
        "norms": old["norms"].at[slot].set(kept),
    }
    names = ("params", "opt_state", "ema")
    parts = {
        name: jax.tree.map(
            lambda new, was: jnp.where(bad, was, new),
            getattr(after, name),
            getattr(before, name),
        )
        for name in names
    }
    more = {f"skips/{name}": skips[name] for name in ("row", "last", "ended")}
    more |= {"skips/bound": bound, "skips/taken": ~bad}
    metrics |= more | {
        # steps left out so far, where `nonfinite` or `spike` says so
        "train/skipped": skips["count"].astype(jnp.float32)
    }
    return after.replace(**parts, skips=skips), metrics


def spike_bound(norms, deviations):
    """The norm above which one is a spike, infinite before ENOUGH norms: scalar.

    norms: float32 `[WINDOW]` in any order, those that aren't above 0 left out.
    """
    if not deviations:
        return jnp.float32(jnp.inf)
    known = norms > 0
    logs = jnp.where(known, jnp.log(jnp.where(known, norms, 1.0)), jnp.inf)
    middle = median(logs, known.sum())
    spread = median(jnp.abs(logs - middle), known.sum())
    bound = jnp.exp(middle + deviations * jnp.maximum(NORMAL * spread, LEAST))
    return jnp.where(known.sum() >= ENOUGH, bound, jnp.inf)


def median(values, count):
    """The median of the `count` least of values `[n]`; the others are infinite."""
    ordered = jnp.sort(values)
    last = jnp.maximum(count - 1, 0)
    return (ordered[last // 2] + ordered[(last + 1) // 2]) / 2


def all_finite(tree):
    """Whether all numbers of a tree are finite: bool scalar."""
    parts = [
        jnp.isfinite(x).all()
        for x in jax.tree.leaves(tree)
        if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    return jnp.stack(parts).all() if parts else jnp.bool_(True)
