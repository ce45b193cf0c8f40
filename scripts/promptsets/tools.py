"""Tool calls: which function to call, with which arguments, and when to call none."""

from __future__ import annotations

import json
from typing import Any, Final

from promptsets.common import PromptFile, Row, chat, spread, table

FUNCTIONS: Final = """
get_weather | The weather in a city on a day. | city: string, name of the city; day: string, day of the week
set_timer | Start a timer. | minutes: integer, minutes until it rings
add_item | Put something on the shopping list, named in the plural. | item: string, what to buy, in the plural; amount: integer, how many
convert_money | Change an amount of money to another currency: dollars, euros, francs, pounds or yen. | amount: number, how much; source: dollars/euros/francs/pounds/yen, currency it is in; goal: dollars/euros/francs/pounds/yen, currency wanted
send_message | Send a message to a person. | person: string, first name; text: string, the message
play_music | Play songs of an artist. | artist: string, name of the artist
set_light | Switch the light of a room. | room: string, name of the room; on: boolean, true for on
find_train | Trains between two cities. | start: string, city of departure; goal: string, city of arrival
"""
"""Name, what it does, and its parameters, all of them required: type, or the texts allowed, and description."""

CALLS: Final = """
get_weather | set_timer | Will it rain in Porto on Monday? | city=Porto; day=Monday
get_weather | find_train | What will the weather be like in Quebec on Sunday? | city=Quebec; day=Sunday
get_weather | add_item | I am in Hanoi on Thursday. Do I need an umbrella? | city=Hanoi; day=Thursday
get_weather | send_message | How warm does it get in Naples on Friday? | city=Naples; day=Friday
get_weather | play_music | Tell me the forecast for Tuesday in Bergen. | city=Bergen; day=Tuesday
get_weather | set_light | Is there snow in Denver on Saturday? | city=Denver; day=Saturday
set_timer | get_weather | Wake me in 20 minutes. | minutes=20
set_timer | add_item | The eggs need 6 minutes, tell me when they are done. | minutes=6
set_timer | play_music | Start a timer of 45 minutes. | minutes=45
set_timer | set_light | Let it ring when 12 minutes are over. | minutes=12
set_timer | send_message | I want to stop working in one hour, so remind me. | minutes=60
set_timer | convert_money | Count down 3 minutes for my tea, please. | minutes=3
add_item | set_timer | Put 2 lemons on my shopping list. | item=lemons; amount=2
add_item | find_train | We need 10 candles, write that down for the shop. | item=candles; amount=10
add_item | send_message | Add 4 onions to the list. | item=onions; amount=4
add_item | get_weather | I have to buy 6 bananas. | item=bananas; amount=6
add_item | set_light | Please note 3 pencils for my next visit to the shop. | item=pencils; amount=3
add_item | convert_money | The list lacks 12 eggs. | item=eggs; amount=12
convert_money | set_timer | How many dollars are 50 euros? | amount=50; source=euros; goal=dollars
convert_money | get_weather | Change 200 francs to pounds. | amount=200; source=francs; goal=pounds
convert_money | find_train | I have 75 pounds. What is that in yen? | amount=75; source=pounds; goal=yen
convert_money | add_item | What do I get in euros for 30 dollars? | amount=30; source=dollars; goal=euros
convert_money | play_music | Give me the value of 9000 yen in francs. | amount=9000; source=yen; goal=francs
convert_money | send_message | 15 euros in pounds, please. | amount=15; source=euros; goal=pounds
send_message | set_timer | Write to Nora: dinner is ready | person=Nora; text=dinner is ready
send_message | get_weather | Tell Oscar this: the car is fixed | person=Oscar; text=the car is fixed
send_message | add_item | Send Lucy a message: see you tomorrow | person=Lucy; text=see you tomorrow
send_message | play_music | Let Henry know: I will be late | person=Henry; text=I will be late
send_message | set_light | Message for Alice: the key is in the mailbox | person=Alice; text=the key is in the mailbox
send_message | find_train | Text Marco: happy birthday | person=Marco; text=happy birthday
play_music | set_light | I want to hear Miles Davis. | artist=Miles Davis
play_music | set_timer | Put on something by Nina Simone. | artist=Nina Simone
play_music | get_weather | Can we listen to Mozart now? | artist=Mozart
play_music | send_message | Play Edith Piaf for us. | artist=Edith Piaf
play_music | add_item | Some songs of Bob Marley would be great. | artist=Bob Marley
play_music | convert_money | Music, please: Ravi Shankar. | artist=Ravi Shankar
set_light | play_music | Switch on the light in the kitchen. | room=kitchen; on=true
set_light | set_timer | It is too bright in the bedroom, turn the light off. | room=bedroom; on=false
set_light | get_weather | Lights off in the garage, please. | room=garage; on=false
set_light | add_item | I cannot see anything in the cellar. Make light! | room=cellar; on=true
set_light | send_message | Nobody is in the office, so the light can go out. | room=office; on=false
set_light | find_train | Turn the hall light on. | room=hall; on=true
find_train | get_weather | How do I get from Berlin to Warsaw by train? | start=Berlin; goal=Warsaw
find_train | convert_money | Is there a train to Geneva from Milan? | start=Milan; goal=Geneva
find_train | set_timer | I am in Osaka and want to go to Kyoto by rail. | start=Osaka; goal=Kyoto
find_train | send_message | Look up trains from Boston to New York. | start=Boston; goal=New York
find_train | play_music | Which trains run between Delhi, where I am, and Agra, where I want to go? | start=Delhi; goal=Agra
find_train | add_item | Find me a connection: Vienna to Graz. | start=Vienna; goal=Graz
"""
"""Function to call, another one on offer, request, arguments."""

NOTHING: Final = """
set_timer | get_weather | Good morning! How are you?
play_music | set_light | What is the opposite of tall?
find_train | add_item | Tell me a joke about cows.
send_message | set_timer | Why is the sky blue?
get_weather | convert_money | Who wrote Romeo and Juliet?
set_light | find_train | What is 4 plus 5?
add_item | play_music | Is a tomato a fruit?
convert_money | send_message | I am bored.
get_weather | add_item | Which animal says meow?
set_timer | find_train | Write a rhyme about a mouse.
play_music | convert_money | How do you spell necessary?
set_light | get_weather | You are very helpful.
find_train | set_light | What do bees make?
send_message | play_music | Is ice cold?
add_item | set_timer | How many legs does a horse have?
convert_money | set_light | What does a baker do?
get_weather | send_message | When is a leap year?
play_music | find_train | Translate thank you into Spanish.
"""
"""Two functions on offer, and a request that neither can serve."""

TWICE: Final = """
add_item | set_timer | Put 5 apples and 2 melons on my list. | item=apples; amount=5 / item=melons; amount=2
set_light | play_music | Turn on the light in the kitchen and in the hall. | room=kitchen; on=true / room=hall; on=true
get_weather | set_light | How is the weather on Monday in Lagos, and how is it in Accra? | city=Lagos; day=Monday / city=Accra; day=Monday
send_message | get_weather | Write to Paul and to Jane: the train is late | person=Paul; text=the train is late / person=Jane; text=the train is late
set_timer | add_item | I need two timers, one of 5 minutes and one of 15 minutes. | minutes=5 / minutes=15
convert_money | find_train | What are 40 dollars in euros, and what are they in yen? | amount=40; source=dollars; goal=euros / amount=40; source=dollars; goal=yen
"""
"""As CALLS, with two calls of the one function."""

SYSTEM: Final = """You can call these functions:
{functions}
To call one, answer only with JSON: {{"name": "...", "arguments": {{...}}}}. For several calls, answer with a list of such objects. If no function fits, answer in plain words."""

SHOWN: Final = """
get_weather | What is the weather in Lima on Wednesday? | city=Lima; day=Wednesday
set_timer | Set a timer for 8 minutes. | minutes=8
add_item | Add 7 carrots to my shopping list. | item=carrots; amount=7
convert_money | How much are 60 euros in pounds? | amount=60; source=euros; goal=pounds
send_message | Write to Emma: I am at home | person=Emma; text=I am at home
play_music | Play something by Bach. | artist=Bach
set_light | Turn on the light in the bathroom. | room=bathroom; on=true
find_train | Is there a train from Turin to Rome? | start=Turin; goal=Rome
"""
"""A worked example of each function: every request comes after those of the functions on offer, and after THANKS."""

THANKS: Final = ("Thank you!", "You are welcome.")

Parameter = tuple[str, str, str]


def functions() -> dict[str, tuple[str, list[Parameter]]]:
    """Name to description and parameters (name, type, description)."""
    found = {}
    for name, about, parameters in table(FUNCTIONS):
        split = [p.replace(", ", ": ", 1).split(": ", 2) for p in parameters.split("; ")]
        found[name] = (about, [(p[0], p[1], p[2]) for p in split])
    return found


def described(kind: str, text: str) -> dict[str, Any]:
    """The schema of a parameter."""
    if "/" in kind:
        return {"type": "string", "enum": kind.split("/"), "description": text}
    return {"type": kind, "description": text}


def definition(name: str, about: str, parameters: list[Parameter]) -> dict[str, Any]:
    """A function as chat templates and servers take it."""
    schema = {
        "type": "object",
        "properties": {p: described(kind, text) for p, kind, text in parameters},
        "required": [p for p, _, _ in parameters],
    }
    return {
        "type": "function",
        "function": {"name": name, "description": about, "parameters": schema},
    }


def call(name: str, arguments: str, parameters: list[Parameter]) -> dict[str, Any]:
    """A call as a target has it; arguments are written ``city=Porto; day=Monday``."""
    types = {p: kind for p, kind, _ in parameters}
    values = dict(part.split("=", 1) for part in arguments.split("; "))
    plain = ("integer", "number", "boolean")
    read = {k: json.loads(v) if types[k] in plain else v for k, v in values.items()}
    return {"name": name, "arguments": read}


def row(kind: str, offered: list[str], request: str, target: Any, **more: str) -> Row:
    """One request with the functions on offer, told both in the system message and as ``tools``."""
    known = functions()
    lines = [
        f"{name}({', '.join(p for p, _, _ in known[name][1])}): {known[name][0]}"
        for name in offered
    ]
    examples = {name: (asked, given) for name, asked, given in table(SHOWN)}
    shown = list(THANKS)
    for name in offered:
        asked, given = examples[name]
        shown += [asked, json.dumps(call(name, given, known[name][1]))]
    return {
        "messages": chat(*shown, request, system=SYSTEM.format(functions="\n".join(lines))),
        "target": target,
        "metadata": {"kind": kind, **more},
        "tools": [definition(name, *known[name]) for name in offered],
    }


def tools() -> list[Row]:
    """Seventy-two requests: one call, two calls, or none."""
    known = functions()
    strata: dict[str, list[Row]] = {}
    for name, other, request, arguments in table(CALLS):
        offered = sorted((name, other))
        target = call(name, arguments, known[name][1])
        strata.setdefault(name, []).append(row("one call", offered, request, target, function=name))
    strata["two calls"] = [
        row(
            "two calls",
            sorted((name, other)),
            request,
            [call(name, part, known[name][1]) for part in arguments.split(" / ")],
            function=name,
        )
        for name, other, request, arguments in table(TWICE)
    ]
    strata["no call"] = [
        row("no call", sorted((a, b)), request, "none") for a, b, request in table(NOTHING)
    ]
    return spread("tools", strata)


SETS: Final = (
    PromptFile(
        "tools",
        tools,
        ({"tool_call": {"arguments": "partial", "ignore_punctuation": True}},),
        max_tokens=64,
        shows="calls in exact form, and restraint where none is right",
    ),
)
