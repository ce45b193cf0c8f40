"""Word problems of two and three steps, some with a number that does not matter."""

from __future__ import annotations

import math
import operator
import re
from typing import TYPE_CHECKING, Final

from promptsets.common import PromptFile, Row, chat, shuffled, spread, stream, table

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

DRAWS: Final = 3
"""Problems of one story, with different numbers; they are one group."""

STORIES: Final = """
two steps | a+b, r-c | - | {who} has {a} marbles, finds {b} more and gives {c} away. How many marbles does {who} have now?
two steps | a+b, r-c | c<=5 | There are {a} red and {b} yellow apples in a bowl. {who} eats {c} of them. How many apples are left?
two steps | a-b, r+c | - | A bus has {a} passengers. {b} get off and {c} get on. How many passengers are on the bus now?
two steps | a-b, r-c | - | {who} has {a} euros, spends {b} on a book and {c} on lunch. How many euros are left?
two steps | a*b, r+c | - | {who} fills {a} boxes with {b} eggs each and has {c} eggs left over. How many eggs are there in all?
two steps | a*b, r-c | 2c<=ab | {a} teams with {b} players each arrive, and {c} players go home early. How many players stay?
two steps | a+b, r*c | a<=8 b<=8 | Every day {who} walks {a} km in the morning and {b} km in the evening. How many km does {who} walk in {c} days?
two steps | a-b, r*c | 2b<=a | A ticket costs {a} euros, and students pay {b} euros less. How much do {c} students pay together?
two steps | a+b, r+c | - | On Monday {who} reads {a} pages, on Tuesday {b} and on Wednesday {c}. How many pages does {who} read in the three days?
two steps | a*b, r*c | - | A shelf has {a} rows with {b} jars in each row. How many jars are on {c} such shelves?
two steps | a+b, r-c | - | {a} boys and {b} girls play in a yard. Then {c} children leave. How many children are still there?
two steps | a-b, r+c | - | A shop has {a} lamps. It sells {b} and gets {c} new ones. How many lamps does it have then?
two steps | a*b, r+c | b<=4 | {who} buys {a} pens for {b} euros each and a folder for {c} euros. How many euros does {who} pay?
two steps | a*b, r-c | - | {who} plants {a} rows of {b} tulips, but {c} do not grow. How many tulips grow?
three steps | a+b, r-c, r+d | c<=5 | {who} picks {a} pears and {b} plums, eats {c} of the fruits and buys {d} more. How many fruits does {who} have?
three steps | a*b, r+c, r-d | - | {who} has {a} bags with {b} nuts each and {c} loose nuts, and eats {d} nuts. How many nuts are left?
three steps | a-b, r-c, r+d | - | A tank holds {a} litres. {b} litres run out, {who} takes {c} litres and rain adds {d} litres. How many litres are in the tank?
three steps | a+b, r*c, r-d | a<=b+2 b<=a+2 | A table has {a} chairs on one side and {b} on the other. There are {c} such tables, and {d} chairs are broken. How many chairs are not broken?
three steps | a-b, r*c, r+d | 2b<=a | A cake costs {a} euros, today {b} euros less. {who} buys {c} cakes and a drink for {d} euros. How many euros does {who} pay?
three steps | a+b, r+c, r-d | - | {who} collects {a} stamps in May, {b} in June and {c} in July, then loses {d}. How many stamps are left?
three steps | a*b, r-c, r-d | - | A baker makes {a} trays of {b} rolls. {c} rolls burn and {d} are eaten. How many rolls can be sold?
three steps | a*b, r+c, r+d | - | In a hall there are {a} benches for {b} people each, {c} chairs and {d} stools. How many people can sit down?
extra number | a+b, r-c | - | {who} is {x} years old and has {a} toy cars. An uncle brings {b} more, and {c} get lost. How many toy cars are there now?
extra number | a-b, r+c | 2b<=a c<=6 | A farm with {x} fields has {a} sheep. {b} are sold and {c} lambs are born. How many sheep and lambs are there now?
extra number | a*b, r+c | a<=3 c<=6 | On a trip of {x} days {who} writes {a} cards to each of {b} friends and {c} cards to the family. How many cards is that?
extra number | a*b, r-c | - | At {x} o'clock {a} vans bring {b} parcels each. {c} parcels are damaged. How many parcels are not damaged?
extra number | a+b, r+c | - | In house number {x} there live {a} families on the first floor, {b} on the second and {c} on the third. How many families live there?
extra number | a-b, r-c | - | A harbour is {x} years old and has {a} boats in it. {b} boats leave at noon and {c} in the evening. How many boats are still there?
"""
"""Kind, steps, what must hold between the numbers for the story to make sense, and text.

In a step ``r`` is the result of the step before; ``{x}`` plays no part. "2b<=a" says that twice b is at most a, "2c<=ab" that
twice c is at most a times b.
"""

NAMES: Final = ("Mia", "Leo", "Zoe", "Max", "Ida", "Sam", "Eva", "Tom", "Lea", "Jim", "Amy", "Kai")

SHOWN: Final = (
    "Ann has 5 cups. She buys 4 more and breaks 2. How many cups does she have now?",
    "5 + 4 = 9. 9 - 2 = 7. The answer is 7.",
    "A box has 2 rows with 4 bulbs each, and 3 more lie beside it. How many bulbs are there?",
    "2 * 4 = 8. 8 + 3 = 11. The answer is 11.",
)
"""Two worked examples before every problem."""

OPERATIONS: Final[dict[str, Callable[[int, int], int]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


def between(rng: random.Random, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return low + int(rng.random() * (high - low + 1))


def solve(steps: list[str], numbers: dict[str, int]) -> list[tuple[int, str, int, int]]:
    """The steps worked out: (first, sign, second, result)."""
    done: list[tuple[int, str, int, int]] = []
    for step in steps:
        first, sign, second = step
        a = done[-1][3] if first == "r" else numbers[first]
        done.append((a, sign, numbers[second], OPERATIONS[sign](a, numbers[second])))
    return done


def size(expression: str, numbers: dict[str, int]) -> int:
    """The value of one side of a condition: a product such as ``2c`` or ``ab``, or a sum such as ``b+2``."""
    total = 0
    for term in expression.split("+"):
        factors = re.findall(r"\d+|[a-d]", term)
        total += math.prod(int(f) if f.isdigit() else numbers[f] for f in factors)
    return total


def sensible(conditions: str, numbers: dict[str, int]) -> bool:
    """Whether the numbers fit the story."""
    sides = [c.split("<=") for c in conditions.split()] if conditions != "-" else []
    return all(size(low, numbers) <= size(high, numbers) for low, high in sides)


def numbers_for(steps: list[str], rng: random.Random) -> dict[str, int]:
    """Numbers of one problem, all different and none of them the answer, whose results stay between 1 and 60."""
    while True:
        small = {step[i] for step in steps if step[1] == "*" for i in (0, 2)}
        drawn = {n: between(rng, 2, 6 if n in small else 12) for n in "bcdx"}
        drawn["a"] = between(rng, *((2, 6) if "a" in small else (4, 20)))
        named = {c for step in steps for c in step} & set(drawn)
        used = [drawn[n] for n in (*sorted(named), "x")]
        results = [step[3] for step in solve(steps, drawn)]
        if (
            len(set(used)) == len(used)
            and all(1 <= r <= 60 for r in results)
            and results[-1] not in used
            and drawn["x"] not in results
        ):
            return drawn


def multistep() -> list[Row]:
    """Eighty-four problems: three of each story."""
    rng = stream("multistep draws")
    strata: dict[str, list[Row]] = {}
    for n, (kind, plan, conditions, text) in enumerate(table(STORIES), 1):
        steps = plan.split(", ")
        for who in shuffled(rng, NAMES)[:DRAWS]:
            numbers, again = numbers_for(steps, rng), stream(f"multistep {n} {who}")
            while not sensible(conditions, numbers):
                numbers = numbers_for(steps, again)
            solution = solve(steps, numbers)
            row: Row = {
                "messages": chat(*SHOWN, text.format(who=who, **numbers)),
                "target": solution[-1][3],
                "metadata": {
                    "kind": kind,
                    "steps": [f"{a} {s} {b} = {r}" for a, s, b, r in solution],
                },
                "group": f"story-{n:02d}",
            }
            strata.setdefault(kind, []).append(row)
    return spread("multistep", strata)


SETS: Final = (
    PromptFile(
        "multistep",
        multistep,
        ("numeric",),
        max_tokens=64,
        shows="a chain of steps in which one slip spoils the rest; whether noise hurts more the longer the chain",
    ),
)
