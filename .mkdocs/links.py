"""Links of pages to files of the repository: each such file becomes a page of the site.

A page links `../configs/mae_vitb.py` as GitHub has it. Here that leads to a page with the
file's text below `files/`; a link of a README into docs/ leads to the page itself. What
leads nowhere stays as it is, and the strict build says so.
"""

import os
import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = "docs"
# Code, which has no links, or a link's target: [text](target), [name]: target
LINK = re.compile(
    r"(?P<code>^ {0,3}(?P<fence>```+|~~~+).*?^ {0,3}(?P=fence)|`[^`\n]*`)"
    r"|(?P<before>\]\(|^\[[^\]\n]+\]: )(?P<target>[^\s)#:<>]+)(?P<rest>#[^\s)]*|)(?=[\s)])",
    re.MULTILINE | re.DOTALL,
)
LANGUAGES = {".py": "python", ".sh": "bash", ".json": "json", ".yaml": "yaml"}
LANGUAGES |= {".ipynb": "json", ".cff": "yaml", ".js": "javascript"}
QUIET = "---\nsearch:\n  exclude: true\n---\n"  # files aren't searched


def on_files(files, config):
    """Adds a page for every file of the repository that a page links to."""
    pending = [(f.src_uri, f.content_string) for f in files.documentation_pages()]
    made = set()
    while pending:
        uri, text = pending.pop()
        for path in linked(text, where(uri)):
            if (ROOT / path).exists() and not inside(path) and path not in made:
                made.add(path)
                page = File.generated(config, f"files/{path}.md", content=show(path))
                files.append(page)
                if path.endswith(".md"):
                    pending.append((page.src_uri, page.content_string))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links to files of the repository into links to their pages."""
    del config, files
    here, folder = where(page.file.src_uri), posixpath.dirname(page.file.src_uri)

    def turn(match):
        if match["code"] or not match["target"]:
            return match[0]
        path = resolve(match["target"], here)
        if not path or not (ROOT / path).exists():
            return match[0]
        uri = inside(path) or f"files/{path}.md"
        return match["before"] + posixpath.relpath(uri, folder or ".") + match["rest"]

    return LINK.sub(turn, markdown)


def linked(text, here):
    """The paths in the repository that a page at `here` links to."""
    found = (match["target"] for match in LINK.finditer(text))
    return filter(None, (resolve(target, here) for target in found if target))


def where(uri):
    """The file of the repository that a page is made from."""
    if uri.startswith("files/"):
        return uri.removeprefix("files/").removesuffix(".md")
    return f"{DOCS}/{uri}"


def resolve(target, here):
    """A link's path from the repository's root; "" for one that leaves it."""
    if target.startswith(("/", "mailto", "http")):
        return ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    return "" if path.startswith("..") else path


def inside(path):
    """What a path is called in docs/, where it has a page or is a file there; else ""."""
    if not path.startswith(f"{DOCS}/") or (ROOT / path).is_dir():
        return ""
    return path.removeprefix(f"{DOCS}/")


def show(path):
    """A file's page: its text, a folder's files, or a Markdown file as it is."""
    file = ROOT / path
    if file.is_dir():
        rows = [f"- `{child.name}`" for child in sorted(file.iterdir())]
        return f"{QUIET}\n# {path}\n\n" + "\n".join(rows) + "\n"
    text = file.read_text(errors="replace")
    if path.endswith(".md"):
        return text
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=2))
    language = LANGUAGES.get(os.path.splitext(path)[1], "text")
    return f"{QUIET}\n# {path}\n\n{fence}{language}\n{text}\n{fence}\n"
