"""Names that look the same."""

from __future__ import annotations

import pandas as pd
import pytest

from scgim._look_alikes import doubted_names, look_alikes, plain, representatives

PAIRS = {
    "space": ("JQ1", "JQ1 "),
    "two spaces": ("drug 1", "drug  1"),
    "tab": ("drug 1", "drug\t1"),
    "dash": ("TGF-beta", "TGF\u2013beta"),
    "minus": ("TGF-beta", "TGF\u2212beta"),
    "accent": ("caf\u00e9", "cafe\u0301"),
    "mu": ("\u03bc-opioid", "\u00b5-opioid"),
    "no-break space": ("drug 1", "drug\u00a01"),
    "zero-width space": ("JQ1", "JQ\u200b1"),
    "soft hyphen": ("JQ1", "J\u00adQ1"),
    "byte order mark": ("JQ1", "\ufeffJQ1"),
    "full width": ("JQ1", "\uff2a\uff311"),
    "Cyrillic": ("SAHA", "S\u0410HA"),
    "Greek": ("PMA", "PM\u0391"),
    "prime": ("5'-dFUR", "5\u2032-dFUR"),
    "case": ("SAHA", "saha"),
}


@pytest.mark.parametrize(("one", "two"), PAIRS.values(), ids=PAIRS)
def test_pairs_that_look_the_same(one, two):
    assert plain(one) == plain(two)
    assert look_alikes([two, "other", one]) == [[one, two]]
    assert len(set(representatives([one, two]).values())) == 1
    ((problem, fix),) = doubted_names([one, two], "drug", "drugs")
    assert f"{one!a} and {two!a} in obs['drug'] look the same and are 2 drugs" in problem
    adata = type("Data", (), {"obs": pd.DataFrame({"drug": pd.Categorical([one, two, "other"])})})()
    exec(fix.partition(": ")[2].removesuffix("."), {"adata": adata})
    assert adata.obs["drug"].tolist() == [one, one, "other"]


@pytest.mark.parametrize(
    ("one", "two"),
    [("A-485", "A-486"), ("(R)-JQ1", "(S)-JQ1"), ("\u03b1", "\u03b2"), ("JQ1", "JQ 1"), ("caf\u00e9", "cafe")],
)
def test_names_that_differ_in_what_is_seen(one, two):
    assert look_alikes([one, two]) == []


def test_case_counts_on_request():
    assert look_alikes(["STAT1", "Stat1", "STAT1 "], case=True) == [["STAT1", "STAT1 "]]


def test_names_pointed_out_elsewhere_are_left_out():
    assert list(doubted_names(["DMSO", "dmso"], "drug", "drugs", but=["DMSO"])) == []
