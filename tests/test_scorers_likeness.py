"""Scorers of likeness to a reference: equal to the libraries they stand on, and what those lack."""

from __future__ import annotations

import builtins

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu

from workbench.errors import ScorerError
from workbench.prompts import Prompt
from workbench.scorers import get_scorer, similarity

WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "12", "runs."]), min_size=1, max_size=12
).map(" ".join)


def _score(spec, text, target):
    return get_scorer(spec).score(text, Prompt("p", ({"role": "user", "content": "?"},), target))


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_bleu_is_sacrebleus(text, references):
    """The score is sentence BLEU over 100, as the library's own function computes it."""
    expected = sentence_bleu(text, references).score / 100
    assert _score("bleu", text, references).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", ["1", "2", "L", "Lsum"])
@pytest.mark.parametrize("stem", [False, True])
@settings(max_examples=40)
@given(text=WORDS, reference=WORDS)
def test_rouge_is_rouge_scores(kind, stem, text, reference):
    """On English words the three figures are those of rouge-score with its own tokenizer."""
    theirs = RougeScorer([f"rouge{kind}"], use_stemmer=stem).score(reference, text)[f"rouge{kind}"]
    for part in ("fmeasure", "precision", "recall"):
        ours = _score({"rouge": {"kind": kind, "stem": stem, "part": part}}, text, reference)
        assert ours.value == pytest.approx(getattr(theirs, part), abs=1e-9)


def test_rouge_takes_the_best_reference():
    """With several references the nearest one counts, for the part that is asked for."""
    target = ["one two three four", "one"]
    assert _score({"rouge": {"part": "recall"}}, "one", target).value == 1.0
    assert _score({"rouge": {"part": "precision"}}, "one five", target).value == 0.5


@settings(deadline=None)  # the first one loads the model
@given(WORDS, WORDS)
def test_similarity_is_between_0_and_1_and_symmetric(a, b):
    """Cosines are cut to 0..1; text and reference may change places."""
    there, back = _score("similarity", a, b).value, _score("similarity", b, a).value
    assert 0 <= there <= 1
    assert there == pytest.approx(back, abs=1e-6)


def test_similarity_orders_by_meaning():
    """A paraphrase is nearer than another topic with a shared word."""
    target = "The doctor treated the ill child."
    near = _score("similarity", "A physician cared for a sick kid.", target).value
    far = _score("similarity", "The child process crashed with a core dump.", target).value
    assert near > far


def test_similarity_without_its_package(monkeypatch):
    """The scorer is refused before a run, with what to install."""
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "wordllama":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    similarity._model.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ScorerError) as caught:
        get_scorer("similarity")
    assert str(caught.value) == (
        "scorer similarity: needs the package wordllama; pip install 'awq-workbench[similarity]', "
        "in a clone pip install -e '.[similarity]'"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"bleu": {"tokens": "words"}},
            "scorer bleu: tokens must be 13a, intl, zh, char, got 'words'",
        ),
        ({"bleu": {"most": 0}}, "scorer bleu: most must be a whole number from 1 to 10, got 0"),
        ({"rouge": {"kind": "3"}}, "scorer rouge: kind must be 1, 2, L, Lsum, got '3'"),
        (
            {"rouge": {"part": "f1"}},
            "scorer rouge: part must be fmeasure, precision, recall, got 'f1'",
        ),
        (
            {"similarity": {"at_least": 2}},
            "scorer similarity: at_least must be a number from 0 to 1, got 2",
        ),
    ],
)
def test_wrong_options(spec, message):
    """An option out of range is refused with what is allowed."""
    with pytest.raises(ScorerError) as caught:
        get_scorer(spec)
    assert str(caught.value) == message
