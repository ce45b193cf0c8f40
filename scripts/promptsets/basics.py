"""Three short sets: one-step sums, capitals, and the sentiment of a review."""

from __future__ import annotations

from typing import Final

from promptsets.common import PromptFile, Row, shuffled, spread, stream, table

EXAMPLE: Final = (3, 4)
"""The sum every arithmetic prompt shows worked out, and none asks for."""

TEENS: Final = 35
"""Sums of a number from 10 to 19 and a digit in the arithmetic set, beside the 44 sums of two digits."""

# Capitals that are in dispute, moving, shared by two cities, the same word as their country, or shorter than five letters
# (`contains` would find those inside other words) are left out on purpose.
CAPITALS: Final[dict[str, dict[str, str | list[str]]]] = {
    "Africa": {
        "Algeria": "Algiers",
        "Angola": "Luanda",
        "Botswana": "Gaborone",
        "Burkina Faso": ["Ouagadougou", "Wagadugu"],
        "Cameroon": ["Yaoundé", "Yaounde"],
        "Chad": ["N'Djamena", "Ndjamena", "N'Djaména"],
        "Eritrea": ["Asmara", "Asmera"],
        "Ethiopia": ["Addis Ababa", "Addis Abeba", "Addis-Ababa"],
        "Gabon": "Libreville",
        "Ghana": "Accra",
        "Guinea": ["Conakry", "Konakry"],
        "Kenya": "Nairobi",
        "Liberia": "Monrovia",
        "Madagascar": ["Antananarivo", "Tananarive"],
        "Malawi": "Lilongwe",
        "Mali": "Bamako",
        "Morocco": "Rabat",
        "Mozambique": "Maputo",
        "Namibia": "Windhoek",
        "Niger": "Niamey",
        "Nigeria": "Abuja",
        "Rwanda": "Kigali",
        "Senegal": "Dakar",
        "Sierra Leone": "Freetown",
        "Somalia": ["Mogadishu", "Mogadiscio", "Muqdisho"],
        "Uganda": "Kampala",
        "Zambia": "Lusaka",
        "Zimbabwe": "Harare",
    },
    "Americas": {
        "Argentina": ["Buenos Aires", "Buenos-Aires"],
        "Barbados": "Bridgetown",
        "Brazil": ["Brasília", "Brasilia"],
        "Canada": "Ottawa",
        "Chile": "Santiago",
        "Colombia": ["Bogotá", "Bogota"],
        "Costa Rica": ["San José", "San Jose"],
        "Cuba": ["Havana", "Habana"],
        "Ecuador": "Quito",
        "Guyana": "Georgetown",
        "Haiti": ["Port-au-Prince", "Port au Prince"],
        "Jamaica": "Kingston",
        "Nicaragua": "Managua",
        "Paraguay": ["Asunción", "Asuncion"],
        "Suriname": "Paramaribo",
        "Uruguay": "Montevideo",
        "Venezuela": "Caracas",
    },
    "Asia and Oceania": {
        "Afghanistan": ["Kabul", "Kaboul"],
        "Australia": "Canberra",
        "Bangladesh": ["Dhaka", "Dacca"],
        "Bhutan": ["Thimphu", "Thimbu", "Thimpu"],
        "Cambodia": ["Phnom Penh", "Phnom-Penh", "Pnom Penh"],
        "China": ["Beijing", "Peking"],
        "India": ["New Delhi", "New-Delhi"],
        "Iran": ["Tehran", "Teheran"],
        "Iraq": ["Baghdad", "Bagdad"],
        "Japan": "Tokyo",
        "Jordan": "Amman",
        "Laos": ["Vientiane", "Viangchan"],
        "Lebanon": ["Beirut", "Beyrouth"],
        "Mongolia": ["Ulaanbaatar", "Ulaan Baatar", "Ulan Bator", "Ulan-Bator", "Ulanbator"],
        "Nepal": ["Kathmandu", "Katmandu", "Khatmandu"],
        "New Zealand": "Wellington",
        "North Korea": ["Pyongyang", "P'yongyang", "Pyong Yang"],
        "Pakistan": "Islamabad",
        "Papua New Guinea": ["Port Moresby", "Port-Moresby"],
        "Saudi Arabia": ["Riyadh", "Ar-Riyadh", "Riyad"],
        "South Korea": "Seoul",
        "Syria": "Damascus",
        "Tajikistan": ["Dushanbe", "Dushambe"],
        "Thailand": "Bangkok",
        "Turkey": "Ankara",
        "Uzbekistan": ["Tashkent", "Toshkent"],
        "Vietnam": ["Hanoi", "Ha Noi", "Hà Nội", "Hanoï"],
    },
    "Europe": {
        "Albania": ["Tirana", "Tiranë"],
        "Austria": "Vienna",
        "Belarus": "Minsk",
        "Belgium": ["Brussels", "Bruxelles", "Brussel"],
        "Bulgaria": ["Sofia", "Sofija", "Sofiya"],
        "Croatia": "Zagreb",
        "Denmark": ["Copenhagen", "København"],
        "Estonia": "Tallinn",
        "Finland": "Helsinki",
        "France": "Paris",
        "Germany": "Berlin",
        "Greece": ["Athens", "Athina"],
        "Hungary": "Budapest",
        "Iceland": ["Reykjavik", "Reykjavík"],
        "Ireland": "Dublin",
        "Lithuania": "Vilnius",
        "Malta": ["Valletta", "Valetta"],
        "Poland": ["Warsaw", "Warszawa"],
        "Portugal": ["Lisbon", "Lisboa"],
        "Romania": ["Bucharest", "București", "Bucuresti"],
        "Russia": ["Moscow", "Moskva"],
        "Serbia": ["Belgrade", "Beograd"],
        "Slovakia": "Bratislava",
        "Slovenia": "Ljubljana",
        "Spain": "Madrid",
        "Sweden": "Stockholm",
    },
}

REVIEWS: Final = """
The soup was hot, rich and full of flavour. | The soup was cold and tasted of nothing.
Our guide was kind and knew every street by heart. | Our guide was rude and kept looking at his phone.
I slept better in this bed than I have in years. | The bed was so hard that I could not sleep at all.
The new phone is fast and the battery lasts two days. | The new phone is slow and the battery dies by noon.
What a wonderful film, I laughed from start to finish. | What a boring film, I almost fell asleep.
The staff greeted us with a smile and found us a table at once. | The waiter ignored us for an hour and then got the order wrong.
My daughter loves these shoes and wears them every day. | These shoes fell apart after two days.
The garden is beautiful and a joy to walk through. | The garden is dirty and full of rubbish.
Delivery was quick and everything arrived in perfect shape. | The parcel came three weeks late and everything was broken.
This is the best bread I have ever tasted. | This is the worst bread I have ever tasted.
The teacher explained it so well that everyone understood. | The teacher was confusing and nobody understood a word.
I would happily come back to this hotel every summer. | I will never stay at this hotel again.
The concert was thrilling and the crowd sang along. | The concert was a disaster and the sound was terrible.
Great value for the price, I am very pleased. | A complete waste of money, I am very disappointed.
The repair took ten minutes and the car runs like new. | The repair cost a fortune and the car still does not start.
A charming little book that made me smile. | A dull book with flat characters and no plot.
The view from our room was breathtaking. | The room was dark and smelled of smoke.
Customer support solved my problem in one friendly call. | Customer support hung up on me twice.
The coffee here is excellent and the cakes are even better. | The coffee was bitter and the cake was stale.
We had a lovely evening and felt very welcome. | We had an awful evening and left early.
This jacket is warm, light and fits me perfectly. | This jacket is thin, ugly and far too small.
The doctor listened carefully and put me at ease. | The doctor was impatient and did not listen to me.
I am delighted with the colour, it brightens the whole room. | I hate the colour, it makes the whole room gloomy.
The app is simple to use and saves me an hour a week. | The app crashes every time I open it.
Fresh vegetables, fair prices and cheerful people. | Rotten vegetables, high prices and unfriendly people.
The ending was so moving that I cried happy tears. | The ending was stupid and ruined the whole story.
My old laptop feels brand new after this upgrade. | My laptop became useless after this update.
The children had so much fun that they did not want to leave. | The children were bored and begged us to go home.
A quiet, clean and comfortable train ride. | A noisy, filthy and crowded train ride.
The museum was fascinating and worth every penny. | The museum was dull and far too expensive.
I never had a single problem with this washing machine. | This washing machine has given me nothing but trouble.
Nothing could have made our wedding day better. | Nothing about our stay was pleasant.
I expected little, but the play turned out to be superb. | I expected a lot, but the play turned out to be dreadful.
The queue was long, yet the ride was absolutely worth it. | The queue was long and the ride was not worth it.
You will not regret buying this lamp. | You will regret buying this lamp.
I cannot praise this bakery enough. | I cannot recommend this bakery to anyone.
It rained all week and we still had a marvellous holiday. | The sun shone all week and our holiday was still miserable.
The box looks plain, but the chocolates inside are divine. | The box looks pretty, but the chocolates inside are disgusting.
I was nervous at first, but the dentist was gentle and quick. | The dentist was rough and it hurt for days.
There is nothing I would change about this bike. | I wish I had never bought this bike.
"""
"""A positive review and its negative counterpart, about the same thing or in the same form; each two are one group."""


def _sum(kind: str, first: int, second: int) -> Row:
    """One sum, after one worked example that shows the model how to answer."""
    a, b = EXAMPLE
    return {
        "messages": [
            {"role": "user", "content": f"What is {a} + {b}?"},
            {"role": "assistant", "content": f"{a} + {b} = {a + b}"},
            {"role": "user", "content": f"What is {first} + {second}?"},
        ],
        "target": first + second,
        "metadata": {"kind": kind},
    }


def arithmetic() -> list[Row]:
    """Sums of two numbers; no two rows add the same numbers in another order, and none is the worked example."""
    rng = stream("arithmetic draws")
    digits = [(a, b) for a in range(1, 10) for b in range(a, 10) if (a, b) != EXAMPLE]
    teens = shuffled(rng, [(a, b) for a in range(10, 20) for b in range(1, 10)])[:TEENS]
    return spread(
        "arithmetic",
        {
            kind: [_sum(kind, *shuffled(rng, pair)) for pair in pairs]
            for kind, pairs in (("digits", digits), ("teens", teens))
        },
    )


def capitals() -> list[Row]:
    """Capital cities; a list target holds every accepted spelling."""
    return spread(
        "capitals",
        {
            region: [
                {
                    "prompt": f"What is the capital of {country}?",
                    "target": capital,
                    "metadata": {"region": region},
                }
                for country, capital in listed.items()
            ]
            for region, listed in CAPITALS.items()
        },
    )


def sentiment() -> list[Row]:
    """Short opinions to be called positive or negative, as many of the one as of the other."""
    question = 'Is this review positive or negative? "{}" Answer with one word.'
    strata: dict[str, list[Row]] = {"positive": [], "negative": []}
    for n, texts in enumerate(table(REVIEWS), 1):
        for (label, rows), text in zip(strata.items(), texts, strict=True):
            row: Row = {"prompt": question.format(text), "target": label}
            rows.append(row | {"group": f"pair-{n:02d}"})
    return spread("sentiment", strata)


SETS: Final = (
    PromptFile(
        "arithmetic",
        arithmetic,
        ({"numeric": {"pick": "equation"}},),
        max_tokens=24,
        shows="one right answer and a short way to it: noise in the decoding costs accuracy",
    ),
    PromptFile(
        "capitals",
        capitals,
        ({"contains": {"settled": True}},),
        max_tokens=24,
        shows="recall of facts: a less likely token is a wrong city",
    ),
    PromptFile(
        "sentiment",
        sentiment,
        ({"choice": {"labels": ["positive", "negative"]}},),
        max_tokens=24,
        shows="a judgement with two possible answers, given in a sentence",
    ),
)
