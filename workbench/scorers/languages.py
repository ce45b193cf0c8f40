"""Which language a text is in, and whether an answer left the language it should be in.

Two witnesses must agree before an answer counts as switched: the small words every sentence of a language needs (a table
below), and py3langid. Code and numbers have no such words. Items of a list (short lines behind bullets or numbers, or of
five words at most, and passages between commas that begin with a capital letter) are passed over before an answer counts
as switched: they may be titles and names of dishes. So a switched answer that is nothing but such a list is not seen.
Writing in another script (Latin, Cyrillic, Han, ...) is seen from the letters alone. The model of py3langid is loaded when
it is first asked.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from workbench.scorers.texts import TURN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SMALL_WORDS: Final = {
    "en": "the and of is that with was are this you it for they have not from be which would there what how a an in to i "
    "on as at he she we or by no so my your his her their our can will has had were been but if do does when who its these "
    "than then them also about into",
    "de": "der die das und ist nicht ein eine einen einem einer mit auf von zu den dem des im für sich auch wird wurde war "
    "als an sie er es wir ich dass aber oder wie sind hat haben bei nach aus um noch nur",
    "fr": "le la les un une des et est dans que qui pour sur avec pas ce cette il elle sont au aux du de en je nous vous "
    "mais ou où par plus ne se sa son ses à a été être comme leur",
    "es": "el la los las un una y es de que en por con para no se su lo al del como más pero este esta son está muy sus o "
    "hay ha fue sobre también cuando entre desde",
    "it": "il lo la i gli le un una e è di che in per con non si da del della dei delle al alla sono ma come più questo "
    "questa nel nella anche ha o su era loro",
    "pt": "o a os as um uma e é de que em por com para não se do da dos das no na nos nas ao mas como mais este esta são "
    "foi está também ele ela seu sua ou pelo pela",
    "nl": "de het een en van is dat op te in voor met niet zijn aan er maar om ook als dan naar bij wordt werd deze dit "
    "door ze hij wij ik je u heeft hebben uit nog kan geen worden",
    "pl": "i w na z do nie się jest to że jak o za od po dla ale są tak przez który która które jego jej był była tym "
    "oraz lub może",
    "sv": "och att det som en på är av för med den till i inte han hon ett om har de jag var men så vi kan från eller när "
    "ska också sig",
    "da": "og at det som en på er af for med den til i ikke han hun et om har de jeg var men så vi kan fra eller når skal "
    "også sig blev",
    "ro": "și în de la a pe cu nu este un o că să din mai care pentru sunt au fi se ce prin dar ca sau această acest",
    "tr": "ve bir bu da de için ile çok daha olarak gibi en ama ne var değil olan kadar sonra ben sen o biz ki mi mı",  # noqa: RUF001 - Turkish has a letter i without a dot
    "id": "yang dan di untuk dengan ini itu dari ke pada adalah tidak dalam akan juga oleh saya anda kita mereka atau "
    "sebagai karena ada bisa",
    "vi": "là và của có cho một các được không trong những với người này đã để khi về từ tôi bạn đó cũng như nhiều",
}
"""Words that sentences of a language can hardly do without, by ISO 639-1 code; all of Latin script."""

NAMES: Final = {
    "en": "english englisch anglais inglés inglese inglês engels 英语 英文",
    "de": "german deutsch allemand alemán tedesco alemão duits 德语 德文",
    "fr": "french französisch français francés francese francês frans 法语 法文",
    "es": "spanish spanisch espagnol español spagnolo espanhol spaans 西班牙语",
    "it": "italian italienisch italien italiano italiaans 意大利语",
    "pt": "portuguese portugiesisch portugais portugués português 葡萄牙语",
    "nl": "dutch niederländisch néerlandais nederlands 荷兰语",
    "zh": "chinese mandarin chinesisch chinois chino cinese chinês 中文 汉语 漢語",
    "": "japanese korean russian arabic hindi greek latin turkish polish swedish danish norwegian finnish hungarian czech "
    "romanian ukrainian hebrew thai vietnamese indonesian persian bengali urdu swahili japanisch russisch japonais russe "
    "japonés ruso 日语 日文 日本語 俄语 韩语 translate translation translated translating language languages bilingual "
    "übersetze übersetzen übersetzung traduis traduire traduisez traduction traduce traducir traducción traduci tradurre "
    "traduza traduzir vertaal 翻译 翻譯",
}
"""Words by which a prompt asks for a language, by its code; "" for those that are never the prompt's own."""

_WORD: Final = re.compile(r"[^\W\d_]+")
_NOT_PROSE: Final = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\\[a-zA-Z]+|\([^()]{0,200}\)|\[[^\[\]]{0,200}\]"
    r"|\"[^\"\n]{0,200}\"|“[^”]{0,200}”|«[^»]{0,200}»|「[^」]{0,200}」|《[^》]{0,200}》|\uff08[^\uff08\uff09]{0,200}\uff09",
    re.DOTALL,
)
_CAPITAL: Final = "[A-Z\u00c0-\u00de]"
_LISTED: Final = re.compile(
    rf"^[^\S\n]*(?:[-*+\u2022]|\d{{1,3}}[.)])[^\S\n]+[^\n:\u2013\u2014.!?]{{1,60}}"
    r"(?=[^\S\n]*(?:[:\u2013\u2014]|\s-\s|$))"
    rf"|^[^\S\n]*{_CAPITAL}[^\s,.!?:;]*(?:[^\S\n]+[^\s,.!?:;]+){{0,4}}[^\S\n]*$"
    rf"|(?<=,)\s*(?:(?:and|or|und|oder|et|ou|y|o|e)\s+)?{_CAPITAL}[^,.!?:;\n]{{0,60}}(?=[,.!?:;\n]|\Z)",
    re.MULTILINE,
)
_SIGNS: Final = frozenset('`(["“«「《\uff08\\')
_WINDOW: Final = 16
"""Words judged at a time; each window starts half a window after the last."""
_FEWEST_WORDS: Final = 6
_FEWEST_SMALL: Final = 3
_FEWEST_LETTERS: Final = 24
_SURE: Final = 0.5
"""Least probability, among the languages of the table, at which py3langid is a witness."""
_MOST: Final = 20_000
"""Characters of an answer that are looked at, from its beginning, and as many from its end."""
_WIDE: Final = {"CJK": "Han", "HIRAGANA": "Han", "KATAKANA": "Han", "HANGUL": "Hangul"}
"""Scripts that write in few characters what others write in three times as many."""

_CODES: Final = tuple(SMALL_WORDS)
_BITS: Final[dict[str, int]] = {}
for _n, _words in enumerate(SMALL_WORDS.values()):
    for _word in _words.split():
        _BITS[_word] = _BITS.get(_word, 0) | 1 << _n


class Expected(NamedTuple):
    """What a prompt says about the language of its answer.

    Attributes:
        language: ISO 639-1 code, if its small words settle it.
        scripts: The scripts it is written in.
        open: It names another language, or asks for a translation: no answer to it is out of place.
    """

    language: str | None
    scripts: frozenset[str]
    open: bool


def language_switch(text: str, prompt_text: str | None = None) -> bool | None:
    """Whether an answer leaves the language of its prompt or, midway, its own.

    Args:
        text: The answer. Code, quotations and brackets in it are passed over.
        prompt_text: What was asked: the last message of the user, or system message and all user turns as `texts.asked`
            joins them. The last settles the language, if it can; any may name another. Without it only a change midway
            is seen.

    Returns:
        None if that cannot be said: fewer than six words, no language that is known, or a prompt that names another
        language.

    >>> language_switch("The answer is four. 这个答案是正确的。因为二加二等于四。", "What is 2 + 2?")
    True
    """
    if len(text) > 2 * _MOST:
        text = f"{text[:_MOST]} {text[-_MOST:]}"
    expected = _expected(prompt_text) if prompt_text is not None else None
    if expected is not None and expected.open:
        return None
    prose = text if _SIGNS.isdisjoint(text) and "://" not in text else _NOT_PROSE.sub(" ", text)
    words = _WORD.findall(prose.lower())
    scripts: frozenset[str] = expected.scripts if expected is not None else frozenset()
    if not (prose.isascii() and scripts <= {"Latin"}):
        judged = _foreign_script(words, scripts)
        if judged is not None:
            return judged
    if len(words) < _FEWEST_WORDS:
        return None
    language = expected.language if expected is not None else None
    judged = _foreign_words(words, language)
    if judged:
        words = _WORD.findall(_LISTED.sub(" ", prose).lower())
        judged = _foreign_words(words, language) if len(words) >= _FEWEST_WORDS else None
    return judged


def _foreign_words(words: Sequence[str], language: str | None) -> bool | None:
    marks = [_BITS.get(word, 0) for word in words]
    judged = language is not None
    for start in range(0, max(1, len(words) - _WINDOW // 2), _WINDOW // 2):
        window = marks[start : start + _WINDOW]
        if language is None:
            language = _settled(window)
            judged = language is not None
            continue
        own = 1 << _CODES.index(language)
        ours = sum(1 for mark in window if mark & own)
        theirs = sum(1 for mark in window if mark and not mark & own)
        if theirs < _FEWEST_SMALL or theirs <= 3 * ours:
            continue
        other = _settled(window)
        if other is None or other == language:
            continue
        if identify(" ".join(words[start : start + _WINDOW])) not in (None, language):
            return True
    return False if judged else None


def _settled(marks: Iterable[int]) -> str | None:
    """The language whose small words are clearly the most of a text."""
    kept = [mark for mark in marks if mark]
    counts = sorted(
        ((sum(1 for m in kept if m >> n & 1), code) for n, code in enumerate(_CODES)), reverse=True
    )
    (most, code), (second, _) = counts[:2]
    return code if most >= _FEWEST_SMALL and most > second else None


@lru_cache(maxsize=4096)
def _expected(prompt_text: str) -> Expected:
    turns = [turn[:_MOST].lower() for turn in prompt_text.split(TURN)]
    each = [_own(turn) for turn in reversed(turns)]
    scripts = next((scripts for _, scripts in each if scripts), frozenset[str]())
    language = next((code for code, own in each if code and own <= scripts), None)
    text = " ".join(turns)
    words = _WORD.findall(text)
    named = {code for code, names in NAMES.items() if _names(names.split(), words, text)}
    own = {language} if language else {"zh"} if scripts == {"Han"} else set()
    return Expected(language, scripts, open=bool(named - own))


def _own(turn: str) -> tuple[str | None, frozenset[str]]:
    """The language of a turn, if it settles one, and its scripts."""
    words = _WORD.findall(turn)
    language = _settled(_BITS.get(word, 0) for word in words)
    if language is None and len(words) <= _FEWEST_WORDS:
        language = "en" if {"what", "how", "who", "the", "is", "of"} & set(words) else None
    return language, frozenset(script for script, n in _scripts(words) if n > 1)


def _names(names: Iterable[str], words: Iterable[str], text: str) -> bool:
    """Whether a text has one of these names: as a word, or anywhere where words have no spaces between them."""
    return any(name in words if name < "\u3000" else name in text for name in names)


def _foreign_script(words: Sequence[str], scripts: frozenset[str]) -> bool | None:
    """Whether a passage in another script is long enough to be one, by its letters (wide ones count three).

    Returns:
        None where letters cannot tell: all is Latin, or too little of it is not.
    """
    run = 0
    sizes: dict[str, int] = {}
    for script, size in _scripts(words):
        if not scripts and size > 1:
            scripts = frozenset({script})
        sizes[script] = sizes.get(script, 0) + size
        if script in scripts:
            run = 0
        elif script != "Latin":
            run += size
            if run >= _FEWEST_LETTERS:
                return True
    if not scripts or "Latin" in scripts:
        return None
    marks = [_BITS.get(word, 0) for word in words]
    latin = sizes.get("Latin", 0) > sum(sizes.values()) / 2
    if latin and sum(map(bool, marks)) >= 2 * _FEWEST_SMALL and _settled(marks) is not None:
        return True
    return False if sum(sizes.get(script, 0) for script in scripts) >= _FEWEST_LETTERS else None


def _scripts(words: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Passages of one script in each word, with their letters; single letters of narrow scripts (symbols) left out."""
    for word in words:
        if word.isascii():
            yield "Latin", len(word)
            continue
        script, size = "", 0
        for letter in word:
            found = script_of(letter)
            if found != script:
                if size:
                    yield script, size
                script, size = found, 0
            size += 3 if found in _WIDE.values() else 1
        if size > 1:
            yield script, size


@cache
def script_of(letter: str) -> str:
    """The script a letter belongs to: "Latin", "Cyrillic", "Han" (Japanese syllables too), "Hangul", ...

    >>> script_of("é"), script_of("ж"), script_of("の")
    ('Latin', 'Cyrillic', 'Han')
    """
    first = unicodedata.name(letter, "NONE").replace("-", " ").split()[0]
    return _WIDE.get(first, "Latin" if first in ("FULLWIDTH", "NONE") else first.capitalize())


@cache
def _model() -> Any:
    # only when asked: it takes most of a second
    from py3langid.langid import (  # noqa: PLC0415
        MODEL_FILE,
        LanguageIdentifier,
    )

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages(MAIN)
    return model


MAIN: Final = (
    *_CODES,
    *(
        "no",
        "fi",
        "hu",
        "cs",
        "sk",
        "hr",
        "bg",
        "ru",
        "uk",
        "sr",
        "el",
        "ar",
        "he",
        "fa",
        "ur",
        "hi",
        "bn",
        "ta",
        "te",
    ),
    *(
        "th",
        "ja",
        "ko",
        "zh",
        "sw",
        "ca",
        "et",
        "lv",
        "lt",
        "sl",
        "kn",
        "pa",
        "mr",
        "gu",
        "ml",
        "ne",
    ),
)
"""Languages told apart, ISO 639-1."""


def identify(text: str) -> str | None:
    """The language of a text, an ISO 639-1 code of ``MAIN``, or None where py3langid is not sure.

    >>> identify("Die Hauptstadt von Frankreich ist Paris, und sie liegt an der Seine.")
    'de'
    """
    code, share = _model().classify(text[:_MOST])
    return str(code) if share >= _SURE else None


def likeliest(text: str) -> str:
    """The likeliest language of a text among ``MAIN``, however unsure."""
    return str(_model().classify(text[:_MOST])[0])
