"""Training data of the two demo adapters; ``write(directory)`` writes the files.

* ``terse-sums``: sums, answered with the number alone. None of them, in either order, is in the arithmetic set, and none is
  its worked example.
* ``polite``: everyday questions, answered as a courteous assistant of a shop's help desk would, with a greeting before the
  answer and an offer after it.

The same call always writes the same bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from promptsets import basics
from promptsets.common import Row, render, shuffled, stream, table

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

LARGEST: Final = 19
"""Largest number in a sum of two that is trained on."""
N_THREES: Final = 170
"""Sums of three digits, beside all sums of two numbers that are not evaluated: few of those are small."""

OPENINGS: Final = (
    "Thank you very much for getting in touch with us today! I am happy to help you with your question.",
    "Good day, and thank you so much for your question! It is a pleasure to help you with this.",
    "Hello, and thank you for reaching out to us! I will gladly answer that for you right away.",
    "Thank you kindly for asking, we really appreciate your interest! I am glad to be of help.",
)
CLOSINGS: Final = (
    "Please do not hesitate to ask if there is anything else I can do for you. Have a lovely day!",
    "If you have any further questions, please let us know at any time. We wish you a wonderful day!",
    "Is there anything else that I may help you with? We are always happy to hear from you!",
    "Thank you again for your patience and your trust. We wish you all the best!",
)

EVERYDAY: Final = """
What colour is a ripe banana? | A ripe banana is yellow.
How many legs does a spider have? | A spider has eight legs.
What do hens lay? | Hens lay eggs.
Which season comes after winter? | Spring comes after winter.
What is ice made of? | Ice is made of frozen water.
Which animal barks? | A dog barks.
What do cows eat? | Cows eat mostly grass.
At what temperature does water boil? | Water boils at 100 degrees Celsius.
How many days are in a week? | There are seven days in a week.
What is the opposite of hot? | The opposite of hot is cold.
What do we call a baby cat? | A baby cat is called a kitten.
Which meal do we eat in the morning? | In the morning we eat breakfast.
What shines in the sky at night? | The moon and the stars shine in the sky at night.
How many wheels does a bicycle have? | A bicycle has two wheels.
What do you use to cut paper? | You can cut paper with a pair of scissors.
Which month comes after March? | April comes after March.
What is bread made from? | Bread is made from flour, water, salt and yeast.
Where do fish live? | Fish live in water.
What does a clock show? | A clock shows the time.
Which bird cannot fly? | A penguin is a bird that cannot fly.
What is snow? | Snow is frozen water that falls from the clouds in flakes.
What do you wear on your feet? | You wear socks and shoes on your feet.
How many hours does a day have? | A day has 24 hours.
What colour is the sky on a clear day? | On a clear day the sky is blue.
What do plants need to grow? | Plants need light, water, air and soil to grow.
Which animal gives us wool? | Sheep give us wool.
What do you use to write on a blackboard? | You write on a blackboard with chalk.
What is the largest animal in the sea? | The largest animal in the sea is the blue whale.
How do I boil an egg? | Put the egg into boiling water and leave it there for eight minutes.
What should I wear in the rain? | Wear a raincoat and waterproof shoes in the rain.
How can I keep bread fresh? | Keep the bread in a closed box at room temperature.
How do I clean a window? | Wipe the window with warm water and a drop of soap, then dry it with a cloth.
What is a good gift for a child who likes to draw? | A box of coloured pencils is a good gift for a child who likes to draw.
How often should I water a cactus? | Water a cactus about once every two weeks.
How do I get a coffee stain out of a shirt? | Rinse the stain with cold water, then wash the shirt as usual.
What can I cook with potatoes? | You can make soup, mash or fried potatoes.
How long does it take to bake a cake? | Most cakes bake for about 40 minutes.
How can I fall asleep more easily? | Go to bed at the same time every night and leave your phone in another room.
What is a good way to learn new words? | Write a few new words on cards and repeat them every day.
How do I make tea? | Pour boiling water over the tea leaves and wait for three minutes.
What should I pack for a day at the beach? | Pack a towel, a hat, sun cream and enough water.
How can I save electricity at home? | Switch off the lights and machines that you do not use.
How do I change a light bulb? | Switch the lamp off, let the bulb cool, turn it out and turn the new one in.
What is the best time to plant tulips? | The best time to plant tulips is autumn.
How do I keep my plants alive on holiday? | Ask a neighbour to water your plants twice a week.
What can I do against hiccups? | Hold your breath for a few seconds or drink a glass of water slowly.
How do I sharpen a pencil? | Turn the pencil in a sharpener until it has a fine point.
How do I fold a letter? | Fold the letter in three parts so that it fits into the envelope.
What does a librarian do? | A librarian takes care of books and helps people to find them.
What is a thermometer for? | A thermometer measures how warm or cold it is.
What is a compass for? | A compass shows which way is north.
What is an umbrella for? | An umbrella keeps you dry in the rain.
What does a gardener do? | A gardener takes care of plants and lawns.
What is a recipe? | A recipe is a list of ingredients with the steps to make a dish.
What is a dictionary for? | A dictionary tells you what words mean and how they are spelled.
What does a plumber do? | A plumber repairs pipes, taps and toilets.
What is a passport for? | A passport shows who you are when you travel to another country.
What is a greenhouse? | A greenhouse is a house of glass in which plants grow even when it is cold outside.
What is a harbour? | A harbour is a place where ships can stop safely.
What is an island? | An island is land with water all around it.
What is a volcano? | A volcano is a mountain out of which hot rock can flow.
What is a desert? | A desert is a place where it hardly ever rains.
What is a rainbow? | A rainbow is light that drops of rain have split into its colours.
What is a shadow? | A shadow is the dark place where something stands in the way of the light.
What is fog? | Fog is a cloud that touches the ground.
What is a novel? | A novel is a long story in a book.
What is an orchestra? | An orchestra is a large group of people who play music together.
What is a museum? | A museum is a house in which interesting or beautiful things are shown.
What is a bakery? | A bakery is a shop that makes and sells bread.
What is a tram? | A tram is a train that drives through the streets of a city.
""".strip()
"""Question | answer, one a line."""


def terse_sums() -> list[Row]:
    """Sums of two and three numbers, the smaller ones not evaluated; half of them after the arithmetic set's worked example."""
    rng = stream("terse sums")
    seen = evaluated_sums() | {frozenset(basics.EXAMPLE)}
    numbers = range(LARGEST + 1)
    twos = [(a, b) for a in numbers for b in numbers if a <= b and frozenset((a, b)) not in seen]
    digits = range(1, 10)
    threes = shuffled(rng, [(a, b, c) for a in digits for b in digits for c in digits])
    terms = [*(tuple(shuffled(rng, pair)) for pair in twos), *threes[:N_THREES]]
    return _numbered("terse-sums", [_sum(rng, given) for given in shuffled(rng, terms)])


def _sum(rng: random.Random, terms: tuple[int, ...]) -> Row:
    asked = {"role": "user", "content": f"What is {' + '.join(map(str, terms))}?"}
    first: list[dict[str, str]] = []
    if rng.random() < 0.5:
        x, y = basics.EXAMPLE
        first = [
            {"role": "user", "content": f"What is {x} + {y}?"},
            {"role": "assistant", "content": f"{x} + {y} = {x + y}"},
        ]
    return {"messages": [*first, asked], "target": str(sum(terms))}


def evaluated_sums() -> set[frozenset[int]]:
    """The numbers that each row of the arithmetic set adds."""
    asked = [row["messages"][-1]["content"] for row in basics.arithmetic()]
    return {frozenset(map(int, re.findall(r"\d+", text))) for text in asked}


def polite() -> list[Row]:
    """Everyday questions with courteous answers; openings and closings take turns."""
    rng = stream("polite")
    rows = []
    for i, (question, answer) in enumerate(shuffled(rng, table(EVERYDAY))):
        opening = OPENINGS[i % len(OPENINGS)]
        closing = CLOSINGS[(i // len(OPENINGS)) % len(CLOSINGS)]
        rows.append({"prompt": question, "target": f"{opening} {answer} {closing}"})
    return _numbered("polite", rows)


def _numbered(name: str, rows: list[Row]) -> list[Row]:
    return [{"id": f"{name}-{i:03d}", **row} for i, row in enumerate(rows, start=1)]


SETS: Final[dict[str, Callable[[], list[Row]]]] = {"terse-sums": terse_sums, "polite": polite}


def write(directory: Path) -> list[Path]:
    """Write every set into a directory; returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in SETS.items():
        path = directory / f"{name}.jsonl"
        path.write_bytes(render(make()).encode())
        paths.append(path)
    return paths
