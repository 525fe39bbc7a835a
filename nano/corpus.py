"""Documentation text for plain reading: the Rust documentation that rustup installs.

Sources, all "MIT or Apache-2.0": The Rust Programming Language, the Reference, Rust by Example, the
Cargo book, the rustc book, the rustdoc book, the Edition Guide, the Nomicon, the error index, and the
module pages of core, alloc and std. `corpus.py DOC_FOLDER OUT` writes one document per line (JSON).
"""

import html.parser
import json
import pathlib
import sys

BOOKS = "book reference rust-by-example cargo rustc rustdoc edition-guide nomicon embedded-book error_codes style-guide".split()
KEPT = {"p", "li", "h1", "h2", "h3", "pre"}


class Text(html.parser.HTMLParser):
    """Paragraphs, list items, headings and code, without navigation."""

    def __init__(self):
        super().__init__()
        self.blocks, self.open, self.current, self.main = [], [], [], False

    def handle_starttag(self, tag, attributes):
        if tag == "main" or ("id", "main-content") in attributes:
            self.main = True
        if self.main and tag in KEPT:
            self.flush()
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag == "main":
            self.flush()
            self.main = False
        if self.open and tag == self.open[-1]:
            self.flush()
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.main:
            self.current.append(data)

    def flush(self):
        text = "".join(self.current)
        self.current = []
        if self.open and self.open[-1] != "pre":
            text = " ".join(text.split())
        if len(text.strip()) > 2 and not text.strip().startswith("Copy item path"):
            self.blocks.append(text.strip("\n"))


def pages(root):
    for book in BOOKS:
        yield from sorted((root / book).rglob("*.html"))
    for crate in ("core", "alloc", "std"):
        yield from sorted((root / crate).glob("**/index.html"))
        yield from sorted((root / crate).glob("*/*.html"))


def main(root, out):
    seen, documents, size = set(), [], 0
    for page in pages(pathlib.Path(root)):
        if page.name in ("print.html", "all.html", "toc.html") or page.stat().st_size > 600_000:
            continue
        reader = Text()
        reader.feed(page.read_text(errors="ignore"))
        blocks = [b for b in reader.blocks if b not in seen and b.isprintable() or "\n" in b and b not in seen]
        seen.update(blocks)
        text = "\n\n".join(blocks)
        text = "".join(c for c in text if c.isascii() or c in "’“”—–…é")
        if len(text) > 300:
            documents.append(text)
            size += len(text)
    with open(out, "w") as f:
        for text in documents:
            f.write(json.dumps(text, ensure_ascii=False) + "\n")
    print(f"{len(documents)} documents, {size} characters")


if __name__ == "__main__":
    main(*sys.argv[1:])
