"""The fenced blocks of the README and of the pages, as a Markdown parser finds them."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "papers").glob("*.md"))]
# Their text is part of docs/applications.md and two other pages.
APPLICATIONS = sorted((ROOT / "applications").glob("*/*.md"))
SHELL = ("sh", "console")
COMMENT = re.compile(r"\s+#.*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and the line it begins on, the word behind the fence, the text."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *kinds: str) -> list[Block]:
    """Return the blocks of a page, or those of some kinds."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    found = [Block(page, 1 + t.map[0], t.info.strip(), t.content) for t in tokens if t.type == "fence" and t.map]
    return [block for block in found if not kinds or block.kind in kinds]


def commands(page: Path) -> list[str]:
    """Return the lines of shell blocks, without prompts and comments."""
    lines = (line for block in blocks(page, *SHELL) for line in block.text.splitlines())
    return [COMMENT.sub("", line.removeprefix("$ ")) for line in lines]


def links(page: Path) -> list[str]:
    """Return the files that the text of a page links to, or shows, without their anchors."""
    inline = (child for token in MarkdownIt().parse(page.read_text(encoding="utf-8")) for child in token.children or ())
    targets = [str(t.attrs.get("href") or t.attrs.get("src")) for t in inline if t.type in ("link_open", "image")]
    return [unquote(urlsplit(target).path) for target in targets if not urlsplit(target).scheme and target[0] != "#"]
