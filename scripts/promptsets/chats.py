"""Conversations whose last question can only be answered from earlier turns."""

from __future__ import annotations

from typing import Final

from promptsets.common import PromptFile, Row, chat, spread, table

FACTS: Final = """
My dog is called Biscuit and he loves the beach. | What a nice name! | Tell me a word for a small boat. | A dinghy. | Sorry, I said it wrong: the dog is called Pepper. | No problem. | What is the name of my dog? | Biscuit | Pepper
I have booked a table for Friday evening. | That sounds lovely. | Do forks go on the left? | Yes, on the left of the plate. | The table is now booked for Saturday instead. | All right. | On which day is my table booked? | Friday | Saturday
My sister lives in Dublin and works in a bank. | Good to know. | Is tea a drink? | Yes, it is made with leaves and hot water. | My sister has moved: she now lives in Glasgow. | Thanks for telling me. | In which city does my sister live? | Dublin | Glasgow
I want to paint the kitchen yellow. | A cheerful choice. | How do I clean a brush? | With warm water and soap. | I changed my mind and will paint the kitchen green. | That will look fresh. | Which colour will I paint the kitchen? | yellow | green
The train leaves from platform 14. | I will remember that. | What do you call the driver of a plane? | A pilot. | They just said that the train leaves from platform 19. | Good that you listened. | From which platform does the train leave? | 14/fourteen | 19/nineteen
My favourite fruit is the mango. | A sweet one! | How many legs has a spider? | Eight. | To be honest, these days my favourite fruit is the pear. | Tastes change. | What is my favourite fruit? | mango/mangoes/mangos | pear/pears
Our teacher this year is Mrs Walker. | I hope she is kind. | What is a triangle? | A shape with three sides. | Mrs Walker is ill, and our teacher is now Mr Turner. | I see. | Who is our teacher? | Walker | Turner
I play the violin in a small group. | Music is a fine hobby. | What is a quartet? | A group of four players. | Last month I stopped that, and today I play the trumpet. | Enjoy it! | Which instrument do I play? | violin | trumpet
The code of my locker is 4821. | I have noted it. | Is steel a metal? | Yes, it is mostly iron. | I had to set a new code for the locker, 7350. | Noted. | What is the code of my locker? | 4821/four eight two one | 7350/seven three five zero
We will meet at the fountain. | See you there. | What is the Latin word for water? | It is aqua. | It is too loud there. We will meet at the museum. | That is fine with me. | Where will we meet? | fountain | museum
For my birthday I wish for a bicycle. | A good wish. | What turns when you pedal? | The wheels. | No, wait, for my birthday I wish for a telescope. | Then you can watch the stars. | What do I wish for on my birthday? | bicycle/bike | telescope
My train ticket cost 45 euros. | That is not too bad. | Name something made of paper. | A newspaper. | I looked again: the ticket cost 54 euros. | I see. | How much did my ticket cost? | 45/forty-five/forty five | 54/fifty-four/fifty four
I am learning Italian this winter. | Have fun with it. | Are dolphins fish? | No, they are mammals. | The class was full, so I am learning Swedish. | Also a beautiful language. | Which language am I learning? | Italian | Swedish
My flight to Cairo is tomorrow. | Have a safe trip. | Can I take a book on board? | Yes, of course. | They changed it, and my flight goes to Athens. | Then I wish you a good time there. | Where does my flight go? | Cairo | Athens
The parcel is for Helen in the third room. | I will tell her. | What is wax used for? | For candles, for example. | I misread it, the parcel is for Robert. | Then I will tell him. | Who is the parcel for? | Helen | Robert
I keep the spare key under the flowerpot. | Better do not tell everyone. | Which animal gives wool? | The sheep. | I moved it, the spare key is now in the mailbox. | All right. | Where is the spare key? | flowerpot/flower pot/flower-pot | mailbox/mail box/letterbox
The soup of the day is tomato. | I like that. | What goes well with bread? | Butter. | We are out of that, the soup of the day is pumpkin. | I like that too. | What is the soup of the day? | tomato/tomatoes | pumpkin/pumpkins
My meeting starts at 10:30. | Then you have some time left. | Do bees make honey? | Yes, they do. | I have just heard that the meeting starts at 11:15. | Then there is no hurry. | At what time does my meeting start? | 10:30/10.30/half past ten/ten thirty | 11:15/11.15/quarter past eleven/eleven fifteen
My cousin is a baker in a village. | He must get up early. | Do cows eat grass? | Yes, most of the day. | He gave that up. My cousin is a gardener now. | That is also hard work. | What is the job of my cousin? | baker | gardener
I wear a red coat, so you can find me. | I will look for you. | Is silver more precious than iron? | Yes, it is. | It is too warm for the coat, so now I wear a white shirt. | Thanks for saying so. | Which colour do I wear? | red | white
We have a rabbit at home. | How sweet. | Do plants need light? | Yes, to grow. | We gave it to my aunt. We now have a parrot at home. | I hope it does not talk all day. | Which animal do we have at home? | rabbit/bunny | parrot
The exam is in March. | Good luck! | What is a noun? | A word for a thing, a person or a place. | The school put it off, the exam is in June. | More time to learn. | In which month is the exam? | March | June
My phone is made by Nova. | I have heard of it. | What does a clock show? | The time. | It broke. My phone is now made by Orbit. | I hope it lasts. | Who makes my phone? | Nova | Orbit
There are 12 chairs in the hall. | That should do. | Which is bigger, a cup or a bucket? | A bucket. | I counted again and there are 15 chairs in the hall. | Even better. | How many chairs are in the hall? | 12/twelve | 15/fifteen
"""
"""Fact, reply, something else, reply, correction, reply, question, answer before, answer after the correction; of an answer
all its spellings, the first as it was said, with "/" between them."""

PAIRS: Final = """
Anna has a cat and Ben has a horse. | Both are lovely animals. | Who has the horse? | Ben | Who has the cat? | Anna
Lucas ordered rice and Emma ordered pasta. | It will be ready soon. | What did Emma order? | pasta | What did Lucas order? | rice
The blue box holds nails. The grey box holds screws. | Thank you, that helps. | What is in the grey box? | screws/screw | What is in the blue box? | nails/nail
Tim sits by the window and Sara sits by the door. | Okay. | Who sits by the window? | Tim | Who sits by the door? | Sara
In the morning I drink coffee, in the evening milk. | A good habit. | What do I drink in the evening? | milk | What do I drink in the morning? | coffee
Rome is warm this week and Oslo is cold. | I see. | Which of the two cities is cold? | Oslo | Which of the two cities is warm? | Rome
Dora came first in the race, Felix came second. | Well done, both! | Who won the race? | Dora | Who came after the winner? | Felix
The museum opens on Tuesday, the tower opens on Thursday. | Good to know. | On which day does the tower open? | Thursday | On which day does the museum open? | Tuesday
"""
"""Two facts, reply, then two questions, each with its answer."""

OWN: Final = """
Suggest a name for my boat. | How about Seagull? | Nice. What name did you suggest? | Seagull | Albatross
Which herb should I put on the fish? | I would take dill. | Say that again, which herb? | dill | mint
I cannot decide between the sea and the mountains. | Go to the mountains, the air is good there. | Where did you tell me to go? | mountains/mountain | sea
Give me a word that means very big. | Enormous. | Which word was that? | enormous | gigantic
Name a bird that lives near water. | The heron. | Which bird did you name? | heron | swan
What should I cook tonight? | Make an omelette with cheese. | What was your idea for tonight? | omelette/omelet | soup
Which film should we watch? | Watch a comedy, it is a long week. | Which kind of film did you advise? | comedy | thriller
My plant looks sad. | It may need water. | What did you say it may need? | water | salt
What gift would please an old friend? | A photo of the two of you. | What gift was that again? | photo/photograph | book
How should I get to work? | Take the tram, it is quick. | What did you tell me to take? | tram | bus
Choose a colour for the new door. | Dark blue would be elegant. | What colour did you choose for it? | blue | red
My knee hurts after running. | Put some ice on it. | What should I put on my knee? | ice | honey
"""
"""Request, the model's own reply, question about that reply, answer, something it did not say."""


def row(kind: str, turns: list[str], answer: str, other: str, group: str | None = None) -> Row:
    """One conversation; the scorer ``choice`` reads the two options from the metadata."""
    right, wrong = answer.split("/"), other.split("/")
    how = "a time" if ":" in right[0] else "a number" if right[0].isdigit() else "one word"
    choices = [forms if len(forms) > 1 else forms[0] for forms in sorted((right, wrong))]
    made: Row = {"messages": chat(*turns[:-1], f"{turns[-1]} Answer with {how}.")}
    made |= {"target": right if len(right) > 1 else answer}
    made["metadata"] = {"kind": kind, "choices": choices}
    return made if group is None else made | {"group": group}


def chats() -> list[Row]:
    """Seventy-six conversations: facts told, facts corrected, two facts side by side, and the model's own words."""
    rows: dict[str, list[Row]] = {"told": [], "corrected": [], "paired": [], "own words": []}
    for n, cells in enumerate(table(FACTS), 1):
        fact, reply, aside, answer, correction, noted, question, old, new = cells
        group = f"fact-{n:02d}"
        told, corrected = [fact, reply, aside, answer], [fact, reply, correction, noted]
        rows["told"].append(row("told", [*told, question], old, new, group))
        rows["corrected"].append(row("corrected", [*corrected, question], new, old, group))
    for n, cells in enumerate(table(PAIRS), 1):
        facts, reply, question, answer, other_question, other = cells
        group = f"pair-{n:02d}"
        rows["paired"].append(row("paired", [facts, reply, question], answer, other, group))
        rows["paired"].append(row("paired", [facts, reply, other_question], other, answer, group))
    for request, reply, question, answer, other in table(OWN):
        rows["own words"].append(row("own words", [request, reply, question], answer, other))
    return spread("chats", rows)


SETS: Final = (
    PromptFile(
        "chats",
        chats,
        ({"choice": {"letters": False}},),
        max_tokens=32,
        shows="facts carried over several turns; what a penalty on repeating words costs when the answer is a repeated word",
    ),
)
