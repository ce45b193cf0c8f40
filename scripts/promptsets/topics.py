"""Classification: short notes, each about one of five topics."""

from __future__ import annotations

from typing import Final

from promptsets.common import PromptFile, Row, chat, spread

CLEAR: Final = {
    "sports": (
        "The goalkeeper saved two penalties and the home side won on the last kick.",
        "She ran the marathon in under three hours for the first time.",
        "Our team lost the final after extra time.",
        "He practises his serve on the tennis court every morning.",
        "The cyclists reached the mountain stage with a lead of two minutes.",
        "A new swimming record was set over two hundred metres.",
        "The coach changed three players at half time.",
        "Both boxers were still standing after the last round.",
        "The league begins in August with eighteen clubs.",
        "Her horse cleared every fence without a fault.",
        "The referee showed a red card for the late tackle.",
        "They trained on the rowing lake until dark.",
        "He sank a long putt on the eighteenth green.",
        "The skiers waited at the top of the slalom course.",
    ),
    "food": (
        "Fry the onions slowly until they are golden, then add the rice.",
        "This little place serves the best noodles in the street.",
        "Let the dough rise under a cloth for an hour.",
        "My grandmother puts a pinch of nutmeg in her mashed potatoes.",
        "The soup needs more salt and a squeeze of lemon.",
        "We had grilled fish with beans and a glass of juice.",
        "She baked an apple pie with cinnamon for the guests.",
        "Ripe tomatoes taste best with olive oil and bread.",
        "The chef roasts the lamb for six hours in the oven.",
        "For breakfast he eats two boiled eggs and toast.",
        "Whisk the cream until soft peaks form.",
        "The menu has four curries and a lentil stew.",
        "Slice the cucumber thinly and toss it with yoghurt.",
        "They picked mushrooms and cooked them in butter.",
    ),
    "music": (
        "The violinist tuned her instrument before the first movement.",
        "He learned three new chords on the guitar this week.",
        "The choir sang a carol in four parts.",
        "Her second album came out in spring and has eleven songs.",
        "The drummer kept a slow, steady beat.",
        "A piano stood in the corner and someone played a waltz.",
        "The orchestra rehearsed the symphony until midnight.",
        "They wrote the melody first and the lyrics a year later.",
        "The singer hit the high note without effort.",
        "A trumpet solo opened the second half of the jazz evening.",
        "The band plays its own tunes and a few old ballads.",
        "She practises scales on the flute for an hour a day.",
        "The opera ends with a long duet.",
        "He collects vinyl records of the blues.",
    ),
    "weather": (
        "Heavy rain will move in from the west tonight.",
        "The fog lifted at noon and the sky turned blue.",
        "Expect strong winds and waves of five metres on the coast.",
        "It snowed all night and the roads are white.",
        "Tomorrow stays dry with temperatures near thirty degrees.",
        "A thunderstorm passed over the valley at dusk.",
        "There was frost on the windows this morning.",
        "Clouds will gather in the afternoon, with a shower here and there.",
        "The heat wave should end on Friday.",
        "Hail as big as marbles fell for ten minutes.",
        "After weeks of drought the first drops were welcome.",
        "The barometer is falling and a gale is on its way.",
        "A mild breeze and plenty of sunshine are forecast.",
        "Night temperatures drop below freezing in the hills.",
    ),
    "money": (
        "The bank raised its interest rate by a quarter of a percent.",
        "She puts a tenth of her salary into savings each month.",
        "The company's shares fell after the weak results.",
        "He paid off the last of his student loan.",
        "Taxes on small firms will go down next year.",
        "Our rent goes up by forty euros in January.",
        "The currency lost a fifth of its value against the dollar.",
        "They asked for a mortgage over twenty-five years.",
        "Check your account for fees you did not expect.",
        "Prices rose faster than wages again this year.",
        "She keeps a budget and writes down every bill.",
        "The fund invests in bonds and pays a small dividend.",
        "He owes his brother two hundred pounds.",
        "The shop offers credit with no interest for six months.",
    ),
}
"""Fourteen notes a topic that name things of that topic alone."""

MIXED: Final = {
    "sports": (
        "In pouring rain the striker scored his third goal of the match.",
        "The club sold its captain, and the fans wonder who will lead the defence now.",
        "Between two bananas and a cup of soup she ran sixty kilometres and won the race.",
        "The crowd sang all evening while their side held on to a draw.",
        "Despite the heat wave the tennis final went to five sets.",
        "The climbers ate cold beans on the wall and reached the top first.",
    ),
    "food": (
        "On cold, wet days nothing beats a thick bean stew with bread.",
        "The footballer shares his favourite recipe: rice with lime and grilled prawns.",
        "For two euros you get a bowl of dumplings with chilli sauce.",
        "Turn up the radio and knead the dough for ten minutes.",
        "Runners often eat pasta with tomato sauce the night before.",
        "The drummer now bakes rye loaves that sell out by nine.",
    ),
    "music": (
        "The boxer's daughter plays the cello in a string quartet.",
        "Rain on the tin roof gave him the rhythm for his new song.",
        "Over coffee and cake they listened to the pianist rehearse.",
        "Tickets cost ninety pounds, but the choir and the organ were superb.",
        "Between two matches the brass band played a march.",
        "The thunder in the symphony comes from four timpani.",
    ),
    "weather": (
        "The match was called off because snow kept falling all day.",
        "Farmers who grow wheat hope for showers this week, but the forecast is dry.",
        "The open-air concert ended early when lightning struck nearby and hail fell.",
        "Bring a coat to the barbecue: a cold wind and drizzle are expected.",
        "Heating bills aside, it has been the mildest January in years, with hardly a night of frost.",
        "The golfers looked up at dark clouds and the first drops of a storm.",
    ),
    "money": (
        "The striker signed a contract worth four million a year.",
        "Coffee beans now cost twice what they did, and the café has to borrow from its bank.",
        "After the storm the insurer paid out nine thousand euros.",
        "The guitarist lost his savings when the fund collapsed.",
        "The stadium was built on credit and the city is still paying interest.",
        "The bakery's owner refused the loan because the rate was too high.",
    ),
}
"""Six notes a topic that also name something of another topic."""

LABELS: Final = tuple(CLEAR)

SPELLINGS: Final = [["sports", "sport"], *LABELS[1:]]
"""What counts as naming each topic."""

SHOWN: Final = (
    ("The midfielder passed the ball and ran into the box.", "sports"),
    ("Stir the sauce and let the beans simmer.", "food"),
    ("The pianist played the last song twice.", "music"),
    ("Snow and strong wind are expected on Sunday.", "weather"),
    ("He put the dollars into his bank account.", "money"),
)
"""Worked examples, one a topic; none of them is asked."""

QUESTION: Final = "Note: {}\nTopic?"


def topics() -> list[Row]:
    """A hundred notes, twenty of each topic, every one after one worked example of each topic.

    A small model likes to give the label it saw last, so the examples start with another topic from note to note: each
    topic stands last equally often among the notes of each topic.
    """
    system = f"The topic of a note is one of: {', '.join(LABELS)}."
    strata: dict[str, list[Row]] = {}
    for label in LABELS:
        kinds = [("clear", note) for note in CLEAR[label]] + [("mixed", n) for n in MIXED[label]]
        for n, (kind, note) in enumerate(kinds):
            first = n % len(SHOWN)
            examples = SHOWN[first:] + SHOWN[:first]
            shown = [text for seen, topic in examples for text in (QUESTION.format(seen), topic)]
            row: Row = {
                "messages": chat(*shown, QUESTION.format(note), system=system),
                "target": label,
                "metadata": {"kind": kind},
            }
            strata.setdefault(f"{label} {kind}", []).append(row)
    return spread("topics", strata)


SETS: Final = (
    PromptFile(
        "topics",
        topics,
        ({"choice": {"labels": SPELLINGS}},),
        max_tokens=16,
        shows="a choice among five labels; what noise does when one token decides",
    ),
)
