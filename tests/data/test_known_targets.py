"""Prior knowledge of targets as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scgim.data._known_targets import check_known_targets, joined_targets, target_prior, with_genetic_arms

DRUGS, GENES = ["A", "B", "C"], np.array(["G1", "G2", "G3", "G4"])
EVEN = np.log(3)  # even odds, against one target among four genes


def table(*rows, **columns):
    return pd.DataFrame(rows, columns=["drug", "gene", "kind"]).assign(**columns)


def checked(*rows, **columns):
    return check_known_targets(table(*rows, **columns), DRUGS, GENES)


def test_a_row_of_every_kind_becomes_log_odds_of_every_condition_of_the_drug():
    known = checked(("A", "G2", "known"), ("B", "G1", "excluded"), ("B", "G4", "likely"), sign=[-1, np.nan, 1])
    prior = target_prior(known, np.array(["A", "A", "B", "C"]), GENES)
    expected = np.zeros((4, 4))
    expected[:2, 1], expected[2, 0], expected[2, 3] = np.inf, -np.inf, EVEN
    np.testing.assert_array_equal(prior.log_odds, expected)
    assert prior.sign[:, 1].tolist() == [-1, -1, 0, 0]
    assert prior.sign[2].tolist() == [0, 0, 0, 1]


def test_odds_and_probabilities():
    known = checked(("A", "G1", "likely"), ("A", "G2", "likely"), log_odds=[2.5, np.nan], probability=[np.nan, 0.75])
    assert known["log_odds"].tolist() == pytest.approx([2.5, EVEN + np.log(3)])


def test_a_table_without_kinds_contains_likely_targets():
    known = check_known_targets(pd.DataFrame({"drug": ["A"], "gene": ["G1"]}), DRUGS, GENES)
    assert known.to_dict("records") == [{"drug": "A", "gene": "G1", "kind": "likely", "log_odds": EVEN, "sign": 0.0}]


def test_rows_of_other_drugs_and_genes_are_counted(caplog):
    with caplog.at_level("INFO", logger="scgim"):
        known = checked(("A", "G1", "known"), ("Z", "G1", "known"), ("A", "MYC", "known"))
    assert "1 of 3 rows" in caplog.text
    assert len(known) == 1


def test_copies_of_a_row_are_no_further_evidence():
    known = checked(("A", "G1", "likely"), ("A", "G1", "likely"), log_odds=[1.0, 3.0])
    assert known["log_odds"].tolist() == [3.0]


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["as given", "reversed"])
def test_the_most_certain_row_counts_and_keeps_the_sign(order):
    mine = table(("A", "G2", "likely"), ("A", "G2", "only"), ("A", "G2", "known"), sign=[-1, np.nan, np.nan])
    known = check_known_targets(mine[order], DRUGS, GENES)
    assert known[["gene", "kind", "sign"]].to_numpy().tolist() == [["G2", "only", -1]]
    arms = {"drug": np.array(["A"]), "gene": np.array(["G2"])}
    arm = with_genetic_arms(check_known_targets(mine[:1], DRUGS, GENES), arms, GENES)
    assert arm[["gene", "kind", "sign"]].to_numpy().tolist() == [["G2", "only", -1]]
    odds = target_prior(arm, np.array(["A"]), GENES).log_odds[0]
    assert odds.tolist() == [-np.inf, np.inf, -np.inf, -np.inf]


def test_drugs_of_the_first_of_two_tables_count():
    one, two = checked(("A", "G1", "known")), checked(("A", "G2", "known"), ("B", "G3", "known"))
    assert joined_targets(one, two)["gene"].tolist() == ["G1", "G3"]
    assert joined_targets(None, two) is two
    assert joined_targets(one, None) is one


def test_a_checked_table_passes_the_check_unchanged():
    known = checked(("A", "G2", "known"), ("B", "G1", "excluded"), ("B", "G4", "likely"))
    pd.testing.assert_frame_equal(check_known_targets(known, DRUGS, GENES), known)


def test_the_users_table_is_left_alone():
    mine = table(("A", "G1", "known"), ("Z", "G1", "likely")).astype("category").set_axis(["x", "x"])
    before = mine.copy()
    assert len(check_known_targets(mine, DRUGS, GENES)) == 1
    pd.testing.assert_frame_equal(mine, before)


def test_no_table():
    assert check_known_targets(None, DRUGS, GENES) is None
    assert checked() is None
    assert target_prior(None, np.array(["A"]), GENES) is None


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        pytest.param({"drug": ["A"]}, TypeError, "DataFrame with columns drug, gene, kind, got a dict", id="dict"),
        pytest.param(table().rename(columns={"gene": "genes"}), ValueError, "no column 'gene' .nearest: 'genes'", id="column"),
        pytest.param(table(("A", "G1", "Known")), ValueError, "contains 'Known' .nearest: 'known'", id="kind"),
        pytest.param(table(("a1", "G1", "known")), ValueError, "None of the 1 rows.*Nearest drug to the first row: 'A'", id="no drug"),
        pytest.param(table(("A", "MYC", "known")), ValueError, "None of the 1 rows", id="no gene"),
        pytest.param(table(("A", "G1", "likely"), probability=1.0), ValueError, "contains '1.0'.*between 0 and 1.*'known'", id="certain"),
        pytest.param(table(("A", "G1", "likely"), probability="high"), ValueError, "contains 'high'", id="text"),
        pytest.param(table(("A", "G1", "likely"), log_odds=np.inf), ValueError, "contains 'inf'.*finite", id="infinite"),
        pytest.param(table(("A", "G1", "likely"), sign=2), ValueError, "contains '2'. A sign is -1, 1", id="sign"),
        pytest.param(table(("A", "G1", "known"), ("A", "G1", "excluded")), ValueError,
                     "'G1' of drug 'A' is excluded and not excluded.*Keep one", id="both kinds"),
        pytest.param(table(("A", "G1", "only"), ("A", "G2", "likely")), ValueError,
                     "'G2' of drug 'A' contradicts its only target 'G1'.*Keep one", id="beside the only target"),
        pytest.param(table(("A", "G1", "likely"), ("A", "G1", "likely"), sign=[1, -1]), ValueError, "of both signs", id="both signs"),
    ],
)  # fmt: skip
def test_refusals(frame, error, message):
    with pytest.raises(error, match=message):
        check_known_targets(frame, DRUGS, GENES)
