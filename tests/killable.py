"""A run in a process of its own, to be killed: ``python killable.py OUT N_PROMPTS DELAY_MS``.

Prints one line for each row once it is committed, and "end" at the end.
"""

from __future__ import annotations

import json
import sys

from small import Length, make_plan

from workbench import committer, runner
from workbench.engines.scripted import ScriptedEngine


def tell(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run, acknowledging rows on standard output."""
    out, n_prompts, delay_ms = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    # Many commits, so that a kill at any moment finds one near.
    committer.COMMIT_SECONDS = 0.02
    committer.COMMIT_ROWS = 7
    runner.run(
        make_plan(n_prompts),
        ScriptedEngine(delay_ms=delay_ms, max_rows=16),
        out,
        scorers=[Length()],
        progress=False,
        on_row=lambda g, _: tell(json.dumps([*g.key, g.token_ids])),
    )
    tell("end")


if __name__ == "__main__":
    main()
