"""Questions in French: short texts to read, words, and things everybody knows."""

from __future__ import annotations

from typing import Final

from promptsets.common import PromptFile, Row, spread, table

READING: Final = """
Paul a un chien noir qui s'appelle Filou. Il habite à Lyon avec sa sœur. | Comment s'appelle le chien de Paul ? | Filou
Paul a un chien noir qui s'appelle Filou. Il habite à Lyon avec sa sœur. | Dans quelle ville Paul habite-t-il ? | Lyon
Marie va au marché le samedi. Elle y achète des pommes et du fromage. | Quel jour Marie va-t-elle au marché ? | samedi
Marie va au marché le samedi. Elle y achète des pommes et du fromage. | Quels fruits achète-t-elle ? | pommes, pomme
Le train part de Lille à midi et arrive à Rouen trois heures plus tard. | Dans quelle ville le train arrive-t-il ? | Rouen
Le train part de Lille à midi et arrive à Rouen trois heures plus tard. | À quelle heure le train part-il ? | midi, 12 h, 12h, 12h00, 12:00, 12 heures, douze heures
Ma grand-mère fait un gâteau au citron chaque dimanche. Mon frère préfère la tarte aux prunes. | Quel gâteau fait la grand-mère ? | citron, citrons
Ma grand-mère fait un gâteau au citron chaque dimanche. Mon frère préfère la tarte aux prunes. | Quelle tarte le frère préfère-t-il ? | prunes, prune
La voisine a perdu ses clés dans le jardin. Luc les a retrouvées sous un banc. | Qui a retrouvé les clés ? | Luc
La voisine a perdu ses clés dans le jardin. Luc les a retrouvées sous un banc. | Sous quoi étaient les clés ? | banc
Claire est médecin à Nantes. Son mari est boulanger et se lève à quatre heures. | Quel est le métier de Claire ? | médecin, docteur, docteure, doctoresse
Claire est médecin à Nantes. Son mari est boulanger et se lève à quatre heures. | Quel est le métier de son mari ? | boulanger, boulangère
En hiver, Hugo fait du ski. En été, il nage dans le lac. | Quel sport Hugo fait-il en hiver ? | ski
En hiver, Hugo fait du ski. En été, il nage dans le lac. | Où Hugo nage-t-il ? | lac
Le pull rouge coûte trente euros, le pull vert coûte vingt euros. | Combien coûte le pull vert ? | vingt, 20
Le pull rouge coûte trente euros, le pull vert coûte vingt euros. | Quel pull coûte trente euros ? | rouge
Sophie joue du piano et son cousin joue de la flûte. | De quel instrument joue Sophie ? | piano
Sophie joue du piano et son cousin joue de la flûte. | De quel instrument joue le cousin ? | flûte
Le facteur passe le matin. Hier, il a apporté une lettre de Belgique. | De quel pays vient la lettre ? | Belgique
Le facteur passe le matin. Hier, il a apporté une lettre de Belgique. | Qu'est-ce que le facteur a apporté ? | lettre, courrier
Julie a rendez-vous mardi avec le dentiste. Elle ira à pied, car sa voiture est en panne. | Avec qui Julie a-t-elle rendez-vous ? | dentiste
Julie a rendez-vous mardi avec le dentiste. Elle ira à pied, car sa voiture est en panne. | Comment Julie ira-t-elle au rendez-vous ? | à pied, pied, marche, marchant
Dans la cage, il y a un perroquet bleu. Il répète tout ce que dit Antoine. | Quel animal est dans la cage ? | perroquet
Dans la cage, il y a un perroquet bleu. Il répète tout ce que dit Antoine. | De quelle couleur est l'animal ? | bleu
"""
"""Text, question, answers; two questions to a text are one group."""

WORDS: Final = """
Quel est le contraire de « grand » ? | petit, petite, minuscule
Quel est le contraire de « chaud » ? | froid, froide
Quel est le contraire de « jour » ? | nuit
Quel est le contraire de « toujours » ? | jamais
Quel est le contraire de « vide » ? | plein, pleine, rempli, remplie
Quel est le contraire de « riche » ? | pauvre
Quel est le contraire de « commencer » ? | finir, terminer, cesser, arrêter, achever, conclure
Quel est le contraire de « jeune » ? | vieux, âgé, vieille, âgée, ancien
Quel est le féminin de « acteur » ? | actrice
Quel est le féminin de « roi » ? | reine
Quel est le féminin de « oncle » ? | tante
Quel est le féminin de « coq » ? | poule
Quel est le pluriel de « cheval » ? | chevaux
Quel est le pluriel de « œil » ? | yeux
Quel est le pluriel de « journal » ? | journaux
Quel est le pluriel de « bateau » ? | bateaux
Comment dit-on « dog » en français ? | chien
Comment dit-on « water » en français ? | eau
Comment dit-on « school » en français ? | école
Comment dit-on « thank you » en français ? | merci
Comment dit-on « tree » en français ? | arbre
Comment dit-on « yesterday » en français ? | hier
Comment appelle-t-on la mère de ma mère ? | grand-mère, grand mère, mamie, mamy, mémé, mémère, aïeule
Comment appelle-t-on celui qui fait le pain ? | boulanger, boulangère
Comment appelle-t-on le petit de la vache ? | veau, veaux, génisse
Comment appelle-t-on une maison pour les livres que l'on peut emprunter ? | bibliothèque, médiathèque
Quel verbe correspond au nom « danse » ? | danser
Quel nom correspond au verbe « naître » ? | naissance
"""
"""Question about words, answers."""

WORLD: Final = """
Combien de jours y a-t-il dans une semaine ? | sept, 7
Quel mois vient après mars ? | avril
Quel jour vient avant lundi ? | dimanche
Quelle saison vient après l'automne ? | hiver
Combien font deux et trois ? | cinq, 5
Combien de pattes a une araignée ? | huit, 8
De quelle couleur est la neige ? | blanche, blanc, blanches, blancs
De quelle couleur est un citron mûr ? | jaune
Quel animal miaule ? | chat, chats, chatte, chaton
Quel animal donne de la laine ? | mouton, moutons, brebis, agneau, chèvre, alpaga, lama
Quel insecte fait du miel ? | abeille, abeilles
Dans quelle ville se trouve la tour Eiffel ? | Paris
Quel pays a pour capitale Rome ? | Italie
Quelle langue parle-t-on au Brésil ? | portugais
Quelle mer se trouve entre l'Europe et l'Afrique ? | Méditerranée
Avec quoi fait-on le vin ? | raisin, raisins
Quel astre nous éclaire le jour ? | soleil
Combien de minutes y a-t-il dans une heure ? | soixante, 60
Que boit un bébé ? | lait
Comment appelle-t-on le premier repas de la journée ? | petit-déjeuner, petit déjeuner, petit-déj, déjeuner
Comment s'appelle la fête du 25 décembre ? | Noël, Noel
Combien de côtés a un triangle ? | trois, 3
De quelle matière est faite une vitre ? | verre
Quel gaz respirons-nous pour vivre ? | oxygène, dioxygène, O2
"""
"""Question about the world, answers."""

ECHO: Final = 9
"""Most words in a row that an answer may copy: a short sentence of a text, but not all of it."""

ASK: Final = "{} Réponds en français par une phrase courte."


def row(kind: str, prompt: str, answers: str, group: str | None = None) -> Row:
    """One question; a list target holds every accepted answer."""
    accepted = answers.split(", ")
    made: Row = {"prompt": ASK.format(prompt)}
    made |= {"target": accepted if len(accepted) > 1 else accepted[0], "metadata": {"kind": kind}}
    return made if group is None else made | {"group": group}


def french() -> list[Row]:
    """Seventy-six questions in French, asked to be answered in French."""
    texts = {text: n for n, text in enumerate(dict.fromkeys(c[0] for c in table(READING)), 1)}
    strata = {
        "reading": [
            row("reading", f"{text} {question}", answers, f"text-{texts[text]:02d}")
            for text, question, answers in table(READING)
        ],
        "words": [row("words", *cells) for cells in table(WORDS)],
        "world": [row("world", *cells) for cells in table(WORLD)],
    }
    return spread("french", strata)


SETS: Final = (
    PromptFile(
        "french",
        french,
        (
            {"contains": {"compounds": False, "echo": ECHO}},
            {"degeneration": {"signs": ["language", "loop"]}},
        ),
        max_tokens=32,
        shows="a second language: what a model knows in it, and whether it stays in it",
    ),
)
