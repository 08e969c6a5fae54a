"""The page: one file with all that it shows, its program and the library that plots."""

import html
import importlib.util
import json
import pathlib
import re

from vit_ssl_jax.errors import UserError

HERE = pathlib.Path(__file__).parent
LIBRARY = pathlib.PurePath("package_data", "plotly.min.js")
MISSING = (
    "a report is plotted by plotly, which isn't installed: pip install "
    "'vit_ssl_jax[report]'"
)


def find_library():
    """The file of plotly.js in the Python package plotly; UserError where it isn't."""
    spec = importlib.util.find_spec("plotly")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (file := pathlib.Path(folder) / LIBRARY).is_file():
            return file
    raise UserError(MISSING)


def make_page(data, pictures, *, live=False):
    """The page as text: of `reading.collect`, or with `live` one that fetches it again."""
    names = ", ".join(run["name"] for run in data["runs"][:3])
    parts = {
        "title": html.escape(f"{names or 'evaluations'}: report"),
        "connect": "'self'" if live else "'none'",
        "css": (HERE / "page.css").read_text(),
        "library": as_script(find_library().read_text()),
        "curves": as_script((HERE / "curves.js").read_text()),
        "page": as_script((HERE / "page.js").read_text()),
        "live": "true" if live else "false",
        "data": as_json(data),
        "pictures": as_json(pictures),
    }
    text = (HERE / "page.html").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], text)


def as_json(value):
    """JSON that may stand in a <script>: nothing in it can end one or begin a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=str)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def as_script(text):
    """A program that may stand in a <script>."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
