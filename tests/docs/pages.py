"""The pages of the documentation: their fenced blocks, commands and links."""

import dataclasses
import pathlib
import re
import shlex

from tests import runs

FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<body>.*?)^ *(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
JOINED = re.compile(r"\\\n\s*")  # a command goes on in the next line
VARIABLE = re.compile(r"\$\{?(\w+)\}?")
ENDS = ("&&", "||", ";", "|")
LANGUAGES = {"bash", "python", "text"}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line that it begins at."""

    page: str
    line: int
    language: str
    body: str


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a page: its words, without comments and what is written to a file."""

    page: str
    line: int
    words: tuple

    @property
    def text(self):
        """The command in one line."""
        return shlex.join(self.words)


def paths():
    """All pages: README.md, CONTRIBUTING.md, docs/, without what past runs recorded."""
    docs = sorted((runs.ROOT / "docs").rglob("*.md"))
    kept = [path for path in docs if "results" not in path.parts]
    return [runs.ROOT / "README.md", runs.ROOT / "CONTRIBUTING.md", *kept]


def blocks(language=""):
    """The fenced blocks of all pages, of one language unless it is ""."""
    found = []
    for path in paths():
        found += read_blocks(path.read_text(), name(path))
    return [block for block in found if language in ("", block.language)]


def read_blocks(text, page="page"):
    """The fenced blocks of a text."""
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE),
        )
        for match in FENCE.finditer(text)
    ]


def name(path):
    """A page as its reader calls it."""
    return str(pathlib.Path(path).relative_to(runs.ROOT))


def commands():
    """The commands of all pages, in their order."""
    return [command for block in blocks("bash") for command in read_commands(block)]


def read_commands(block):
    """The commands of a block; what it assigns to a variable is put where it is used."""
    found, given = [], {}
    text = JOINED.sub(" ", block.body)
    for offset, line in enumerate(text.splitlines()):
        line = VARIABLE.sub(lambda found: given.get(found[1], found[0]), line)
        if assigned := re.fullmatch(r"(?:export )?([A-Z_]+)=(.*)", line.strip()):
            given[assigned[1]] = " ".join(shlex.split(assigned[2], comments=True))
            continue
        for words in split(shlex.split(line, comments=True)):
            found.append(Command(block.page, block.line + 1 + offset, tuple(words)))
    return found


def split(words):
    """The commands in a line's words; where one writes to a file, that is left out."""
    part = []
    for word in [*words, ";"]:
        if word in ENDS:
            if ">" in part:
                del part[part.index(">") :]
            if part:
                yield part
            part = []
        else:
            part.append(word)


def distinct(commands):
    """The first of those commands that say the same."""
    first = {}
    for command in commands:
        first.setdefault(command.words, command)
    return list(first.values())
