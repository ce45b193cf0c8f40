"""Reports taken apart: every number has its place, and every changed number is found there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.reproducing import pagetext
from workbench.reproducing.pagetext import Difference, Piece

PAGE = """<!DOCTYPE html><html><head><meta name="made-by" content="{&quot;seed&quot;: 3}"><title>x</title>
<style>p { margin: 1px }</style></head><body><h1>small: <em>report</em></h1>
<h2>All cells</h2><table><caption>Best first</caption><thead><tr><th>cell</th><th>quality %</th><th>tokens</th></tr></thead>
<tbody><tr><th scope="row">greedy</th><td>87.5</td><td></td></tr><tr><th>T=0.7</th><td>66.7</td><td>12</td></tr></tbody></table>
<p>Baseline: <code>T=0.7</code>,
 66.7 %.</p><img src="data:" alt="Plot of 5 cells"></body></html>"""

numbers = st.decimals(-9999, 9999, places=2).map(str)


def test_pieces_have_places():
    """A value of a table is named by heading, caption, row and column; a picture by its description; styles are no text."""
    assert pagetext.page_pieces(PAGE) == [
        Piece("top", "x"),
        Piece("small: report", "small: report"),
        Piece("All cells", "All cells"),
        Piece("All cells", "Best first"),
        Piece("All cells, Best first", "cell"),
        Piece("All cells, Best first", "quality %"),
        Piece("All cells, Best first", "tokens"),
        Piece("All cells, Best first", "greedy"),
        Piece("All cells, Best first, greedy, quality %", "87.5"),
        Piece("All cells, Best first", "T=0.7"),
        Piece("All cells, Best first, T=0.7, quality %", "66.7"),
        Piece("All cells, Best first, T=0.7, tokens", "12"),
        Piece("All cells", "Baseline: T=0.7, 66.7 %."),
        Piece("All cells, picture", "Plot of 5 cells"),
    ]
    assert pagetext.made_by(PAGE) == '{"seed": 3}'
    assert pagetext.made_by("<p>1</p>") == ""


def test_numbers_are_counted():
    """Digits inside a word, such as a hash, are no numbers; signs, thousands and exponents belong to theirs."""
    text = "1,204 rows, -3.5 or \u22123.5 points, 1e-05, T=0.7, sha256 6f51ab, 12 ms."
    assert pagetext.NUMBER.findall(text) == ["1,204", "-3.5", "\u22123.5", "1e-05", "0.7", "12"]
    assert pagetext.count([Piece("a", text), Piece("b", "7")]) == 7


@given(st.lists(numbers, min_size=1, max_size=8), st.data())
def test_a_changed_number_is_found_alone(values, data):
    """Of pieces with one number each, exactly the one that was changed is a difference, with both numbers and its place."""
    i = data.draw(st.integers(0, len(values) - 1))
    other = data.draw(numbers.filter(lambda v: v != values[i]))
    old = [Piece(f"place {n}", f"about {v} ms") for n, v in enumerate(values)]
    new = [p if n != i else Piece(p.place, f"about {other} ms") for n, p in enumerate(old)]
    found = pagetext.differences("report.md", old, new, exact=True, full=False)
    assert found == [Difference("report.md", f"place {i}", values[i], other)]
    assert pagetext.differences("report.md", old, old, exact=True, full=False) == []


@given(numbers, st.integers(-3, 3))
def test_one_in_the_last_digit_is_near(text, steps):
    """On other versions two prints of one number may be one apart in the last digit, and no more."""
    other = f"{float(text) + steps / 100:.2f}"
    assert pagetext.near(text, other) is (abs(steps) <= 1)
    pieces = [Piece("a", f"{text} ms")], [Piece("a", f"{other} ms")]
    found = pagetext.differences("x", *pieces, exact=False, full=False)
    assert bool(found) is (abs(steps) > 1)


@given(st.floats(1e-3, 1e3), st.sampled_from([1e-12, 1e-6]))
def test_full_precision_is_relative(value, by):
    """In a table of full precision a difference counts relative to the value."""
    assert pagetext.near(repr(value), repr(value * (1 + by)), full=True) is (by < 1e-9)


def test_a_line_more_is_one_difference():
    """A piece that only one side has moves no other."""
    old = [Piece(f"line {n}", f"value {n * 10}") for n in range(5)]
    new = [
        Piece(f"line {n}", p.text) for n, p in enumerate([*old[:2], Piece("", "new 7"), *old[2:]])
    ]
    found = pagetext.differences("report.md", old, new, exact=True, full=False)
    assert found == [Difference("report.md", "line 2", None, "new 7")]
    assert str(found[0]) == "report.md, line 2: nothing; the record gives new 7"


def test_changed_words_are_shown_where_they_differ():
    """Where words changed and not only numbers, the text around the first difference is shown."""
    start = "a long beginning that both of them share, then "
    old, new = ([Piece("Limits", f"{start}{word} 5")] for word in ("more", "less"))
    (only,) = pagetext.differences("report.html", old, new, exact=True, full=False)
    assert only.reported == "…of them share, then more 5"
    assert only.recorded == "…of them share, then less 5"


def test_values_of_a_table_are_named_by_row_and_column():
    """A CSV file is taken apart by the first value of the row and the column's name; more values than columns are kept."""
    text = "cell_id,quality\nabc,0.5\ndef,,7\n"
    assert pagetext.table(text) == [
        Piece("header", "cell_id, quality"),
        Piece("abc, cell_id", "abc"),
        Piece("abc, quality", "0.5"),
        Piece("def, cell_id", "def"),
        Piece("def, quality", ""),
        Piece("def, column 3", "7"),
    ]
