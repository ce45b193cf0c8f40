"""Write the prompt sets of ``datasets/``, their registry, and the training data of the demo adapters.

Everything in them comes from ``scripts/promptsets``: sums are drawn from a seeded generator and their targets computed,
the texts were written for this project. The same script always writes the same bytes. Rows are shuffled with the seed, and
every kind of row is spread evenly over its file, so that the first rows (what a short demo uses) are a fair sample of the
whole.

Usage: ``python scripts/make_datasets.py [DIRECTORY]`` (default: the ``datasets`` folder beside ``scripts``).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
if str(HERE) not in sys.path:  # when it is loaded and not run as a script
    sys.path.insert(0, str(HERE))

from promptsets import (  # noqa: E402 - found beside this file
    basics,
    chats,
    extraction,
    french,
    instructions,
    multistep,
    templated,
    tools,
    topics,
    training_sets,
    writing,
)
from promptsets.common import PromptFile, render  # noqa: E402 - as above

from workbench.prompts import PromptSet  # noqa: E402 - as above

MODULES: Final = (
    basics,
    multistep,
    topics,
    extraction,
    instructions,
    tools,
    chats,
    writing,
    french,
    templated,
)
SETS: Final[tuple[PromptFile, ...]] = tuple(made for module in MODULES for made in module.SETS)


def entry(made: PromptFile, path: Path) -> dict[str, Any]:
    """What the registry says of a set; ``sha256`` is the hash of its content, whatever the order of the rows."""
    prompts = PromptSet.from_file(path)
    return {
        "file": path.name,
        "sha256": prompts.sha256,
        "n": len(prompts),
        "scorers": list(made.scorers),
        "max_tokens": made.max_tokens,
        "shows": made.shows,
    }


def main(arguments: list[str]) -> None:
    """Write every set and the registry into the directory named on the command line."""
    directory = Path(arguments[0]) if arguments else HERE.parent / "datasets"
    directory.mkdir(parents=True, exist_ok=True)
    registry: dict[str, dict[str, Any]] = {}
    for made in SETS:
        path = directory / f"{made.name}.jsonl"
        path.write_bytes(render(made.make()).encode())
        registry[made.name] = entry(made, path)
        print(f"{path}: {registry[made.name]['n']} prompts")
    text = json.dumps(registry, indent=2, ensure_ascii=False) + "\n"
    (directory / "registry.json").write_bytes(text.encode())
    for path in training_sets.write(directory / "training"):
        print(f"{path}: {len(path.read_bytes().splitlines())} rows to train on")


if __name__ == "__main__":
    main(sys.argv[1:])
