"""The pictures that a run left in its workdir, small enough for a page."""

import base64
import io

from PIL import Image

SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
PLAIN = 100_000  # bytes of a file that is shown as it is
WIDE, QUALITY = 1600, 80  # pixels and quality of those that are made smaller
ALL = 6_000_000  # bytes of the pictures of a page


def find(folder, newest):
    """The files of pictures of a run: `{name: [(step, file)]}`, by step.

    `pictures/STEP/NAME.png` while it trained; `pictures.png` is of its end, the step
    `newest`.
    """
    panels = {}
    for file in sorted(folder.glob("pictures/*/*")):
        if file.parent.name.isdecimal() and file.suffix.lower() in SUFFIXES:
            panels.setdefault(file.stem, []).append((int(file.parent.name), file))
    if (last := folder / "pictures.png").exists():
        panels.setdefault("pictures", []).append((newest, last))
    return {name: sorted(panel, key=lambda x: x[0]) for name, panel in panels.items()}


def read(panels, most):
    """Pictures for a page in at most so many bytes: `({name: [{step, src}]}, notes)`.

    `src` is a data address. Larger files are made smaller; where all are too many, some
    steps are left out, evenly, the first and the last last.
    """
    notes, shown, damaged, total = [], {}, [], 0
    files = sum(map(len, panels.values()))
    for name, panel in panels.items():
        share = most * len(panel) // max(files, 1)
        shown[name], broken = read_panel(panel, share)
        damaged += broken
        total += len(shown[name])
    if damaged:
        notes.append(
            f"{len(damaged)} pictures that can't be read, such as {damaged[0]}"
        )
    if left := files - total - len(damaged):
        notes.append(
            f"{left} of {files} pictures, for their size; they are in the workdir"
        )
    return {name: panel for name, panel in shown.items() if panel}, notes


def read_panel(panel, most):
    """The pictures of one name in at most so many bytes, and the names of bad files."""
    made, used, damaged = {}, 0, []
    for i in spread(len(panel)):
        step, file = panel[i]
        try:
            kind, content = shrink(file)
        except Exception:  # noqa: BLE001 - Pillow's plugins raise what they like
            damaged.append(f"{file.parent.name}/{file.name}")
            continue
        src = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        if used + len(src) > most:
            break
        made[i], used = {"step": step, "src": src}, used + len(src)
    return [made[i] for i in sorted(made)], damaged


def spread(count):
    """The numbers below `count`: the last, the first, then ever finer between them."""
    order = dict.fromkeys([count - 1, 0] if count else [])
    step = count
    while step > 1:
        step = (step + 1) // 2 if step > 2 else 1
        order |= dict.fromkeys(range(0, count, step))
    return list(order)


def shrink(file):
    """A picture's form and bytes: as they are where they are few, else as WebP."""
    content = file.read_bytes()
    with Image.open(io.BytesIO(content)) as opened:
        kind = (opened.format or "").lower()
        if len(content) <= PLAIN and kind in SUFFIXES.values():
            opened.verify()
            return kind, content
        image = opened.convert("RGB")
    image.thumbnail((WIDE, 4 * WIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY)
    return "webp", out.getvalue()
