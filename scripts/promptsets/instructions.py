"""Instructions that a program can check: length, words, form, case; several in every prompt."""

from __future__ import annotations

import re
from typing import Any, Final

from promptsets.common import PromptFile, Row, spread, table

TASKS: Final = """
length | min_words=5; max_words=9; include=wet | Describe a rainy street in 5 to 9 words, one of them "wet". | Grey light, wet stones and hurried steps under umbrellas.
length | exact_sentences=2; min_words=12; include=river | Explain what a bridge is for in exactly 2 sentences of at least 12 words in all, one of them "river". | A bridge carries people over a river or a valley. It saves them a long way round.
length | exact_words=3; word_count=red:1 | Name three colours, one of them "red". Write exactly 3 words, "red" only once. | Red green blue
length | min_sentences=3; max_sentences=4; include=sea,tent | Write 3 or 4 sentences about a holiday. Use the words "sea" and "tent". | We drove south for two days. Our tent stood close to the sea. Every night we heard the waves.
length | min_characters=20; max_characters=60; ends_with=? | Ask a friend about the weekend in 20 to 60 characters, with a question mark at the end. | What are you doing this weekend?
length | exact_paragraphs=2; min_words=15; include=flour,oven | Write 2 paragraphs about bread, with a blank line between them. Use at least 15 words, among them "flour" and "oven". | Bread is made of flour, water, salt and yeast.////It is baked in a hot oven and eaten all over the world.
length | exact_sentences=1; min_words=10; include=loyal | In exactly 1 sentence of at least 10 words, say why people keep dogs. Use the word "loyal". | People keep dogs because they are loyal, like company and guard the house.
length | exact_lines=4; min_words=12; include=moon | Write a short poem about the moon: exactly 4 lines, at least 12 words, one of them "moon". | The moon looks down//On field and town,//It lights the sea//And smiles at me.
length | exact_words=1; lower_case; one_of=water,milk | What do cows drink? Answer in lower case with exactly 1 word, water or milk. | water
length | exact_sentences=2; include=because,winter | Say in exactly 2 sentences why birds fly south, with the words "because" and "winter". | They fly south because there is little food. In winter the lakes freeze.
length | exact_sentences=3; include=seven; ends_with=. | Tell me about the days of the week in exactly 3 sentences. Use the word "seven" and end with a full stop. | A week has seven days. Five of them are for work. Two of them are free.
length | min_words=20; max_words=40; include=chilli | Describe your favourite meal in 20 to 40 words, one of them "chilli". | My favourite meal is a bowl of warm noodles with vegetables, a little chilli and an egg on top, eaten slowly on a cold evening.
length | min_words=6; max_words=10; include=flame; ends_with=. | Describe a candle in 6 to 10 words. Use the word "flame" and end with a full stop. | The small flame gives a warm and quiet light.
length | exact_words=5; starts_with=My; include=drums | Write about your neighbour in exactly 5 words. The first word is "My", and "drums" is another one. | My neighbour plays the drums
length | min_characters=30; max_characters=60; include=snow | Write between 30 and 60 characters about a high mountain in June. Use the word "snow". | High on the mountain the snow stays until June.
length | exact_lines=2; min_words=8; include=wishes | Write exactly 2 lines for a birthday card, at least 8 words in all, with the word "wishes" among them. | Happy birthday to you,//may all your wishes come true!
words | include=wind,tree; exact_sentences=1; min_words=6 | Write a sentence of at least 6 words about a storm. Use the words "wind" and "tree". | The wind shook the old tree all night.
words | forbid=good,nice; include=soup; exact_sentences=2 | Praise a cook in exactly 2 sentences. Use the word "soup". Do not use the words "good" and "nice". | Your soup was wonderful. I would love another bowl.
words | word_count=tea:3; min_words=8; ends_with=bed. | Write a short text of at least 8 words that has the word "tea" exactly 3 times. Its end must be "bed." | I drink tea at noon, tea at four, and tea before bed.
words | starts_with=Dear Sam; ends_with=Yours, Kim; min_words=12 | Write a note of at least 12 words. Begin with "Dear Sam" and end with "Yours, Kim". | Dear Sam, thank you for the flowers, they look lovely on my desk. Yours, Kim
words | include=first,then,finally; exact_sentences=3 | Explain in exactly 3 sentences how to make a sandwich, with the words "first", "then" and "finally". | First butter the bread. Then add cheese and tomato. Finally close it and cut it in half.
words | include=ocean,waves; forbid=blue,sky; min_words=8 | Describe the ocean in at least 8 words. Use the words "ocean" and "waves", but not "blue" or "sky". | The ocean is wide, salty and restless, and its waves never stop.
words | starts_with=Once; include=fox,river; exact_sentences=2 | Tell a story in exactly 2 sentences about a fox and a river. The first word must be "Once". | Once a fox wanted to cross a river. He asked a heron for help, and the heron showed him the stones.
words | include=cat; letter_count=s:0; min_words=6 | Write at least 6 words about a cat without using the letter s. | The black cat napped in bed all day.
words | ends_with=the end.; exact_sentences=3; include=king | Tell a tale about a king in exactly 3 sentences. The last words must be "the end." in lower case. | A king lost his crown. A child found it in the garden. The king was happy, and that is the end.
words | word_count=no:2; include=yes; min_words=6 | Write at least 6 words about rain. Use "no" exactly 2 times and "yes" at least once. | No, no more rain please, but yes to a little snow.
words | include=Monday,Friday; forbid=Sunday; min_words=8 | Write at least 8 words about a working week with "Monday" and "Friday", but without "Sunday". | From Monday to Friday I go to work by bus.
words | starts_with=Yes; include=sugar; min_words=6 | Is honey sweet? Begin with "Yes", use the word "sugar" and write at least 6 words. | Yes, honey is sweet because it is mostly sugar.
words | include=bread; forbid=butter; exact_sentences=2 | Write exactly 2 sentences about breakfast. Use the word "bread", but never "butter". | I eat bread and jam. Then I drink a cup of tea.
words | word_count=very:2; word_count=night:1 | Say that it was cold outside. Use the word "very" exactly 2 times and the word "night" exactly once. | The night was very, very cold.
words | starts_with=If; include=then,book; exact_sentences=1 | Give advice for a rainy day in exactly 1 sentence. Begin with "If" and use the words "then" and "book". | If it rains, then stay at home with a good book.
words | letter_count=k:3; include=lake; min_words=5 | Write at least 5 words about birds near a lake. The letter k occurs exactly 3 times. | The ducks and drakes cross the lake
form | exact_bullets=3 marker=-; include=towel | List three things to take to the beach as 3 bullet points that begin with "- ". One of them is "towel". | - towel//- hat//- water
form | numbered_list=4; include=soap; max_words=30 | Give 4 steps for washing your hands as a list numbered from 1 to 4. Use the word "soap" and at most 30 words, numbers included. | 1. Wet your hands.//2. Use soap.//3. Rub for twenty seconds.//4. Rinse and dry.
form | json=name,age; include=Ida | Invent a person named Ida. Answer only with a JSON object with the keys "name" and "age". | {"name": "Ida", "age": 30}
form | csv=fruit,price rows=3; include=plum | Answer only with CSV: a header with the columns fruit and price, and 3 rows below it. One of the fruits is "plum". | fruit,price//apple,2//pear,3//plum,1
form | quoted; exact_words=5; include=race | Invent a motto of exactly 5 words with the word "race". Put the whole answer in double quotation marks. | "Slow legs win the race"
form | wrapped_title first; exact_lines=2; include=roofs | Write 2 lines: first nothing but a title in double angle brackets, like <<title>>, and below it a sentence about snow with the word "roofs". | <<Snow>>//It falls softly on the roofs.
form | postscript last; starts_with=Hello; min_words=10 | Write a greeting card of at least 10 words. Begin with "Hello". The last line is a postscript that begins with "P.S." | Hello Max, all the best for your birthday and a great year.//P.S. The cake is in the fridge.
form | bold_words=2; include=lake | Write about summer and put exactly 2 words in **bold**. Use the word "lake", bold or not. | In **summer** we like to **swim** in the lake.
form | exact_sections=2 marker=#; include=cats,dogs | Write about cats and dogs in 2 sections. Each begins with a heading line that starts with "# ". | # Cats//Cats sleep a lot.//# Dogs//Dogs like to play.
form | exact_bullets=4 marker=-; lower_case; include=pig | Name 4 animals of the farm as bullet points that begin with "- ". Use lower case only. One of them is a pig. | - cow//- pig//- hen//- sheep
form | json=city,country,river; lower_case | Answer only with a JSON object with the keys "city", "country" and "river" for a city you know. Use lower case only. | {"city": "vienna", "country": "austria", "river": "danube"}
form | exact_placeholders=2; include=party; starts_with=Dear | Write an invitation to a party with 2 placeholders in square brackets, such as [name]. Begin with "Dear". | Dear [name], please come to our party on [date]. We look forward to seeing you.
form | exact_bullets=2 marker=-; exact_lines=2; include=quiet | Give exactly 2 rules for a library as bullet points that begin with "- ". Write nothing else, so 2 lines. Use the word "quiet". | - Be quiet.//- Bring the books back.
form | numbered_list=3; exact_lines=3; include=Mars | Name 3 planets as a list numbered from 1 to 3, on 3 lines. One of them is Mars. | 1. Mars//2. Venus//3. Saturn
form | json=colour; include=green | Answer only with a JSON object with the key "colour" for the colour green. | {"colour": "green"}
form | exact_placeholders=1; starts_with=Thank you; include=evening | Write a sentence of thanks for an evening, with 1 placeholder in square brackets for the name, such as [name]. Begin with "Thank you". | Thank you for the lovely evening, [name].
case | upper_case; include=door; min_words=4 | Write a warning about a door in at least 4 words. Use capital letters only, and the word "door". | PLEASE DO NOT OPEN THIS DOOR
case | lower_case; exact_sentences=2; include=roof | Write exactly 2 sentences about rain. Use lower case letters only, and the word "roof". | the rain falls on the roof. i like the sound of it.
case | title_case; include=summit; min_words=4 | Give a book about mountains a title of at least 4 words with the word "summit". Begin every important word with a capital letter. | The Long Road to the Summit
case | capital_words=2; min_words=8; include=cream | Write at least 8 words about ice cream and put exactly 2 of your words in capital letters. | We LOVE ice cream and eat it EVERY day in summer.
case | lower_case; no_commas; include=salt,onions | Say in lower case and without commas what you put into a soup. Use the words "salt" and "onions". | i put carrots and onions and a little salt into a soup.
case | upper_case; exact_words=2; word_count=Madrid:1 | Name a city in France and the city Madrid. Exactly 2 words, "Madrid" once, in capital letters only. | PARIS MADRID
case | no_commas; min_words=15; include=fruit,fish | Describe a market in at least 15 words without any comma, with fruit and fish. | The market is full of people who talk and laugh while they buy fruit and bread and fish.
case | no_digits; min_words=6; include=six | When do you get up? Answer in at least 6 words without digits. Use the word "six". | I get up at half past six in the morning.
case | one_of=yes,no,maybe; lower_case | Will it rain tomorrow? Answer with nothing but yes, no or maybe, in lower case. | maybe
case | letter_count=e:0; include=dog; min_words=4 | Write at least 4 words, one of them "dog", without the letter e. | A big brown dog
case | title_case every; exact_words=2; include=morning | Invent a name for a café: exactly 2 words, both beginning with a capital letter, and one of them "morning". | Morning Star
case | upper_case; ends_with=!; min_words=4 | Cheer for a team in at least 4 words. Use capital letters only and end with an exclamation mark. | GO TEAM, GO, WE BELIEVE!
case | lower_case; exact_words=4; include=sleep | Write a wish for the night in exactly 4 words, in lower case, one of them "sleep". | good night, sleep well
case | upper_case; include=slow,children | Write a road sign in capital letters with the words "slow" and "children". | SLOW DOWN, CHILDREN PLAYING
case | no_digits; starts_with=A year; include=twelve | How many months has a year? Begin with "A year", use the word "twelve" and no digits. | A year has twelve months.
case | one_of=red,blue,green; lower_case | Choose red, blue or green. Answer with nothing but the colour, in lower case. | green
mixed | exact_sentences=2; include=coffee; ends_with=! | Advertise a café in exactly 2 sentences. Use the word "coffee" and end with an exclamation mark. | Our coffee is fresh every morning. Come in and try it!
mixed | numbered_list=3; include=milk,eggs; lower_case | Write a shopping list with exactly 3 items, numbered from 1 to 3. Two of them are "milk" and "eggs". Lower case only. | 1. milk//2. eggs//3. flour
mixed | json=title,year; include=garden,1999 | Answer only with a JSON object with the keys "title" and "year" for an invented film of 1999. The title has the word "garden". | {"title": "The Quiet Garden", "year": 1999}
mixed | starts_with=Attention any_case; upper_case; include=train | Write an announcement about a train. The first word is "Attention", and all letters are capitals. | ATTENTION: THE TRAIN TO LYON IS LATE TODAY
mixed | exact_paragraphs=2; include=winter,summer; no_digits | Write 2 paragraphs with a blank line between them, one about winter and one about summer. Name both seasons. No digits. | In winter the lake is frozen.////In summer we swim in it.
mixed | exact_bullets=2 marker=-; include=words; ends_with=Thanks | Give 2 reasons to read as bullet points that begin with "- ". Use the word "words". End the answer with "Thanks". | - You learn new words.//- You relax.//Thanks
mixed | quoted; include=river; forbid=water; min_words=6 | Write a sentence of at least 6 words about a river in double quotation marks. Use "river", do not use "water". | "The river winds through the valley like a silver ribbon."
mixed | exact_sentences=3; starts_with=Today; include=bus | Describe your day in exactly 3 sentences. Begin with "Today". Use the word "bus". | Today I got up late. I missed the bus. My boss laughed.
mixed | word_count=cat:2; lower_case; min_words=8 | In lower case and at least 8 words, write about a cat. The word "cat" occurs exactly 2 times. | my cat sleeps all day, and no other cat may come near.
mixed | repeat_prompt=What is a lake?; include=water; exact_sentences=2 | First repeat this question word for word: What is a lake? Then answer it with the word "water", so that you write exactly 2 sentences. | What is a lake? A lake is a large body of still water.
mixed | postscript last; include=parcel,hall | Write a message about a parcel in the hall. The last line is a postscript that begins with "P.S." | Your parcel came this morning and is in the hall.//P.S. It is quite heavy.
mixed | exact_lines=3; include=night,owls; no_commas | Write a verse about the night on exactly 3 lines, without commas. Use the words "night" and "owls". | The night is still//The owls take wing//The stars look on
mixed | exact_words=6; include=train; starts_with=The | Write exactly 6 words with the word "train" among them. The first word is "The". | The night train leaves at ten
mixed | starts_with=No; exact_sentences=2; include=stone | Can you eat a stone? Begin with "No", use the word "stone" and write exactly 2 sentences. | No, you cannot. A stone has no food in it.
mixed | exact_bullets=3 marker=-; include=soap; forbid=towel | Name 3 things in a bathroom as bullet points that begin with "- ". One of them is "soap". Do not use the word "towel". | - soap//- a cup//- a mirror
mixed | min_characters=20; lower_case; ends_with=? | Ask for the way to the station in at least 20 characters, in lower case, with a question mark at the end. | how do i get to the station?
"""
"""Kind, checks, prompt, and an answer that meets them; "//" stands for a line break in the answer."""

LISTS: Final = {
    "include": "words",
    "forbid": "words",
    "one_of": "options",
    "json": "keys",
    "csv": "columns",
}
TEXTS: Final = ("starts_with", "ends_with", "repeat_prompt")
FLAGS: Final = ("first", "last", "every")
"""What may stand behind a check with a space between, beside ``marker=-`` and ``rows=3``."""


def check(text: str) -> dict[str, Any]:
    """A check written ``name``, ``name=3``, ``name=a,b`` or ``name=word:3``, with more behind it, as a target has it.

    Texts at the beginning and end count as they are written, unless ``any_case`` stands behind them.
    """
    text, any_case = text.removesuffix(" any_case"), text.endswith(" any_case")
    text, *more = re.split(rf" (?=marker=|rows=|(?:{'|'.join(FLAGS)})$)", text)
    name, _, value = text.partition("=")
    made: dict[str, Any] = {"check": name}
    if name in LISTS:
        made[LISTS[name]] = value.split(",")
    elif name in TEXTS:
        made["text"] = value
        if name != "repeat_prompt" and any(map(str.isalpha, value)) and not any_case:
            made["match_case"] = True
    elif name in ("word_count", "letter_count"):
        word, _, n = value.partition(":")
        made |= {"word" if name == "word_count" else "letter": word, "n": int(n)}
    elif value:
        made["n"] = int(value)
    for part in more:
        key, _, given = part.partition("=")
        made[key] = True if key in FLAGS else int(given) if key == "rows" else given
    return made


def tasks() -> list[tuple[Row, str]]:
    """Rows with the answer that meets all of a row's checks."""
    made = []
    for kind, checks, prompt, answer in table(TASKS):
        found = [check(part.strip()) for part in checks.split(";")]
        row = {"prompt": prompt, "target": {"instructions": found}, "metadata": {"kind": kind}}
        made.append((row, answer.replace("//", "\n")))
    return made


def instructions() -> list[Row]:
    """Eighty prompts with two to four instructions each, sixteen of each kind."""
    strata: dict[str, list[Row]] = {}
    for row, _ in tasks():
        strata.setdefault(row["metadata"]["kind"], []).append(row)
    return spread("instructions", strata)


SETS: Final = (
    PromptFile(
        "instructions",
        instructions,
        ("instruction",),
        max_tokens=96,
        shows="rules about length, words, form and case; each counts on its own",
    ),
)
