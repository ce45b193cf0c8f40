"""Past tenses, with the parts of the sentence as variables: a set whose wording is meant to be varied."""

from __future__ import annotations

from typing import Final

from promptsets.common import PromptFile, Row, spread, table

IRREGULAR: Final = """
go | went | to the market
eat | ate | an apple
see | saw | my friend
take | took | the bus
write | wrote | a letter
buy | bought | some bread
sing | sang | an old song
swim | swam | in the lake
think | thought | about you
drink | drank | a cup of tea
make | made | a soup
break | broke | a plate
find | found | a coin
send | sent | a parcel
give | gave | him a book
drive | drove | to the coast
run | ran | in the park
speak | spoke | with my boss
sleep | slept | in a tent
teach | taught | a class
catch | caught | a fish
wear | wore | a blue hat
win | won | a game of chess
lose | lost | my keys
feel | felt | tired
hear | heard | the bells
build | built | a small boat
draw | drew | a horse
ride | rode | my bicycle
choose | chose | the red one
forget | forgot | the milk
meet | met | an old man
sell | sold | ten tickets
throw | threw | the ball
tell | told | a story
wake | woke | up at six
fly | flew | over the hills
hide | hid | behind the door
bring | brought | a cake
keep | kept | the change
"""
"""Verb, past tense, the rest of a sentence that begins with "I"."""

REGULAR: Final = """
walk | walked | to work
play | played | the piano
jump | jumped | over a puddle
open | opened | the window
help | helped | my father
clean | cleaned | the kitchen
watch | watched | a film
cook | cooked | the dinner
call | called | my aunt
paint | painted | a wall
wash | washed | the car
talk | talked | to the neighbour
listen | listened | to the radio
work | worked | in the garden
visit | visited | the museum
answer | answered | the phone
wait | waited | for the train
laugh | laughed | about a joke
dance | danced | in the hall
bake | baked | a pie
close | closed | the shop
smile | smiled | at the child
use | used | a sharp knife
arrive | arrived | at noon
save | saved | some money
carry | carried | a heavy box
study | studied | a map
try | tried | a new recipe
cry | cried | at the end
hurry | hurried | to the station
stop | stopped | at the corner
plan | planned | a journey
drop | dropped | a cup
hug | hugged | my sister
shop | shopped | in the old town
clap | clapped | my hands
knock | knocked | on the door
climb | climbed | a tree
water | watered | the plants
repair | repaired | the clock
"""
"""As IRREGULAR, for verbs that take -ed."""

PROMPT: Final = "Complete the second sentence. Today I {verb} {rest}. Yesterday I ..."
"""How a study without templates asks."""


def templated() -> list[Row]:
    """Eighty verbs, half of them irregular; a template sees ``verb`` and ``rest``."""
    return spread(
        "templated",
        {
            kind: [
                {
                    "prompt": PROMPT.format(verb=verb, rest=rest),
                    "vars": {"verb": verb, "rest": rest},
                    "target": past,
                    "metadata": {"kind": kind},
                }
                for verb, past, rest in table(text)
            ]
            for kind, text in (("irregular", IRREGULAR), ("regular", REGULAR))
        },
    )


SETS: Final = (
    PromptFile(
        "templated",
        templated,
        ("contains",),
        max_tokens=24,
        shows="wording as a setting: with templates the same rows go from hopeless to nearly perfect",
    ),
)
