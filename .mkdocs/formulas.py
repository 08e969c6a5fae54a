"""Formulas as MathML, made when the site is built: `$...$` and `$$...$$` as on GitHub."""

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<kind>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>',
    re.DOTALL,
)


def on_page_content(content, page, config, files):
    """Puts MathML where the Markdown has a formula."""
    del config, files

    def make(match):
        latex = html.unescape(match["latex"]).strip()
        display = "block" if match["kind"] == "[" else "inline"
        try:
            return convert(latex, display=display)
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: {latex!r}: {error}") from error

    return FORMULA.sub(make, content)
