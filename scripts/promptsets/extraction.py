"""Extraction: facts of a short text as a JSON object."""

from __future__ import annotations

import json
from typing import Any, Final

from promptsets.common import PromptFile, Row, chat, spread, table

PERSON: Final = """
name | age | job | city
example | Peter Novak is 40 years old, works as a carpenter and lives in Brno. | Peter Novak | 40 | carpenter | Brno
plain | Maria Lopez, 34, works as a nurse in Leeds. | Maria Lopez | 34 | nurse | Leeds
plain | Our neighbour Tom Baker is a plumber. He is 51 and lives in Cork. | Tom Baker | 51 | plumber | Cork
plain | Aisha Khan is a teacher from Oslo, and she is 28 years old. | Aisha Khan | 28 | teacher | Oslo
plain | In Lyon you can meet Paul Roux, a baker aged 62. | Paul Roux | 62 | baker | Lyon
plain | Say hello to Ingrid Dahl from Bergen! She is a pilot and 45 years old. | Ingrid Dahl | 45 | pilot | Bergen
plain | A dentist, 39 years old, living in Turin: that is Luca Conti. | Luca Conti | 39 | dentist | Turin
plain | Hana Sato lives in Osaka. She is 31 and earns her living as a gardener. | Hana Sato | 31 | gardener | Osaka
plain | The new lawyer in our office is Omar Haddad, 47, who lives in Tunis. | Omar Haddad | 47 | lawyer | Tunis
plain | Grace Owen, 58, is a farmer. Her home is in Cardiff. | Grace Owen | 58 | farmer | Cardiff
plain | My name is Jan Kowalski, I am 26, and I am a waiter in Krakow. | Jan Kowalski | 26 | waiter | Krakow
plain | Elena Popa, painter, 66 years old, lives in Sibiu. | Elena Popa | 66 | painter | Sibiu
plain | At 23, Kofi Mensah is the youngest engineer in Accra. | Kofi Mensah | 23 | engineer | Accra
plain | Ruth Becker has lived in Bonn all her life; she is 71 and still works as a tailor. | Ruth Becker | 71 | tailor | Bonn
distracting | Nina Berg, a chemist aged 36, lives in Malmo with her son Emil, who is 9. | Nina Berg | 36 | chemist | Malmo
distracting | Born in Porto, the cook Rui Alves now lives in Ghent. He is 44. | Rui Alves | 44 | cook | Ghent
distracting | After 12 years as a soldier, David Stone, 37, is a butcher in Derby. | David Stone | 37 | butcher | Derby
distracting | The postman in Galway is Sean Daly. He is 53 and has walked 20 kilometres a day since 1998. | Sean Daly | 53 | postman | Galway
missing | Amina Diallo is a doctor in Dakar. | Amina Diallo | - | doctor | Dakar
missing | Victor Lang is 29 years old and lives in Basel. | Victor Lang | 29 | - | Basel
missing | The singer Rosa Marin turned 42 last week. | Rosa Marin | 42 | singer | -
missing | A 55 year old fisherman from Split won the prize. | - | 55 | fisherman | Split
"""

EVENT: Final = """
event | day | time | place
example | The choir rehearsal is on Monday at 19:00 in the school hall. | choir rehearsal | Monday | 19:00 | school hall
plain | The book club meets on Tuesday at 18:30 in the library. | book club | Tuesday | 18:30 | library
plain | Join us for the flea market in the park, Saturday, 9:00. | flea market | Saturday | 9:00 | park
plain | On Friday at 20:15 the film night takes place in the town hall. | film night | Friday | 20:15 | town hall
plain | Yoga class: Wednesday, 7:45, studio two. | Yoga class | Wednesday | 7:45 | studio two
plain | Come to the museum on Sunday at 11:00 for the guided tour. | guided tour | Sunday | 11:00 | museum
plain | There is a staff meeting in the canteen this Thursday at 14:30. | staff meeting | Thursday | 14:30 | canteen
plain | The chess evening starts on Monday at 19:30 in the village pub. | chess evening | Monday | 19:30 | village pub
plain | Bring your own cup to the tea tasting on Friday, 16:00, garden house. | tea tasting | Friday | 16:00 | garden house
plain | Our football training is at the north field every Tuesday at 17:15. | football training | Tuesday | 17:15 | north field
plain | At 10:30 on Saturday the puppet show begins in the barn. | puppet show | Saturday | 10:30 | barn
plain | The language course takes place in room 12 on Wednesday at 18:00. | language course | Wednesday | 18:00 | room 12
plain | You are invited to the summer party in the church yard on Sunday at 15:00. | summer party | Sunday | 15:00 | church yard
plain | Swimming lesson, Thursday, 8:20, indoor pool. | Swimming lesson | Thursday | 8:20 | indoor pool
distracting | The board meeting was moved from Monday to Thursday, at 13:00, in the blue room. | board meeting | Thursday | 13:00 | blue room
distracting | The jazz concert on Friday in the cellar starts at 21:00; doors open at 20:00. | jazz concert | Friday | 21:00 | cellar
distracting | Saturday, 12:00: the cooking class, this time in the old mill and not in the school kitchen. | cooking class | Saturday | 12:00 | old mill
distracting | The parents evening is on Tuesday at 19:15 in the gym. Please answer by Sunday. | parents evening | Tuesday | 19:15 | gym
missing | The dance workshop is on Wednesday in the culture centre. | dance workshop | Wednesday | - | culture centre
missing | Band practice begins at 18:45 in the garage. | Band practice | - | 18:45 | garage
missing | Next Monday at 12:30 we hold the fire drill. | fire drill | Monday | 12:30 | -
missing | Be at the harbour on Sunday at 6:00! | - | Sunday | 6:00 | harbour
"""

OFFER: Final = """
item | colour | price | shop
example | The yellow umbrella costs 18 euros at Rainbow House. | umbrella | yellow | 18 | Rainbow House
plain | Miller and Sons sells a green kettle for 35 euros. | kettle | green | 35 | Miller and Sons
plain | A red lamp is 24 euros at Light Corner. | lamp | red | 24 | Light Corner
plain | At Blue Door you find a white chair for 79 euros. | chair | white | 79 | Blue Door
plain | For only 12 euros, Nordic Wool offers a grey scarf. | scarf | grey | 12 | Nordic Wool
plain | Take home a black backpack from Summit Store, price: 64 euros. | backpack | black | 64 | Summit Store
plain | The brown belt at Leather Lane costs 27 euros. | belt | brown | 27 | Leather Lane
plain | Wheel World has a purple bicycle on offer for 310 euros. | bicycle | purple | 310 | Wheel World
plain | Our pick today: an orange blanket, 45 euros, from Cosy Home. | blanket | orange | 45 | Cosy Home
plain | You pay 8 euros for a pink mug at Clay Studio. | mug | pink | 8 | Clay Studio
plain | Tom's Toys sells its blue kite for 15 euros. | kite | blue | 15 | Tom's Toys
plain | A silver watch for 120 euros: only at Time and Tide. | watch | silver | 120 | Time and Tide
plain | Step into Sole Mates and buy green boots for 95 euros. | boots | green | 95 | Sole Mates
plain | The white desk from Plain Wood costs 240 euros. | desk | white | 240 | Plain Wood
distracting | The red jacket at Peak Sports was 150 euros and is now 99. | jacket | red | 99 | Peak Sports
distracting | Home Base has a black sofa for 480 euros; the delivery takes 14 days. | sofa | black | 480 | Home Base
distracting | I saw the yellow tent at Camp Ten for 210 euros, cheaper than at River Gear. | tent | yellow | 210 | Camp Ten
distracting | This blue teapot, 31 euros at Leaf and Cup, keeps a litre warm for 2 hours. | teapot | blue | 31 | Leaf and Cup
missing | The pink radio is sold at Sound Garden. | radio | pink | - | Sound Garden
missing | A suitcase costs 130 euros at Far Away. | suitcase | - | 130 | Far Away
missing | Get your brown hat for 22 euros. | hat | brown | 22 | -
missing | Something orange for 5 euros waits for you at Penny Palace. | - | orange | 5 | Penny Palace
"""

TRAIN: Final = """
train | from | to | departure
example | Train 208 from Lille to Paris leaves at 7:10. | 208 | Lille | Paris | 7:10
plain | Train 714 leaves Graz for Vienna at 9:15. | 714 | Graz | Vienna | 9:15
plain | At 12:40 train 55 departs from Lucerne to Zurich. | 55 | Lucerne | Zurich | 12:40
plain | To get from Leeds to York, take train 310 at 16:05. | 310 | Leeds | York | 16:05
plain | Train 92 runs from Bari to Naples and departs at 6:30. | 92 | Bari | Naples | 6:30
plain | The 21:55 to Hamburg is train 1408 from Bremen. | 1408 | Bremen | Hamburg | 21:55
plain | Please board train 77 from Ghent to Bruges, departure 18:20. | 77 | Ghent | Bruges | 18:20
plain | Our train is number 463; it leaves Porto at 10:00 and goes to Lisbon. | 463 | Porto | Lisbon | 10:00
plain | From Odense, train 119 goes to Aarhus at 13:35. | 119 | Odense | Aarhus | 13:35
plain | Attention: train 846 to Prague leaves Pilsen at 17:45. | 846 | Pilsen | Prague | 17:45
plain | Train 31 will take you from Cork to Dublin; it departs at 8:25. | 31 | Cork | Dublin | 8:25
plain | She takes train 602 at 5:50, from Lund to Malmo. | 602 | Lund | Malmo | 5:50
plain | Departure 14:10, train 275, Toledo to Madrid. | 275 | Toledo | Madrid | 14:10
plain | We travel to Krakow on train 980, leaving Lublin at 11:20. | 980 | Lublin | Krakow | 11:20
distracting | Train 512 from Nantes to Tours leaves at 15:30 and arrives at 17:05. | 512 | Nantes | Tours | 15:30
distracting | Train 66 replaces train 64: from Bonn to Mainz at 19:40. | 66 | Bonn | Mainz | 19:40
distracting | On its way from Turin to Rome, train 333, departure 8:00, stops in Pisa. | 333 | Turin | Rome | 8:00
distracting | Train 129 from Sligo to Dublin is late: it leaves at 10:45 and not at 10:15. | 129 | Sligo | Dublin | 10:45
missing | The train from Basel to Bern leaves at 22:05. | - | Basel | Bern | 22:05
missing | Train 18 leaves for Tartu at 9:50. | 18 | - | Tartu | 9:50
missing | Train 451 leaves Seville at 13:00. | 451 | Seville | - | 13:00
missing | Train 207 runs from Trento to Verona every day. | 207 | Trento | Verona | -
"""

FAMILIES: Final = {"person": PERSON, "event": EVENT, "offer": OFFER, "train": TRAIN}
"""Of each family the keys, then a text with its values a line. The example is shown before every text of its family, "-"
stands for what a text leaves out, and a distracting text has another name, number, day or place that must not be taken."""

NUMBERS: Final = frozenset(("age", "price", "train"))
"""Keys whose values are numbers; the other values are copied from the text."""

QUESTION: Final = "Write a JSON object with the keys {keys}. Use null for what the text does not say.\nText: {text}"


def facts(keys: list[str], cells: list[str]) -> dict[str, Any]:
    """The object a text is to become."""
    given = zip(keys, cells, strict=True)
    return {k: None if v == "-" else int(v) if k in NUMBERS else v for k, v in given}


def extraction() -> list[Row]:
    """Eighty-four texts of four families, each after one worked example of its family."""
    strata: dict[str, list[Row]] = {}
    for family, text in FAMILIES.items():
        keys, (_, example, *values), *rest = table(text)
        quoted = ", ".join(f'"{key}"' for key in keys)
        shown = (QUESTION.format(keys=quoted, text=example), json.dumps(facts(keys, values)))
        for kind, told, *cells in rest:
            row: Row = {
                "messages": chat(*shown, QUESTION.format(keys=quoted, text=told)),
                "target": facts(keys, cells),
                "metadata": {"family": family, "kind": kind},
            }
            strata.setdefault(f"{family} {kind}", []).append(row)
    return spread("extraction", strata)


SETS: Final = (
    PromptFile(
        "extraction",
        extraction,
        ({"json": {"partial": True, "ignore_case": True}},),
        max_tokens=64,
        shows="valid JSON and copied facts; a long answer that one wrong token can break",
    ),
)
