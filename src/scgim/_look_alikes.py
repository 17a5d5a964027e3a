"""Names that look the same and differ in spaces, dashes, accents, letters of other alphabets, or case."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Cyrillic and Greek letters that look like Latin letters; quotation marks and primes; the minus sign.
_ALIKE = str.maketrans("АВЕКМНОРСТУХаеорсухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEKMHOPCTYXaeopcyxijsABEZHIKMNOPTYXo")
_ALIKE |= str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u2032`", "'") | {"\u201c": '"', "\u201d": '"', "\u2212": "-"})


def plain(name: str, *, case: bool = False) -> str:
    r"""A name without what cannot be seen: in one Unicode form, with single spaces, hyphens for dashes and, unless ``case``, in lower case.

    Examples
    --------
    >>> plain(" TGF\u2013beta\u00a01"), plain("cafe\u0301") == plain("caf\u00e9"), plain("\u00b5") == plain("\u03bc")
    ('tgf-beta 1', True, True)
    """
    text = str(name)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_ALIKE)
        kinds = [(letter, unicodedata.category(letter)) for letter in text]
        text = "".join("-" if kind == "Pd" else letter for letter, kind in kinds if kind != "Cf")  # Cf: invisible
    text = " ".join(text.split())
    return text if case else text.casefold()


def look_alikes(names: Iterable[str], *, case: bool = False) -> list[list[str]]:
    """Groups of two or more different names that look the same, each with the plainest name first.

    With ``case``, names that differ in case are different.

    Examples
    --------
    >>> look_alikes(["JQ1 ", "SAHA", "JQ1"])
    [['JQ1', 'JQ1 ']]
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(map(str, names))):
        groups.setdefault(plain(name, case=case), []).append(name)

    def oddity(name: str) -> tuple[bool, bool, int, str]:
        return name != plain(name, case=True), not name.isascii(), len(name), name

    return [sorted(group, key=oddity) for group in groups.values() if len(group) > 1]


def doubted_names(names: Iterable[str], key: str, kind: str, *, but: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """A sentence and a fix, if names of a column of ``obs`` look the same.

    Parameters
    ----------
    names, key, kind
        Names, their column, and what they name, in the plural.
    but
        Names whose look-alikes are pointed out elsewhere.
    """
    groups = [group for group in look_alikes(names) if not set(group) & set(but)]
    if not groups:
        return
    first, *others = groups
    line = ", ".join(f"{name!a}: {group[0]!a}" for group in groups for name in group[1:])
    yield (
        f"{' and '.join(map(ascii, first))} in obs[{key!r}] look the same and are {len(first)} {kind}"
        + (f"; so do {len(others)} more groups of names." if others else "."),
        f"If they are one, merge them: adata.obs[{key!r}] = adata.obs[{key!r}].astype(str).replace({{{line}}}).",
    )


def representatives(names: Iterable[str]) -> dict[str, str]:
    """The first of all names that look the same, by name."""
    first: dict[str, str] = {}
    return {name: first.setdefault(plain(name), name) for name in sorted(set(map(str, names)))}
