"""Text from files, cleaned."""

from __future__ import annotations

import glob
import sysconfig
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from ledger.errors import SpecificationError

STANDARD_LIBRARY = "python-standard-library"
# Parts of the standard library's folder that differ from machine to machine, or hold broken text on purpose.
_LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3"})
_DROPPED = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def clean_text(text: str) -> str:
    """Line ends to a line feed, control characters but line feed and tab dropped, byte-order marks at the
    start dropped, NFC.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_DROPPED)
    return unicodedata.normalize("NFC", text.lstrip("\ufeff"))


def read_corpus(source: str | Sequence[str], *, limit_bytes: int | None = None, folder: Path | None = None) -> str:
    """Cleaned text of all files of the sources, one after the other, each ending in a line end.

    Args:
        source: "python-standard-library", or files, folders (all files below them) or patterns (`**` too); files of
            one source are read in the order of their paths.
        limit_bytes: stop after so many bytes of UTF-8, at a whole character.
        folder: what relative paths are relative to; the current folder without.

    Raises:
        SpecificationError: nothing found, a file cannot be read or is not UTF-8 text, or no text is left.
    """
    sources = [source] if isinstance(source, str) else list(source)
    limit = limit_bytes if limit_bytes is not None else float("inf")
    texts: list[bytes] = []
    size = 0
    for text in _texts(sources, folder or Path.cwd()):
        cleaned = clean_text(text)
        if not cleaned:
            continue
        data = (cleaned if cleaned.endswith("\n") else cleaned + "\n").encode()
        texts.append(data)
        size += len(data)
        if size >= limit:
            break
    joined = b"".join(texts)
    if limit_bytes is not None:
        joined = joined[:limit_bytes]
    # Cutting inside a character leaves up to three bytes that decode to nothing.
    text = joined.decode("utf-8", errors="ignore")
    if not text:
        raise SpecificationError(f"data.source {', '.join(sources)} holds no text.", field="data.source")
    return text


def _texts(sources: Sequence[str], folder: Path) -> Iterator[str]:
    for source in sources:
        if source == STANDARD_LIBRARY:
            yield from _standard_library()
            continue
        for path in _files(source, folder):
            yield _read(path)


def _standard_library() -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    found = (p.relative_to(root) for p in root.rglob("*.py"))
    for relative in sorted((p for p in found if _LEFT_OUT.isdisjoint(p.parts)), key=lambda p: p.as_posix()):
        try:
            yield (root / relative).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # a few modules declare another encoding; they are no loss


def _files(source: str, folder: Path) -> list[Path]:
    try:
        return _found(source, folder)
    except (OSError, RuntimeError) as error:  # a name too long, a folder that is closed to us; ~ of nobody
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SpecificationError(
            f"data.source {source!r} cannot be looked up: {reason.rstrip('.')}.", field="data.source"
        ) from error


def _found(source: str, folder: Path) -> list[Path]:
    start = folder / Path(source).expanduser()
    if start.is_file():
        return [start]
    if start.is_dir():
        files = [p for p in start.rglob("*") if p.is_file() and not p.name.startswith(".")]
    else:
        files = [Path(p) for p in glob.glob(str(start), recursive=True) if Path(p).is_file()]
    if not files:
        raise SpecificationError(
            f"data.source {source!r} is no file, folder or pattern with files in it.",
            field="data.source",
            remedy=f"Name an existing one (relative paths start at {folder}), or use {STANDARD_LIBRARY!r}.",
        )
    return sorted(files, key=lambda p: p.as_posix())


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecificationError(
            f"data.source {path} is not UTF-8 text (byte {error.start}).",
            field="data.source",
            remedy="Convert it to UTF-8 or leave it out.",
        ) from error
    except OSError as error:
        raise SpecificationError(
            f"data.source {path} cannot be read: {error.strerror}.", field="data.source"
        ) from error
