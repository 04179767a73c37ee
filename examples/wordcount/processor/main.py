"""Count the identifiers of Python source and the words of its comments and strings.

A regular expression instead of `tokenize`: ten times as fast, and it takes files that are broken, of another Python, or badly
encoded as they are. Letters that are not UTF-8 count as U+FFFD, which belongs to no word.
"""

import re
from collections import Counter

# comments and strings (group 1), names (group 2), numbers (matched so that 0x1f is not taken for a name)
TOKEN = re.compile(
    r"""(\#[^\n]*"""
    r'''|[rRbBuUfF]{0,2}(?:"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'''
    r"""|\'\'\'[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*\'\'\'"""
    r"""|"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'))"""
    r"""|([^\W\d]\w*)|\d[\w.]*""",
    re.DOTALL,
)
WORD = re.compile(r"[^\W\d_]+")


def process(fragment: list[bytes]) -> dict[str, object]:
    """Return how many files, bytes and lines there were, and the two counts."""
    identifiers: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for content in fragment:
        tokens = TOKEN.findall(content.decode("utf-8", "replace"))
        identifiers.update([name for _, name in tokens if name])
        words.update(WORD.findall("\n".join([text for text, _ in tokens if text]).lower()))
    return {
        "files": len(fragment),
        "bytes": sum(map(len, fragment)),
        "lines": sum(content.count(b"\n") for content in fragment),
        "identifiers": dict(identifiers),
        "words": dict(words),
    }
