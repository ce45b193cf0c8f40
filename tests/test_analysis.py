"""The tidy frame, the summary, loops, and the answer in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workbench import analysis, stats
from workbench.errors import WorkbenchError
from workbench.tables import SETTINGS

LATENCY = [*analysis.KEY, "round", "warm", "noisy", "ttft_ms", "tpot_ms", "e2el_ms"]


def make_cells(*names: str, baseline: int = 0, **columns: list) -> pd.DataFrame:
    """The cells table: one cell per name, temperatures 0, 0.5, 1, ..."""
    n = len(names)
    settings = dict.fromkeys(SETTINGS, np.nan) | {
        "temperature": np.arange(n) / 2,
        "max_tokens": [48] * n,
    }
    marks = [i == baseline for i in range(n)]
    about = {"cell_id": list(names), "label": [f"cell {c}" for c in names], "adapter": "base"}
    return pd.DataFrame(about | settings | {"is_baseline": marks} | columns)


def make_rows(values: dict[str, list], repeats: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Generations and scores: "error" for a failed answer, None for one that was not scorable."""
    generations, scores = [], []
    for cell, prompts in values.items():
        for i, value in enumerate(prompts):
            for k in range(repeats):
                key = (cell, f"p{i}", k)
                broken = value == "error"
                generations.append((*key, None, "error" if broken else "stop", 10, "An answer."))
                x = None if broken or value is None else float(value)
                scores.append((*key, "numeric", "1", x, "why" if x is None else None))
    names = [*analysis.KEY, "group", "finish_reason", "n_output_tokens", "text"]
    judged = pd.DataFrame(
        scores, columns=[*analysis.KEY, "scorer", "scorer_version", "value", "reason"]
    )
    judged["value"] = judged["value"].astype(float)
    return pd.DataFrame(generations, columns=names), judged


def make_latency(medians: dict[str, float], prompts: int = 8, rounds: int = 3) -> pd.DataFrame:
    """Timed requests spread a little around each cell's median, and a slow warm-up request each."""
    rows = [
        (cell, f"p{p}", 0, r, 1, 0, ms / 4, ms / 40, ms + p - (prompts - 1) / 2)
        for cell, ms in medians.items()
        for p in range(prompts)
        for r in range(rounds)
    ]
    rows += [(cell, "p0", 0, -1, 0, 0, 9e9, 9e9, 9e9) for cell in medians]
    return pd.DataFrame(rows, columns=LATENCY)


# The tidy frame


def test_frame_joins_scores_labels_and_failures():
    """Each generation gets its score; failures and unscorable rows are marked, never 0."""
    generations, scores = make_rows({"a": [1, "error", None], "b": [0, 1, 1]})
    out = analysis.frame(generations, scores, make_cells("a", "b"))
    assert len(out) == 6
    np.testing.assert_array_equal(out["score"], [1, np.nan, np.nan, 0, 1, 1])
    assert out["failed"].tolist() == [False, True, True, False, False, False]
    assert out["is_baseline"].tolist() == [True] * 3 + [False] * 3
    assert out["label"].iloc[0] == "cell a"


def test_frame_before_scoring_is_neither_scored_nor_failed():
    """Answers nobody scored yet are not failures."""
    generations, scores = make_rows({"a": [1, "error"]})
    out = analysis.frame(generations, scores.iloc[:0], make_cells("a"))
    assert out["score"].isna().all()
    assert out["failed"].tolist() == [False, True]


def test_frame_takes_the_last_version_of_the_primary_scorer():
    """Scored again, the later score counts; other scorers do not matter."""
    generations, scores = make_rows({"a": [1]})
    later = scores.assign(value=0.25, scorer_version="2")
    other = scores.assign(value=0.5, scorer="exact")
    both = pd.concat([scores, later, other])
    out = analysis.frame(generations, both, make_cells("a"), "numeric")
    assert out["score"].tolist() == [0.25]


def test_a_score_of_a_failed_answer_does_not_count():
    """Whatever a scorer made of a failed row, the row has no score."""
    generations, scores = make_rows({"a": ["error"]})
    out = analysis.frame(generations, scores.assign(value=0.0), make_cells("a"))
    assert out["score"].isna().all()
    assert out["failed"].all()


@pytest.mark.parametrize(
    ("primary", "message"),
    [
        (None, "several scorers: say which is primary, one of numeric, exact"),
        ("json", "no scores of 'json'; there are scores of numeric, exact"),
    ],
)
def test_the_primary_scorer_must_be_known(primary, message):
    """Ambiguous or unknown scorers are refused, with what there is."""
    generations, scores = make_rows({"a": [1]})
    both = pd.concat([scores, scores.assign(scorer="exact")])
    with pytest.raises(WorkbenchError) as caught:
        analysis.frame(generations, both, make_cells("a"), primary)
    assert str(caught.value) == message


# Latency rows


def test_measured_leaves_out_warm_up_and_noise():
    """Warm-up never counts; a block with a noisy request goes for all cells, unless under half of the blocks would stay."""
    latency = make_latency({"a": 100, "b": 200})
    timed = analysis.measured(latency)
    assert len(timed) == 48
    latency.loc[latency["round"] == 0, "noisy"] = 1
    assert len(analysis.measured(latency)) == 32
    one = (latency["cell_id"] == "a") & (latency["round"] == 1)
    some = latency.assign(noisy=latency["noisy"].where(~one | latency["prompt_id"].ne("p0"), 1))
    kept = analysis.measured(some).groupby("cell_id")[["prompt_id", "round"]]
    assert kept.size().tolist() == [15, 15]
    pairs = [set(rows.itertuples(index=False)) for _, rows in kept]
    assert pairs[0] == pairs[1]
    latency.loc[one, "noisy"] = 1
    assert len(analysis.measured(latency)) == 48
    assert len(analysis.measured(latency.assign(noisy=None))) == 48


# Summary


def test_summary_has_the_columns_of_the_contract():
    """Exactly these columns, in this order, one row per cell in the cells' order."""
    generations, scores = make_rows({"b": [1, 0, 1], "a": [1, 1, 1]})
    out = analysis.summary(generations, scores, None, make_cells("a", "b"))
    assert " ".join(out.columns) == (
        "cell_id adapter temperature top_p top_k min_p repetition_penalty frequency_penalty presence_penalty "
        "max_tokens n_prompts n_scored n_failed quality quality_lo quality_hi diff_vs_baseline diff_lo diff_hi "
        "p_adjusted ttft_ms_p50 tpot_ms_p50 e2el_ms_p50 e2el_ms_p90 n_output_tokens_mean truncated_rate loop_rate "
        "on_front p_on_front template"
    )
    assert out["cell_id"].tolist() == ["a", "b"]


def test_summary_by_hand():
    """Quality, counts, differences and latency of a small run."""
    outcomes = {"a": [1, 0] * 10, "b": [1] * 20, "c": [0] * 20}
    generations, scores = make_rows(outcomes)
    latency = make_latency({"a": 100, "b": 150, "c": 160})
    cells = make_cells("a", "b", "c")
    out = analysis.summary(generations, scores, latency, cells).set_index("cell_id")
    assert out["quality"].tolist() == [0.5, 1.0, 0.0]
    bounds = stats.proportion_interval([10, 20, 0], 20)
    np.testing.assert_allclose(out["quality_lo"], bounds.lo)
    np.testing.assert_allclose(out["quality_hi"], bounds.hi)
    np.testing.assert_array_equal(out["diff_vs_baseline"], [0, 0.5, -0.5])
    np.testing.assert_allclose(out["p_adjusted"], [np.nan, 4 / 2**10, 4 / 2**10])
    assert out["n_prompts"].tolist() == out["n_scored"].tolist() == [20] * 3
    np.testing.assert_allclose(out["e2el_ms_p50"], [100, 150, 160])
    np.testing.assert_allclose(out["ttft_ms_p50"], [25, 37.5, 40])
    np.testing.assert_allclose(out["tpot_ms_p50"], [2.5, 3.75, 4])
    assert out["e2el_ms_p90"].isna().all()
    assert out["on_front"].tolist() == [True, True, False]
    assert out["p_on_front"].tolist() == [1, 1, 0]


def test_p90_needs_64_requests():
    """63 requests: no p90; 64: numpy's."""
    generations, scores = make_rows({"a": [1, 0]})
    for prompts, given_ in ((63, False), (64, True)):
        latency = make_latency({"a": 100}, prompts=prompts, rounds=1)
        out = analysis.summary(generations, scores, latency, make_cells("a")).iloc[0]
        assert np.isfinite(out["e2el_ms_p90"]) == given_
    assert out["e2el_ms_p90"] == pytest.approx(np.quantile(latency["e2el_ms"].iloc[:64], 0.9))


def test_failures_are_counted_and_never_scored_as_zero():
    """A cell whose rows all failed is listed with NaN; partial failures only shrink n."""
    generations, scores = make_rows({"a": [1, 1, "error", None], "b": ["error"] * 4})
    out = analysis.summary(generations, scores, None, make_cells("a", "b", "c"))
    out = out.set_index("cell_id")
    assert out["n_scored"].tolist() == [2, 0, 0]
    assert out["n_failed"].tolist() == [2, 4, 0]
    assert out["n_prompts"].tolist() == [4, 4, 0]
    assert out.loc["a", "quality"] == 1
    unknown = ["quality", "quality_lo", "quality_hi", "diff_vs_baseline", "diff_lo", "p_adjusted"]
    assert out.loc[["b", "c"], unknown].isna().all(axis=None)
    assert out.loc[["b", "c"], ["truncated_rate", "n_output_tokens_mean"]].isna().all(axis=None)


def test_without_latency_its_columns_are_missing():
    """No latency table, an empty one, or only warm-up: NaN and NA, not 0 or False."""
    generations, scores = make_rows({"a": [1, 0], "b": [1, 1]})
    warm_up = make_latency({"a": 1}).query("warm == 0")
    for latency in (None, make_latency({}), warm_up):
        out = analysis.summary(generations, scores, latency, make_cells("a", "b"))
        columns = ["ttft_ms_p50", "tpot_ms_p50", "e2el_ms_p50", "on_front", "p_on_front"]
        assert out[columns].isna().all(axis=None)


def test_only_some_cells_have_latency():
    """A cell without latency is no contender, and the others are judged without it."""
    generations, scores = make_rows({"a": [1, 0], "b": [1, 1]})
    out = analysis.summary(generations, scores, make_latency({"a": 9}), make_cells("a", "b"))
    assert out["on_front"].tolist() == [True, pd.NA]


def test_rates_are_over_answers_that_did_not_break():
    """Truncated, looping and mean length leave failed rows out."""
    generations, scores = make_rows({"a": [1, 1, 1, 1, "error"]})
    generations.loc[0, "finish_reason"] = "length"
    generations.loc[1, "text"] = "On and on. On and on. On and on. On"
    generations.loc[4, "n_output_tokens"] = 0
    out = analysis.summary(generations, scores, None, make_cells("a")).iloc[0]
    assert out[["truncated_rate", "loop_rate", "n_output_tokens_mean"]].tolist() == [0.25, 0.25, 10]
    lean = generations.drop(columns=["text", "group"])
    assert np.isnan(analysis.summary(lean, scores, None, make_cells("a"))["loop_rate"].iloc[0])


def test_lengths_that_nobody_counted_are_unknown():
    """An answer has a token at least, its end: 0 says that they were not counted (answers made elsewhere)."""
    generations, scores = make_rows({"a": [1, 0], "b": [1, 0]})
    generations.loc[generations["cell_id"] == "a", "n_output_tokens"] = 0
    cells = make_cells("a", "b")
    out = analysis.summary(generations, scores, None, cells, primary="numeric")
    assert out["n_output_tokens_mean"].isna().tolist() == [True, False]
    assert analysis.tokens_of(generations).tolist() == pytest.approx(
        [np.nan, np.nan, 10, 10], nan_ok=True
    )


def test_a_summary_remembers_its_level():
    """Whoever draws its intervals must know what they are."""
    generations, scores = make_rows({"a": [1, 0], "b": [1, 0]})
    cells = make_cells("a", "b")
    for level in (0.95, 0.8):
        out = analysis.summary(generations, scores, None, cells, primary="numeric", level=level)
        assert (out.attrs["level"], out.attrs["baseline"]) == (level, "a")


def test_groups_widen_the_intervals():
    """Prompts of one group are one piece of evidence."""
    generations, scores = make_rows({"a": [1, 1, 1, 0, 0, 0] * 4})
    alone = analysis.summary(generations, scores, None, make_cells("a")).iloc[0]
    generations["group"] = generations["prompt_id"].str[1:].astype(int).floordiv(3).astype(str)
    grouped = analysis.summary(generations, scores, None, make_cells("a")).iloc[0]
    assert grouped["quality"] == alone["quality"]
    width = [r["quality_hi"] - r["quality_lo"] for r in (alone, grouped)]
    assert width[1] > 1.3 * width[0]


def test_split_uses_only_its_prompts():
    """Quality of the confirm prompts alone."""
    generations, scores = make_rows({"a": [1, 1, 0, 0], "b": [1, 1, 1, 0]})
    generations["split"] = ["select", "select", "confirm", "confirm"] * 2
    out = analysis.summary(generations, scores, None, make_cells("a", "b"), split="confirm")
    assert out["quality"].tolist() == [0, 0.5]
    assert out["n_prompts"].tolist() == [2, 2]


def test_same_seed_same_summary():
    """The seed decides everything random."""
    rng = np.random.default_rng(0)
    generations, scores = make_rows({c: list(rng.random(30)) for c in "abc"})
    latency = make_latency({"a": 100, "b": 100.5, "c": 101})
    cells = make_cells("a", "b", "c")
    one, two = (analysis.summary(generations, scores, latency, cells, rng=5) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    ("cells", "baseline", "message"),
    [
        (make_cells("a", "b", baseline=9), None, "one cell must be marked as the baseline, got 0"),
        (make_cells("a", "b"), "z", "baseline must be a cell_id of this run, got 'z'"),
    ],
)
def test_the_baseline_must_be_known(cells, baseline, message):
    """No baseline or an unknown one is refused."""
    generations, scores = make_rows({"a": [1], "b": [0]})
    with pytest.raises(WorkbenchError) as caught:
        analysis.summary(generations, scores, None, cells, baseline)
    assert str(caught.value) == message


# In words


def words(values: dict[str, list], medians: dict[str, float] | None = None, **options) -> str:
    generations, scores = make_rows(values)
    cells = make_cells(*values)
    latency = None if medians is None else make_latency(medians)
    return analysis.answer_in_words(
        analysis.summary(generations, scores, latency, cells), cells, **options
    )


def test_words_name_a_real_winner():
    """A clear winner is named with interval, difference, cost and counts: the whole text."""
    text = words(
        {"a": [1, 0] * 20, "b": [1] * 40, "c": [0, 0] * 20}, {"a": 100, "b": 150, "c": 160}
    )
    assert text == (
        "Best: cell b, quality 100.0 % (95 % interval 91.2 to 100.0; 40 prompts). It beats the baseline beyond chance.\n"
        "Baseline: cell a, 50.0 %. Difference on the same prompts: +50.0 points (interval +33.8 to +66.2, taken alone); "
        "p < 0.001 with all comparisons counted (Holm).\n"
        "Against the baseline, of 2: 1 better, 1 worse, 0 not distinguishable.\n"
        "The best of 3 may look better than it is, being picked by this very score; only held-out prompts tell its true quality.\n"
        "Its median answer takes 150 ms, the baseline's 100 ms; on the same prompt and round +50 ms (95 % interval +50 to +50, "
        "24 pairs), slower beyond chance. Fastest: cell a, 100 ms at 50.0 %. "
        "n too small for p90 (it needs 64 requests a cell).\n"
        "Rows: 120 scored, 0 failed."
    )


def test_words_do_not_sell_chance():
    """One prompt more is not a win."""
    text = words({"a": [1, 0] * 20, "b": [1, 0] * 19 + [1, 1]})
    assert text.startswith(
        "No setting beats the baseline beyond chance. Highest score: cell b, quality 52.5 %"
    )
    assert "p = 1 with all comparisons counted" in text
    assert "of 1: 0 better, 0 worse, 1 not distinguishable" in text
    assert "Latency was not measured: run `workbench latency RUN`." in text


def test_words_when_the_baseline_is_best():
    """The baseline ahead is said so."""
    text = words({"a": [1] * 20, "b": [0] * 20})
    assert text.startswith("No setting scores above the baseline: cell a, quality 100.0 %")
    assert "1 worse" in text


def test_words_when_nothing_was_scored():
    """Nothing scored: no quality is made up."""
    assert words({"a": ["error"] * 3, "b": [None]}) == (
        "No answer was scored.\nRows: 0 scored, 4 failed or not scorable. Cells without any score: 2 of 2."
    )


def test_words_when_the_baseline_failed():
    """No baseline score, no comparison."""
    text = words({"a": ["error"] * 3, "b": [1, 0, 1]})
    assert text.startswith("Highest score: cell b, quality 66.7 %")
    assert "The baseline has no score to compare with." in text
    assert text.endswith(
        "Rows: 3 scored, 3 failed or not scorable. Cells without any score: 1 of 2."
    )


def test_words_with_held_out_prompts():
    """The headline is what the chosen cell does on the prompts held out, against the baseline there."""
    generations, scores = make_rows({"a": [1, 0] * 20, "b": [1] * 20 + [0] * 20, "c": [0] * 40})
    generations["split"] = (["select"] * 20 + ["confirm"] * 20) * 3
    cells = make_cells("a", "b", "c")
    pick, again = (
        analysis.summary(generations, scores, None, cells, split=s) for s in ("select", "confirm")
    )
    text = analysis.answer_in_words(pick, cells, confirm=again)
    lines = text.splitlines()
    assert lines[0] == (
        "Chosen: cell b. On the prompts held out: quality 0.0 % (95 % interval 0.0 to 16.1; 20 prompts). "
        "It is worse than the baseline beyond chance."
    )
    assert lines[1].startswith(
        "Baseline: cell a, 50.0 % on the same prompts; difference -50.0 points (interval -7"
    )
    assert lines[2] == (
        "It was chosen on the other prompts, by quality 100.0 % (95 % interval 83.9 to 100.0; 20 prompts); "
        "a score that chose is too good on average."
    )
    assert (
        lines[3]
        == "On the prompts used for choosing, against the baseline, of 2: 1 better, 1 worse, 0 not distinguishable."
    )
    assert lines[-1] == "Rows: 120 scored, 0 failed; 60 of the scored are held out."
    assert "may look better than it is" not in text


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ([1] * 40, "It beats the baseline beyond chance."),
        (
            ([1, 0] * 20)[::-1],
            "On these prompts alone that is within chance of the baseline.",
        ),
    ],
)
def test_words_of_the_held_out_prompts(held_out, said):
    """A winner is one that wins on prompts that did not choose it."""
    generations, scores = make_rows({"a": [1, 0] * 40, "b": [1] * 40 + held_out})
    generations["split"] = (["select"] * 40 + ["confirm"] * 40) * 2
    cells = make_cells("a", "b")
    pick, again = (
        analysis.summary(generations, scores, None, cells, split=s) for s in ("select", "confirm")
    )
    assert said in analysis.answer_in_words(pick, cells, confirm=again).splitlines()[0]


def test_words_when_the_baseline_is_chosen():
    """Nothing scores above it: both of its qualities are told, the held-out one first."""
    generations, scores = make_rows({"a": [1] * 40, "b": [0] * 40})
    generations["split"] = (["select"] * 20 + ["confirm"] * 20) * 2
    cells = make_cells("a", "b")
    pick, again = (
        analysis.summary(generations, scores, None, cells, split=s) for s in ("select", "confirm")
    )
    lines = analysis.answer_in_words(pick, cells, confirm=again).splitlines()
    assert lines[0].startswith(
        "No setting scores above the baseline: cell a. On the prompts held out: quality 100.0 %"
    )
    assert lines[1].startswith("On the prompts used for choosing: quality 100.0 %")


def test_baseline_survives_csv(tmp_path):
    """Read back from CSV, the summary still tells its baseline."""
    generations, scores = make_rows({"a": [1, 0, 1], "b": [1, 0, 1]})
    table = analysis.summary(generations, scores, None, make_cells("a", "b", baseline=1))
    table.to_csv(tmp_path / "summary.csv", index=False)
    back = pd.read_csv(tmp_path / "summary.csv")
    assert analysis.baseline_of(table) == analysis.baseline_of(back) == "b"
    assert analysis.labels_of(back) == {"a": "T=0", "b": "T=0.5"}
