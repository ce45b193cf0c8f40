"""Open-ended writing: nothing is right or wrong, but an answer can fall apart."""

from __future__ import annotations

from typing import Final

from promptsets.common import PromptFile, Row, spread

PROMPTS: Final = {
    "story": (
        "Write a short story about a lighthouse keeper who finds a letter.",
        "Tell a story about two children who build a raft.",
        "Write a story that begins with a broken clock.",
        "Tell me a fairy tale about a clever goose.",
        "Write a story about a dog who takes the bus to work.",
        "Write a short story about the last day of a small shop.",
        "Tell a story about a storm at sea from the point of view of a sailor.",
        "Write about a girl who can talk to trees.",
        "Tell a story about an old map found in a library.",
        "Write a short story in which nobody speaks.",
        "Tell a funny story about a cook who loses his sense of taste.",
        "Write a story about a robot that learns to paint.",
    ),
    "description": (
        "Describe a busy railway station early in the morning.",
        "Describe the smell and the sounds of a forest after rain.",
        "Describe your perfect room in detail.",
        "Describe a market in a warm country.",
        "Describe how the sea changes during a day.",
        "Describe an old bicycle as if it were a person.",
        "Describe a city at night, seen from a hill.",
        "Describe the kitchen of a grandmother.",
        "Describe a frozen lake and the people on it.",
        "Describe a garden in each of the four seasons.",
        "Describe a painting of a ship that does not exist.",
        "Describe the first minutes of a football match.",
    ),
    "letter": (
        "Write a letter to a friend who has moved to another country.",
        "Write a letter of complaint about a noisy hotel.",
        "Write a thank-you letter to a teacher.",
        "Write a letter to your future self in twenty years.",
        "Write an invitation to a summer party in the garden.",
        "Write a letter in which a cat asks for better food.",
        "Write an email that asks a neighbour to water the plants.",
        "Write a farewell speech for a colleague who retires.",
        "Write a postcard from a mountain village.",
        "Write a letter to the mayor about a new playground.",
        "Write a message that cheers up a friend before an exam.",
        "Write a job application for a lighthouse keeper.",
    ),
    "explanation": (
        "Explain to a child why we have day and night.",
        "Explain how bread is made, step by step.",
        "Explain what a computer does, in simple words.",
        "Explain why some birds fly south in winter.",
        "Explain how to repair a flat tyre on a bicycle.",
        "Explain what money is for.",
        "Explain how a plant grows from a seed.",
        "Explain the rules of a game you know.",
        "Explain why sleep is important.",
        "Explain what makes a good friend.",
        "Explain how a letter gets from one city to another.",
        "Explain the difference between weather and climate.",
    ),
    "dialogue": (
        "Write a conversation between a king and his gardener.",
        "Write a dialogue between two ants who discuss the rain.",
        "Write a conversation at a ticket office where nobody understands the other.",
        "Write an interview with the oldest person of a village.",
        "Write a dialogue between the sun and the moon.",
        "Write a conversation between a detective and a baker.",
        "Write a dialogue in which two friends plan a journey.",
        "Write a conversation between a teacher and a student who is always late.",
        "Write a telephone call between a grandfather and his grandson.",
        "Write a dialogue between a chair and a table.",
        "Write a conversation between two strangers in a lift that is stuck.",
        "Write an argument between a cook and a waiter that ends well.",
    ),
}


def writing() -> list[Row]:
    """Sixty tasks, twelve of each kind, without targets."""
    return spread(
        "writing",
        {
            kind: [{"prompt": prompt, "metadata": {"kind": kind}} for prompt in prompts]
            for kind, prompts in PROMPTS.items()
        },
    )


SETS: Final = (
    PromptFile(
        "writing",
        writing,
        ("degeneration",),
        max_tokens=160,
        shows="loops and repeated passages in long answers, and what temperature and penalties do about them",
    ),
)
