"""Write the example corpus from the tables below: `python examples/make_corpus.py [FOLDER]`.

Everything is composed from small tables of words (numerals, nouns, clauses, days, months) and a few
hand-written sentences. So a native speaker corrects one entry here, runs the script, and every
record that used the entry is corrected. There is no randomness: if only some of a grid of
combinations are wanted, the hash of each decides. All text is NFC.
"""

import gzip
import hashlib
import itertools
import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

LANGS = ("en", "yor", "hau", "ibo")
# One meaning in each language of LANGS.
Parallel = dict[str, str]
Item = TypeVar("Item")


def words(text: str) -> list[str]:
    """Return the words of a table's row."""
    return text.split()


class Noun(NamedTuple):
    """A countable noun.

    Its kind (thing, beast, sight or measure) says which sentences it may enter.
    """

    kind: str
    en: str
    en_plural: str
    yor: str
    hau: str
    hau_plural: str
    hau_gender: str
    ibo: str


NOUNS = [
    Noun("thing", "book", "books", "ìwé", "littafi", "littattafai", "m", "akwụkwọ"),
    Noun("thing", "house", "houses", "ilé", "gida", "gidaje", "m", "ụlọ"),
    Noun("thing", "chair", "chairs", "àga", "kujera", "kujeru", "f", "oche"),
    Noun("thing", "car", "cars", "ọkọ̀ ayọ́kẹ́lẹ́", "mota", "motoci", "f", "ụgbọala"),
    Noun("thing", "bag", "bags", "àpò", "jaka", "jakunkuna", "f", "akpa"),
    Noun("thing", "knife", "knives", "ọ̀bẹ", "wuƙa", "wuƙaƙe", "f", "mma"),
    Noun("thing", "pot", "pots", "ìkòkò", "tukunya", "tukwane", "f", "ite"),
    Noun(
        "thing", "newspaper", "newspapers", "ìwé ìròyìn", "jarida", "jaridu", "f", "akwụkwọ akụkọ"
    ),
    Noun("beast", "dog", "dogs", "ajá", "kare", "karnuka", "m", "nkịta"),
    Noun("beast", "fish", "fish", "ẹja", "kifi", "kifaye", "m", "azụ"),
    Noun("beast", "goat", "goats", "ewúrẹ́", "akuya", "awaki", "f", "ewu"),
    Noun("beast", "cow", "cows", "màlúù", "saniya", "shanu", "f", "ehi"),
    Noun("beast", "hen", "hens", "adìẹ", "kaza", "kaji", "f", "ọkụkọ"),
    Noun("beast", "horse", "horses", "ẹṣin", "doki", "dawakai", "m", "ịnyịnya"),
    Noun("beast", "sheep", "sheep", "àgùntàn", "tunkiya", "tumaki", "f", "atụrụ"),
    Noun("sight", "tree", "trees", "igi", "bishiya", "bishiyoyi", "f", "osisi"),
    Noun("sight", "bird", "birds", "ẹyẹ", "tsuntsu", "tsuntsaye", "m", "nnụnụ"),
    Noun("sight", "lion", "lions", "kìnnìún", "zaki", "zakuna", "m", "ọdụm"),
    Noun("sight", "snake", "snakes", "ejò", "maciji", "macizai", "m", "agwọ"),
    Noun("sight", "star", "stars", "ìràwọ̀", "tauraro", "taurari", "m", "kpakpando"),
    Noun("sight", "river", "rivers", "odò", "kogi", "koguna", "m", "osimiri"),
    Noun("sight", "mountain", "mountains", "òkè", "dutse", "duwatsu", "m", "ugwu"),
    Noun("sight", "town", "towns", "ìlú", "gari", "garuruwa", "m", "obodo"),
    Noun("sight", "market", "markets", "ọjà", "kasuwa", "kasuwanni", "f", "ahịa"),
    Noun("sight", "school", "schools", "ilé-ìwé", "makaranta", "makarantu", "f", "ụlọ akwụkwọ"),
    Noun("sight", "person", "people", "ènìyàn", "mutum", "mutane", "m", "mmadụ"),
    Noun("measure", "door", "doors", "ilẹ̀kùn", "ƙofa", "ƙofofi", "f", "ọnụ ụzọ"),
    Noun("measure", "road", "roads", "ọ̀nà", "hanya", "hanyoyi", "f", "ụzọ"),
    Noun("measure", "word", "words", "ọ̀rọ̀", "kalma", "kalmomi", "f", "okwu"),
    Noun("measure", "language", "languages", "èdè", "harshe", "harsuna", "m", "asụsụ"),
    Noun("measure", "week", "weeks", "ọ̀sẹ̀", "mako", "makonni", "m", "izu ụka"),
    Noun("measure", "month", "months", "oṣù", "wata", "watanni", "m", "ọnwa"),
    Noun("measure", "year", "years", "ọdún", "shekara", "shekaru", "f", "afọ"),
]

EN_UNITS = words(
    "_ one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
EN_TENS = words("_ ten twenty thirty forty fifty sixty seventy eighty ninety")
HAU_UNITS = words("_ ɗaya biyu uku huɗu biyar shida bakwai takwas tara goma")
HAU_TENS = words("_ goma ashirin talatin arba'in hamsin sittin saba'in tamanin casa'in")
IBO_UNITS = words("_ otu abụọ atọ anọ ise isii asaa asatọ itoolu iri")
# Yorùbá counts by twenties and by subtraction: only the forms that follow a noun, 1 to 19, and the
# tens are used.
YOR_AFTER_NOUN = words(
    "_ kan méjì mẹ́ta mẹ́rin márùn-ún mẹ́fà méje mẹ́jọ mẹ́sàn-án mẹ́wàá mọ́kànlá méjìlá mẹ́tàlá "
    "mẹ́rìnlá mẹ́ẹ̀ẹ́dógún mẹ́rìndínlógún mẹ́tàdínlógún méjìdínlógún mọ́kàndínlógún"
)
YOR_TENS = words("ogún ọgbọ̀n ogójì àádọ́ta ọgọ́ta àádọ́rin ọgọ́rin àádọ́rùn-ún ọgọ́rùn-ún")

DAYS = {
    "en": words("Sunday Monday Tuesday Wednesday Thursday Friday Saturday"),
    "yor": ["Ọjọ́ Àìkú", "Ọjọ́ Ajé", "Ọjọ́ Ìṣẹ́gun", "Ọjọ́rú", "Ọjọ́bọ̀", "Ọjọ́ Ẹtì", "Ọjọ́ Àbámẹ́ta"],
    "hau": words("Lahadi Litinin Talata Laraba Alhamis Juma'a Asabar"),
    "ibo": words("Sọnde Mọnde Tuzde Wenezde Tọzde Fraịde Satọde"),
}
MONTHS = {
    "en": words(
        "January February March April May June July August September October November December"
    ),
    "yor": [
        f"Oṣù {name}"
        for name in words("Ṣẹ́rẹ́ Èrèlè Ẹrẹ̀nà Ìgbé Ẹ̀bibi Òkúdu Agẹmọ Ògún Owewe Ọ̀wàrà Bélú Ọ̀pẹ̀")
    ],
    "hau": words(
        "Janairu Fabrairu Maris Afrilu Mayu Yuni Yuli Agusta Satumba Oktoba Nuwamba Disamba"
    ),
    "ibo": words(
        "Jenụwarị Febrụwarị Maachị Eprel Mee Juun Julaị Ọgọst Septemba Ọktoba Novemba Disemba"
    ),
}

# Clauses about things and beasts.
OWN = [
    ("I have", "Mo ní", "Ina da", "Enwere m"),
    ("We have", "A ní", "Muna da", "Anyị nwere"),
    ("They have", "Wọ́n ní", "Suna da", "Ha nwere"),
    ("I want", "Mo fẹ́", "Ina son", "Achọrọ m"),
    ("We want", "A fẹ́", "Muna son", "Anyị chọrọ"),
    ("They want", "Wọ́n fẹ́", "Suna son", "Ha chọrọ"),
    ("I bought", "Mo ra", "Na sayi", "Azụtara m"),
    ("We bought", "A ra", "Mun sayi", "Anyị zụtara"),
    ("They bought", "Wọ́n ra", "Sun sayi", "Ha zụtara"),
]
# Clauses about things, beasts and sights.
SEE = [
    ("I saw", "Mo rí", "Na ga", "Ahụrụ m"),
    ("We saw", "A rí", "Mun ga", "Anyị hụrụ"),
    ("They saw", "Wọ́n rí", "Sun ga", "Ha hụrụ"),
]
# English, Yorùbá, Hausa after a masculine and after a feminine noun, Igbo.
OWNERS = [
    ("my", "mi", "na", "ta", "m"),
    ("our", "wa", "nmu", "rmu", "anyị"),
    ("their", "wọn", "nsu", "rsu", "ha"),
]
GREETINGS = [
    ("Good morning", "Ẹ káàárọ̀", "Barka da safiya", "Ụtụtụ ọma"),
    ("Good afternoon", "Ẹ káàsán", "Barka da rana", "Ehihie ọma"),
    ("Good night", "Ó dàárọ̀", "Sai da safe", "Ka chi fo"),
    ("Thank you", "Ẹ ṣeun", "Na gode", "Daalụ"),
    ("Welcome", "Ẹ káàbọ̀", "Barka da zuwa", "Nnọọ"),
    ("Goodbye", "Ó dàbọ̀", "Sai an jima", "Ka ọ dị"),
    ("Sorry", "Ẹ pẹ̀lẹ́", "Yi haƙuri", "Ndo"),
]
# A name keeps its own spelling in every language.
NAMES = {
    "yor": words("Túndé Bọ́lá Adé Fúnmi Kẹ́hìndé Táíwò Ṣadé"),
    "hau": words("Musa Aisha Ibrahim Fatima Sani Zainab Kabiru"),
    "ibo": words("Ada Emeka Ngozi Chidi Obinna Ifeoma Chinedu"),
}
HAU_WOMEN = {"Aisha", "Fatima", "Zainab"}
TOWNS = {
    "en": words("Ibadan Kano Enugu Lagos Kaduna"),
    "yor": words("Ìbàdàn Èkó Abẹ́òkúta Ọ̀yọ́ Àkúrẹ́"),
    "hau": words("Kano Kaduna Zariya Katsina Sakkwato"),
    "ibo": ["n'Enugwu", "n'Ọnịcha", "n'Owere", "n'Aba", "na Nsụka"],
}
JOBS = {
    "en": words("student teacher farmer doctor"),
    "yor": words("Akẹ́kọ̀ọ́ Olùkọ́ Àgbẹ̀ Dókítà"),
    "hau": ["ɗalibi ne", "malami ne", "manomi ne", "likita ne"],
    "ibo": ["nwa akwụkwọ", "onye nkụzi", "onye ọrụ ugbo", "dọkịta"],
}
HAU_WOMEN_JOBS = ["ɗaliba ce", "malama ce", "manomiya ce", "likita ce"]
INTRODUCTIONS = {
    "en": "My name is {name}. I live in {town}. I am a {job}. I have {one} and {other}.",
    "yor": "Orúkọ mi ni {name}. Mo ń gbé ní {town}. {job} ni mí. Mo ní {one} àti {other}.",
    "hau": "Sunana {name}. Ina zaune a {town}. Ni {job}. Ina da {one} da {other}.",
    "ibo": "Aha m bụ {name}. Ebi m {town}. Abụ m {job}. Enwere m {one} na {other}.",
}
TODAY = {
    "en": "Today is {today}. Tomorrow is {tomorrow}.",
    "yor": "{today} ni òní. {tomorrow} ni ọ̀la.",
    "hau": "Yau ranar {today} ce. Gobe ranar {tomorrow} ce.",
    "ibo": "Taa bụ {today}. Echi bụ {tomorrow}.",
}
# Hand-written lines of plain text; {days} and {months} are the lists above.
FACTS = {
    "en": [
        "A week has seven days.",
        "The days of the week are {days}.",
        "A year has twelve months.",
        "The months of the year are {months}.",
        "Abuja is the capital of Nigeria.",
        "Nigeria is a country in Africa.",
        "Ibadan is a big city.",
        "Kano is a big city.",
        "I speak English.",
    ],
    "yor": [
        "Ọjọ́ méje ló wà nínú ọ̀sẹ̀ kan.",
        "Àwọn ọjọ́ inú ọ̀sẹ̀ ni {days}.",
        "Oṣù méjìlá ló wà nínú ọdún kan.",
        "Àwọn oṣù inú ọdún ni {months}.",
        "Àbújá ni olú-ìlú Nàìjíríà.",
        "Nàìjíríà jẹ́ orílẹ̀-èdè kan ní Áfíríkà.",
        "Ìlú ńlá ni Ìbàdàn.",
        "Ìlú ńlá ni Èkó.",
        "Mo ń sọ Yorùbá àti Gẹ̀ẹ́sì.",
    ],
    "hau": [
        "Mako yana da kwana bakwai.",
        "Ranakun mako su ne {days}.",
        "Shekara tana da watanni goma sha biyu.",
        "Watannin shekara su ne {months}.",
        "Abuja ita ce babban birnin Nijeriya.",
        "Nijeriya ƙasa ce a Afirka.",
        "Kano babban birni ne.",
        "Kaduna babban birni ne.",
        "Ina jin Hausa da Turanci.",
    ],
    "ibo": [
        "Otu izu ụka nwere ụbọchị asaa.",
        "Ụbọchị ndị dị n'izu ụka bụ {days}.",
        "Otu afọ nwere ọnwa iri na abụọ.",
        "Ọnwa ndị dị n'afọ bụ {months}.",
        "Ụbọchị ahịa Igbo dị anọ: Eke, Orie, Afọ na Nkwọ.",
        "Abuja bụ isi obodo Naịjirịa.",
        "Naịjirịa bụ mba dị n'Afrịka.",
        "Ọnịcha bụ nnukwu obodo.",
        "Ana m asụ Igbo na Bekee.",
    ],
}


def english(number: int) -> str:
    """Return a number from 1 to 999 in English words."""
    if number < 20:
        return EN_UNITS[number]
    if number < 100:
        return EN_TENS[number // 10] + (f"-{EN_UNITS[number % 10]}" if number % 10 else "")
    hundreds = f"{EN_UNITS[number // 100]} hundred"
    return f"{hundreds} and {english(number % 100)}" if number % 100 else hundreds


def hausa(number: int) -> str:
    """Return a number from 1 to 999 in Hausa words: 342 is three hundreds and forty and two."""
    if number <= 10:
        return HAU_UNITS[number]
    if number < 20:
        return f"goma sha {HAU_UNITS[number - 10]}"
    if number < 100:
        return HAU_TENS[number // 10] + (f" da {HAU_UNITS[number % 10]}" if number % 10 else "")
    hundreds = "ɗari" if number < 200 else f"ɗari {HAU_UNITS[number // 100]}"
    return f"{hundreds} da {hausa(number % 100)}" if number % 100 else hundreds


def igbo(number: int) -> str:
    """Return a number from 1 to 999 in Igbo words: 342 is three hundreds and four tens and two."""
    if number <= 10:
        return IBO_UNITS[number]
    if number < 100:
        tens = "iri" if number < 20 else f"iri {IBO_UNITS[number // 10]}"
        return f"{tens} na {IBO_UNITS[number % 10]}" if number % 10 else tens
    hundreds = "otu narị" if number < 200 else f"narị {IBO_UNITS[number // 100]}"
    return f"{hundreds} na {igbo(number % 100)}" if number % 100 else hundreds


def counted(noun: Noun, number: int) -> Parallel:
    """Return the noun with a numeral from 1 to 19.

    In Igbo "one" goes before the noun, the other numerals after it.
    """
    return {
        "en": f"{english(number)} {noun.en if number == 1 else noun.en_plural}",
        "yor": f"{noun.yor} {YOR_AFTER_NOUN[number]}",
        "hau": f"{noun.hau if number == 1 else noun.hau_plural} {hausa(number)}",
        "ibo": f"otu {noun.ibo}" if number == 1 else f"{noun.ibo} {igbo(number)}",
    }


def capital(text: str) -> str:
    """Return the text with its first letter in upper case (`str.capitalize` lowers the rest)."""
    return text[0].upper() + text[1:]


def without_marks(text: str) -> str:
    """Return the text as people often type it: no tone marks, no dots below."""
    return "".join(
        char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char)
    )


def pick(items: Iterable[Item], count: int) -> list[Item]:
    """Return `count` of the items, chosen and ordered by a hash of each.

    The choice is equal on every machine and under every version of Python.
    """
    return sorted(items, key=lambda item: hashlib.sha256(repr(item).encode()).digest())[:count]


def number_records() -> list[dict[str, str]]:
    """Return the numbers from 1 to 999 as digits and in words.

    The digits are apart: a tokenizer that joins them could make one unseen token of a held-out
    number.
    """
    return [
        {"digits": " ".join(str(n)), "en": english(n), "hau": hausa(n), "ibo": igbo(n)}
        for n in range(1, 1000)
    ]


def counting_sentences() -> list[Parallel]:
    """Return every "I have three books.", ordered by hash.

    Each has a clause, a noun that fits it and a numeral up to ten.
    """
    grid = []
    for clauses, kinds in ((OWN, ("thing", "beast")), (SEE, ("thing", "beast", "sight"))):
        nouns = [noun for noun in NOUNS if noun.kind in kinds]
        grid += list(itertools.product(clauses, nouns, range(1, 11)))
    sentences = []
    for clause, noun, number in pick(grid, len(grid)):
        phrase = counted(noun, number)
        sentences.append(
            {lang: f"{start} {phrase[lang]}." for lang, start in zip(LANGS, clause, strict=True)}
        )
    return sentences


def pattern_sentences() -> list[Parallel]:
    """Return sentences that name, own and locate a noun, and greetings by name."""
    sentences = []
    for noun in NOUNS:
        if noun.kind == "measure":
            continue
        en, yor, hau, ibo = noun.en, noun.yor, noun.hau, noun.ibo
        be = "ne" if noun.hau_gender == "m" else "ce"
        rows = [
            (
                f"This is a {en}.",
                f"{capital(yor)} ni èyí.",
                f"Wannan {hau} {be}.",
                f"Nke a bụ {ibo}.",
            )
        ]
        for my, mi, masculine, feminine, m in OWNERS if noun.kind != "sight" else []:
            owned = hau + (masculine if noun.hau_gender == "m" else feminine)
            rows.append(
                (
                    f"This is {my} {en}.",
                    f"Èyí ni {yor} {mi}.",
                    f"Wannan {owned} {be}.",
                    f"Nke a bụ {ibo} {m}.",
                )
            )
            if noun.kind == "thing":
                rows.append(
                    (
                        f"Where is {my} {en}?",
                        f"Níbo ni {yor} {mi} wà?",
                        f"Ina {owned}?",
                        f"Ebee ka {ibo} {m} dị?",
                    )
                )
        sentences += [dict(zip(LANGS, row, strict=True)) for row in rows]
    for greeting, name in itertools.product(GREETINGS, itertools.chain(*NAMES.values())):
        sentences.append(
            {lang: f"{hail}, {name}." for lang, hail in zip(LANGS, greeting, strict=True)}
        )
    return sentences


def sequence_records() -> list[dict[str, object]]:
    """Return one to seven days, months or tens in a row, with the next one, in each language."""
    counts = {"en": english, "hau": hausa, "ibo": igbo}
    tens = {lang: [count(n) for n in range(20, 101, 10)] for lang, count in counts.items()} | {
        "yor": YOR_TENS
    }
    rows = []
    for names, cyclic in ((DAYS, True), (MONTHS, True), (tens, False)):
        size = len(names["en"])
        for start, length in itertools.product(range(size), range(1, 8)):
            if cyclic or start + length < size:
                rows.append(
                    {
                        lang: [names[lang][(start + i) % size] for i in range(length + 1)]
                        for lang in LANGS
                    }
                )
    return [
        {"given": {k: v[:-1] for k, v in row.items()}, "next": {k: v[-1] for k, v in row.items()}}
        for row in rows
    ]


def language_rows(sentences: Sequence[Parallel]) -> list[tuple[str, str]]:
    """Return sentences with the name of their language.

    Every third sentence has quotes, since a `"` is text in raw TSV.
    """
    labels = {"en": "English", "yor": "Yorùbá", "hau": "Hausa", "ibo": "Igbo"}
    said = {"en": "She said:", "yor": "Ó sọ pé:", "hau": "Ta ce:", "ibo": "Ọ sịrị:"}
    rows = []
    for index, sentence in enumerate(sentences):
        lang = LANGS[index % len(LANGS)]
        text = f'{said[lang]} "{sentence[lang]}"' if index % 3 == 0 else sentence[lang]
        rows.append((text, labels[lang]))
    return rows


def text_lines(lang: str) -> list[str]:
    """Return lines of plain text: people who introduce themselves, then days, then facts."""
    owned = [noun for noun in NOUNS if noun.kind in ("thing", "beast")]
    names = NAMES[lang] if lang in NAMES else NAMES["yor"] + NAMES["hau"] + NAMES["ibo"]
    lines = []
    for i in range(28):
        name = names[i % len(names)]
        job = (HAU_WOMEN_JOBS if name in HAU_WOMEN and lang == "hau" else JOBS[lang])[i % 4]
        first, second = i * 4 % len(owned), (i * 4 + 1 + i % 13) % len(owned)
        one, other = (
            counted(owned[first], 1 + i % 10)[lang],
            counted(owned[second], 2 + i * 4 % 9)[lang],
        )
        town = TOWNS[lang][i % 5]
        lines.append(
            INTRODUCTIONS[lang].format(name=name, town=town, job=job, one=one, other=other)
        )
    days = DAYS[lang]
    lines += [
        TODAY[lang].format(today=day, tomorrow=days[(i + 1) % 7]) for i, day in enumerate(days)
    ]
    last = {"en": "and", "yor": "àti", "hau": "da", "ibo": "na"}[lang]
    week, year = (
        f"{', '.join(names[lang][:-1])} {last} {names[lang][-1]}" for names in (DAYS, MONTHS)
    )
    return lines + [fact.format(days=week, months=year) for fact in FACTS[lang]]


def write(path: Path, lines: Iterable[str]) -> None:
    """Write lines as UTF-8 in NFC.

    A `.gz` carries neither time nor name: its bytes depend on its content alone.
    """
    data = unicodedata.normalize("NFC", "".join(f"{line}\n" for line in lines)).encode()
    if path.suffix != ".gz":
        path.write_bytes(data)
        return
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
    ):
        packed.write(data)


def as_json(records: Iterable[object]) -> list[str]:
    """Return one JSON object a line, with letters as they are."""
    return [json.dumps(record, ensure_ascii=False) for record in records]


def main(folder: Path) -> None:
    """Write every data file of the corpus into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    # In the order of hashes: consecutive parts are samples that share no sentence.
    sentences = counting_sentences()
    translated, marked, labelled = sentences[:500], sentences[500:900], sentences[900:1500]
    phrases = [counted(noun, number) for noun, number in itertools.product(NOUNS, range(1, 20))]
    pairs = [
        {lang: {"plain": without_marks(row[lang]), "marked": row[lang]} for lang in ("yor", "ibo")}
        for row in marked
    ]

    write(folder / "numbers.jsonl", as_json(number_records()))
    write(folder / "phrases.jsonl", as_json({"translation": row} for row in phrases))
    write(
        folder / "sentences.jsonl",
        as_json({"translation": row} for row in translated + pattern_sentences()),
    )
    write(folder / "sequences.jsonl", as_json(sequence_records()))
    write(folder / "diacritics.jsonl.gz", as_json(pairs))
    write(
        folder / "languages.tsv",
        ["text\tlanguage", *("\t".join(row) for row in language_rows(labelled))],
    )
    for lang, name in zip(LANGS, ("eng", "yor", "hau", "ibo"), strict=True):
        write(folder / f"text-{name}.txt", text_lines(lang))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "corpus")
