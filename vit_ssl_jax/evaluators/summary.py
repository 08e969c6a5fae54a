"""The closing table: the encoder beside itself at initialisation, and raw pixels."""

import json

import jax

from vit_ssl_jax.workdir.folder import replace

ROWS = ("learned", "untrained", "raw_pixels")
TITLES = {"knn": "k-NN top-1", "linear": "linear probe top-1"}
HEADLINE = "k20_"  # of several k
JUDGES = {
    "knn": "a vote of the nearest training images (k-NN)",
    "linear": "a linear classifier",
}
WORDS = """
What you see: the encoder, frozen, judged by {judges}.
'untrained' is the same network at its random start: what the architecture gives by
itself. 'raw pixels' uses no network.

{verdict}
"""


def report(suite, learned, untrained, *, workdir, seconds, say):
    """Evaluates the three rows, prints the table, writes summary.json, returns it.

    `learned` and `untrained` are states; `seconds()` is the run's wall time so far.
    Accuracies are in 0..1.
    """
    results = {
        "learned": suite.evaluate(learned),
        "untrained": suite.evaluate(untrained),
        "raw_pixels": suite.evaluate_pixels(),
    }
    out = {}
    for row, metrics in results.items():
        for key, value in metrics.items():
            _, evaluator, metric = key.split("/", 2)
            rows = out.setdefault(evaluator, {})
            if evaluator not in TITLES:
                rows.setdefault(row, {})[metric] = value
            elif row not in rows or metric.startswith(HEADLINE):
                rows[row] = value
    out["seconds"] = seconds()
    if jax.process_index() == 0:
        replace(workdir / "summary.json", json.dumps(out, indent=2) + "\n")
    names = [name for name in out if name in TITLES]
    if names:
        say("\n" + table(out, names))
    if "pretext" in out:
        say("\n" + pretext(out["pretext"]))
    if names:
        say(
            WORDS.format(
                judges=" and ".join(JUDGES[name] for name in names),
                verdict=verdict(out, names),
            )
        )
    say(f"{out['seconds']:.0f} s in all; numbers in {workdir}/summary.json")
    return out


def pretext(rows):
    """The objective on held-out images, a line a state."""
    lines = ["the objective itself on held-out images"]
    for row, metrics in rows.items():
        cells = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        lines.append(f"{row:<18}{cells}")
    return "\n".join(lines)


def table(out, names):
    """Top-1 accuracy in per cent, a row a representation."""
    lines = ["representation    " + "".join(f"{TITLES[n]:>20}" for n in names)]
    for row in ROWS:
        cells = "".join(f"{100 * out[n][row]:>18.1f} %" for n in names)
        lines.append(f"{row.replace('_', ' '):<18}" + cells)
    return "\n".join(lines)


def verdict(out, names):
    """What training brought, whatever it was, and whether raw pixels do better."""
    titles = {"knn": "k-NN", "linear": "the linear probe"}
    gains = {n: 100 * (out[n]["learned"] - out[n]["untrained"]) for n in names}
    said = " and ".join(f"{g:+.1f} points in {titles[n]}" for n, g in gains.items())
    text = f"Training changed the encoder by {said}."
    if min(gains.values()) <= 0:
        text = (
            f"Training did not help throughout: {said} against the untrained encoder."
        )
    below = [n for n in names if out[n]["learned"] <= out[n]["raw_pixels"]]
    if below:
        text += (
            f"\nIn {' and '.join(titles[n] for n in below)} the learned encoder is not "
            "above raw pixels: longer training\nor a recipe for this data is needed."
        )
    return text
