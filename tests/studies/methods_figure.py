r"""The figure of README.md: one photo, four methods, what each sees and predicts.

for METHOD in mae, ijepa, maskfeat, dino:
    python -m vit_ssl_jax.main --config=configs/pretext_cpu.py:METHOD --config.data.dir=DIR \
        --config.vit.dtype=bfloat16 --workdir=RUNS/METHOD
python -m tests.studies.methods_figure RUNS --out=docs/methods.webp

DIR has the prepared CIFAR-10 (docs/guides/data.md). The photo is scikit-image's cat. DINO's run
of the figure is in float32.
"""

import argparse
import pathlib

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from vit_ssl_jax import pictures

# Method -> its name, and of its rows (by how they begin) what to write below them.
ROWS = {
    "mae": (
        "MAE",
        ("masked", "it sees a quarter of the patches"),
        ("prediction pasted in", "and predicts the pixels of the others"),
        ("original", "the photo"),
    ),
    "ijepa": (
        "I-JEPA",
        ("context", "it sees a part"),
        ("targets", "and predicts the teacher's features of these"),
        ("cosine", "how well (dark: not, yellow: exactly)"),
    ),
    "maskfeat": (
        "MaskFeat",
        ("masked", "it sees a part"),
        ("HOG of the hidden patches, predicted", "and predicts the edges of the rest"),
        ("HOG of the hidden patches, true", "the true edges"),
    ),
    "dino": (
        "DINO",
        ("global crop 1", "the teacher sees large crops"),
        ("local crop 2", "the student sees small ones and predicts its answer"),
        ("global crop 1: ", "patches like the whole (yellow: most)"),
    ),
}
SIDE, GAP, LINE = 176, 8, 20  # pixels: of a picture, between them, of a line of text


def main():
    """Reads the command, draws and writes the figure."""
    parser = argparse.ArgumentParser(
        prog="tests.studies.methods_figure", description=__doc__
    )
    parser.add_argument("runs", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)  # of masks and crops
    args = parser.parse_args()
    photo = skimage.data.chelsea()[:, 60:360]  # its face, 300x300 px
    figure = compose(
        [
            draw_method(name, args.runs / name, photo, args.seed)
            for name in ROWS
            if (args.runs / name).exists()
        ]
    )
    figure.save(args.out, "WEBP", quality=85, method=6)
    print(f"{args.out}: {figure.width}x{figure.height}")


def draw_method(name, run, photo, seed):
    """Title, pictures and what to write below them: `str, [Image], [str]`."""
    title, *wanted = ROWS[name]
    rows = pictures.draw(run, images=[photo], seed=seed)
    found = [(find(rows, start), text) for start, text in wanted]
    return title, [enlarge(rows[row]) for row, _ in found], [text for _, text in found]


def find(rows, start):
    """The name of the first row that is called `start`, or begins so."""
    return start if start in rows else next(n for n in rows if n.startswith(start))


def enlarge(pixels):
    """A picture at the size of the figure, pixels as squares: uint8 `[h w 3]`."""
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (SIDE, SIDE), Image.Resampling.NEAREST
    )


def compose(methods):
    """All methods side by side, each a column of pictures with a text below each."""
    step, height = SIDE + 2 * GAP, SIDE + 2 * LINE + GAP
    deep = max(len(found) for _, found, _ in methods)
    figure = Image.new(
        "RGB", (step * len(methods), LINE + GAP + height * deep), "white"
    )
    pen = ImageDraw.Draw(figure)
    head, body = ImageFont.load_default(15), ImageFont.load_default(12)
    for i, (title, found, texts) in enumerate(methods):
        left = i * step + GAP
        pen.text((left, 2), title, fill="black", font=head)
        for j, (picture, text) in enumerate(zip(found, texts, strict=True)):
            top = LINE + GAP + j * height
            figure.paste(picture, (left, top))
            below = wrap(text, body)
            pen.text((left, top + SIDE + 2), below, fill="black", font=body)
    return figure


def wrap(text, font):
    """A text in lines no wider than a picture."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= SIDE:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
