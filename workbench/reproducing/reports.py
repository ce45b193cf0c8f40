"""Whether a report says what its run's record says: it is made again from the record, and the two are compared.

On the versions the report was made with, every byte must be the same. On others the pictures are not compared, and a number
may be off by one in its last printed digit (in ``summary.csv``: by 1e-9 of its value).
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import StoreError
from workbench.reporting import make, origin, page
from workbench.reporting.facts import read
from workbench.reproducing import pagetext
from workbench.reproducing.pagetext import Difference, Piece
from workbench.runs import SUMMARY, Run, open_run
from workbench.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

_REPRODUCED: Final = re.compile(r'<tr><th scope="row">reproduced</th><td>(.*?)</td></tr>')
_MADE_ON: Final = "Made on "
_MOST_ROWS: Final = 5
_MOST_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class ReportCheck:
    """What verifying a report found.

    Attributes:
        path: The page.
        files: Names of the files that were compared.
        missing: Names of the files that are not there.
        n_numbers: Numbers compared.
        other_versions: Name to (version the report was made with, version now), where they differ; with any, pictures
            were not compared, and the last digit of a number may be off by one.
        differences: What differs; empty if the report is what the record gives.
        notes: What else to know, one sentence each.
    """

    path: Path
    files: tuple[str, ...]
    missing: tuple[str, ...]
    n_numbers: int
    other_versions: dict[str, tuple[str, str]]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if nothing differs."""
        return not self.differences

    @property
    def text(self) -> str:
        """What was found, a line a subject."""
        how = "byte by byte" if not self.other_versions else "number by number, pictures aside"
        done = f"{self.n_numbers:,} numbers in {', '.join(self.files)} made again from the record and compared {how}"
        n = len(self.differences)
        head = f"{self.path}: verified; {done}"
        if n:
            head = (
                f"{self.path}: not what the record gives: {n:,} difference{'s' * (n > 1)}; {done}"
            )
        said = [f"  {d}" for d in self.differences[:_MOST_SHOWN]]
        if n > _MOST_SHOWN:
            said.append(f"  ... and {n - _MOST_SHOWN:,} more")
        return "\n".join([head, *said, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "report": str(self.path),
            "verified": self.ok,
            "files": list(self.files),
            "missing": list(self.missing),
            "n_numbers": self.n_numbers,
            "other_versions": {k: list(v) for k, v in self.other_versions.items()},
            "differences": [d._asdict() for d in self.differences],
            "notes": list(self.notes),
        }


def verify_report(
    run: Run | str | Path, out: str | Path | None = None, *, progress: bool = False
) -> ReportCheck:
    """Make a run's report again from its record, without the model, and compare it with the one that lies there.

    Compared are the page, the Markdown text, their picture, and the run's ``summary.csv``; nothing is written.

    Args:
        run: A run, or what `workbench.open_run` takes.
        out: Where the report is, as for `workbench.report`; by default in the run directory.
        progress: Show a bar while the report is made.

    Raises:
        StoreError: There is no such run, no report, or the record cannot be read.
        WorkbenchError: The report cannot be made.
    """
    opened = run if isinstance(run, Run) else open_run(run)
    opened = Run(opened.path)  # as it is now, whatever was read before
    target = make.target_of(opened, out)
    if not target.is_file():
        raise StoreError(f"no report {target}; make one with `workbench report`")
    html = target.read_text(encoding="utf-8", errors="replace")
    about, notes = _about(html)
    others = _other_versions(about.get("with") or {})
    notes += _versions_note(others)
    names = [target.name, f"{target.stem}.md", *([] if others else [f"{target.stem}.png"])]
    now = _made_again(opened, target, about, progress=progress)
    files, missing, found, n = [], [], [], 0
    for name in names:
        place = target.parent / name
        if not place.is_file():
            missing += [name] if name in now else []
            continue
        files.append(name)
        old, new = place.read_bytes(), now.get(name, b"")
        if name == target.name:
            old, new, more = _without_later_check(target.name, old, new, opened)
            found += more
        n += pagetext.count(_pieces(name, new))
        found += _compared(name, old, new, exact=not others)
    n += _summary(opened, files, missing, found)
    if found:
        found = [*_changed_rows(opened), *found]  # the cause first
    return ReportCheck(target, tuple(files), tuple(missing), n, others, tuple(found), tuple(notes))


def _about(html: str) -> tuple[dict[str, Any], list[str]]:
    """What a page says it was made with, and what to say if it does not."""
    try:
        about = json.loads(pagetext.made_by(html) or "null")
    except ValueError:
        about = None
    if isinstance(about, dict) and about:
        return about, []
    return {}, [
        "The page does not say what it was made with; the study's baseline and seed 0 are taken."
    ]


def _other_versions(made: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    now = page.made_with()
    names = dict.fromkeys([*made, *now])
    pairs = {name: (str(made.get(name, "?")), now.get(name, "?")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _versions_note(others: Mapping[str, tuple[str, str]]) -> list[str]:
    if not others:
        return []
    listed = ", ".join(f"{name} {then}, now {now}" for name, (then, now) in others.items())
    return [f"Made on other versions ({listed}): pictures were not compared."]


def _made_again(
    run: Run, target: Path, about: Mapping[str, Any], *, progress: bool
) -> dict[str, bytes]:
    """The files of the report as the record gives them now."""
    baseline, seed = about.get("baseline"), about.get("seed", 0)
    if not isinstance(seed, int) or not isinstance(baseline, str | None):
        raise StoreError(f"{target}: its note of how it was made is damaged; make the report anew")
    facts = read(run, baseline, seed)
    with tempfile.TemporaryDirectory(prefix="workbench-verify-") as work:
        return make.made(facts, target, Path(work), given=baseline is not None, progress=progress)


def _without_later_check(
    name: str, old: bytes, new: bytes, run: Run
) -> tuple[bytes, bytes, list[Difference]]:
    """Both pages without the line that tells how `workbench verify` ended last.

    A verification made after the report is no reason to distrust it. The line must be that of some verification of the run.
    """
    texts = [data.decode(errors="replace") for data in (old, new)]
    said = _REPRODUCED.search(texts[0])
    known = [
        page.pairs({"reproduced": origin.reproduced(c)}, "").text
        for c in run.manifest.get("verified", [])
    ]
    wrong = []
    if said is not None and not any(said[0] in text for text in known):
        wrong.append(Difference(name, "Record, Study, reproduced", said[1], None))
    left = [_REPRODUCED.sub("", text, count=1).encode(errors="replace") for text in texts]
    return left[0], left[1], wrong


def _pieces(name: str, data: bytes) -> list[Piece]:
    """What a file says; nothing for a picture."""
    if name.endswith(".png"):
        return []
    text = data.decode(errors="replace")
    return pagetext.page_pieces(text) if name.endswith(".html") else pagetext.lines(text)


def _compared(name: str, old: bytes, new: bytes, *, exact: bool) -> list[Difference]:
    """What differs between a file and what it should be."""
    if old == new:
        return []
    reported, recorded = _pieces(name, old), _pieces(name, new)
    if not exact:
        reported, recorded = (
            [p for p in side if not p.text.startswith(_MADE_ON)] for side in (reported, recorded)
        )
    found = pagetext.differences(name, reported, recorded, exact=exact, full=False)
    if exact and not found:
        what = "the picture" if name.endswith(".png") else "pictures, styles or markup"
        found = [Difference(name, what, f"{len(old):,} bytes", f"{len(new):,} other bytes")]
    return found


def _summary(run: Run, files: list[str], missing: list[str], found: list[Difference]) -> int:
    """Compare ``summary.csv``; how many numbers it has."""
    place = run.path / SUMMARY
    if not place.is_file():
        missing.append(SUMMARY)
        return 0
    files.append(SUMMARY)
    pieces = pagetext.table(run.summary().to_csv(index=False))
    lies = pagetext.table(place.read_text(encoding="utf-8", errors="replace"))
    made = run.manifest.get("packages") or {}
    same = all(made.get(name) == v for name, v in page.made_with().items() if name in made)
    found += pagetext.differences(SUMMARY, lies, pieces, exact=same, full=True)
    return pagetext.count(pieces)


def _changed_rows(run: Run) -> list[Difference]:
    """The first rows in which the record is not what its Parquet exports say; nothing where there are no exports."""
    found: list[Difference] = []
    with RunStore.open(run.path) as store:
        tables = {
            "generations": store.generations(),
            "scores": store.scores(every_version=True),
            "latency": store.latency(),
        }
    for name, rows in tables.items():
        export = run.path / f"{name}.parquet"
        if export.is_file():
            found += _row_differences(export, rows)
    return found[:_MOST_ROWS]


def _row_differences(export: Path, rows: pd.DataFrame) -> Iterator[Difference]:
    import pandas as pd  # noqa: PLC0415 - slow to import

    old = pd.read_parquet(export)
    if len(old) != len(rows):
        yield Difference(export.name, "rows", f"{len(old):,}", f"{len(rows):,}")
        return
    key = [c for c in ("cell_id", "prompt_id", "repeat", "round", "scorer") if c in rows]
    for column in rows.columns.intersection(old.columns):
        a, b = (_values(side[column]) for side in (old, rows))
        for i in (a.ne(b) & ~(a.isna() & b.isna())).to_numpy().nonzero()[0]:
            place = ", ".join(f"{k} {rows[k].iloc[i]}" for k in key)
            values = (str(v.iloc[i])[:60] for v in (a, b))
            yield Difference(export.name, f"{place}, {column}", *values)


def _values(column: pd.Series) -> pd.Series:
    """A column in which equal values compare equal: a list as text, what is missing as None."""
    listed = column.map(
        lambda v: str(list(v)) if hasattr(v, "__len__") and not isinstance(v, str) else v
    )
    values = listed.astype(object)
    return values.where(values.notna(), None)
