"""Templates against Python itself: `json.loads` and Jinja2 as `transformers` sets it up are the
oracle.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import sabiprep
from sabiprep import PackOptions

RECORDS = int(os.environ.get("SABIPREP_TEMPLATE_RECORDS", "2000"))
TAGS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


class Strict(jinja2.StrictUndefined):
    """An undefined value that is false, and an error wherever else it is used: what a missing field
    is by contract.
    """

    def __bool__(self) -> bool:
        return False


class NullShown(Exception):
    """A null field is shown bare: by contract, the record is dropped."""


def refuse_null(value: Any) -> Any:
    if value is None:
        raise NullShown
    return value


def oracle() -> jinja2.Environment:
    """The environment of `transformers.utils.chat_template_utils`, strict about what is missing."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols],
        undefined=Strict,
        finalize=refuse_null,
    )

    def tojson(
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
        return (
            default_value
            if isinstance(value, Strict) or value is None or (boolean and not value)
            else value
        )

    environment.filters.update(tojson=tojson, default=default)
    return environment


JINJA = oracle()

# Fields: s text, w words, f float, g small float, i int, b bool, l list of scalars, d object of
# scalars, v anything, n text or null, m messages (content may be null), e list of texts, k object
# of texts.
PLAIN = [
    "{{ s }}|{{ f }}|{{ i }}|{{ b }}",
    "{{ v }}{{ g }}\n",
    "{{ l }}{{ d }}\r\n",
    "{{ d.a }} {{ d['b'] }} {{ d[\"c d\"] }}",
    "{{ record['en-US'] }}{{ record[\"Tweet text\"] }}{{ èdè }}",
    "{{ k.a }}",
    "{{ n }}",
]
RENDERED = [
    "{% if true %}{{ s }}|{{ f }}|{{ i }}|{{ b }}|{{ v }}|{{ l }}|{{ d }}{% endif %}\n",
    "{% if true %}\n{{ f }}\n{% endif %}\n  {# gone #}\n{{ g }}",
    "{{ v | tojson }}",
    "{{ v | tojson(ensure_ascii=False) }}{{ [f, g, i, b, none] | tojson(ensure_ascii=true) }}",
    "{{ v | tojson(indent=2) }}{{ l | tojson(indent=0) }}{{ d | tojson(False, '\t') }}",
    "{{ d | tojson(sort_keys=True, separators=(',', ':')) }}{{ v | tojson(separators=[' ,', ' :'], indent=1) }}",
    "{{ f ~ g ~ i }}{{ '' ~ v ~ (l ~ d) }}{{ -f ~ f * 2 ~ s | upper ~ d['a'] }}",
    "{% set x = 'a' ~ f ~ 'b' %}{{ x }}{% if f ~ '' == f | string and not b ~ '' == 'x' %}={% endif %}",
    "{{ l | join(', ') }}{{ e | join }}{{ m | join('/', attribute='role') }}{{ [f, g] | join('-') }}",
    "{{ f | string }}{{ v | string }}{{ f | upper }}{{ l | upper }}{{ b | lower }}{{ s | title }}",
    "{{ s | upper }}{{ s | lower }}{{ s | capitalize }}{{ s | trim }}|{{ s | trim('ab ') }}",
    "{{ s | replace('a', 'b') }}{{ f | replace('.', ',') }}{{ v | replace('e', '<e>') }}{{ w | replace('o', '0', 1) }}",
    "{{ (v | string) | indent }}|{{ w | indent(2, true) }}|{{ s | indent(width=1, blank=true) }}",
    "{{ '%s %r' | format(v, s) }}{{ '%d|%5.2f|%e|%g|%x' | format(j, h, f, g, j) }}{{ '%-8s|%8s|%%' | format(b, h) }}",
    "{{ '{} {}'.format(f, v) }}{{ '{0}|{1}|{0}'.format(i, s) }}{{ '{:>8}|{:<4}|{:05d}'.format(w, 'x', j) }}",
    "{{ '{:.3f}|{:e}|{:,}|{a}'.format(h, h, j, a=l) }}",
    "{{ f | int(0) if -1e30 < f < 1e30 else 1 }}|{{ j | float }}|{{ '12' | int }}|{{ 'x' | int(7) }}",
    "{{ '1e-7' | float }}|{{ ' 1.5 ' | float(9) }}|{{ 'x' | float }}|{{ ' 12 ' | int }}|{{ none | int(3) }}",
    "{{ h | round(2) }}|{{ h | round }}|{{ h | abs }}|{{ j | abs }}|{{ h | round(1, 'floor') }}",
    "{{ j + 1 }}|{{ j * 3 }}|{{ j / 7 }}|{{ j // 7 }}|{{ j % 7 }}|{{ h * 0.1 }}|{{ h - j }}|{{ 2 ** 10 }}|{{ -h }}",
    "{{ 'n' if n is none else n }}{{ n is none }}{{ n is defined }}{{ n is string }}",
    "{{ i is number }}{{ i is integer }}{{ i is float }}{{ f is float }}{{ b is boolean }}{{ b is number }}",
    "{{ n | default('-') }}{{ missing | default(f) }}{{ '' | default('x', true) }}",
    "{% for x in m %}{% if x.content is not none %}{{ x.content }}{% else %}CALL{% endif %}{% endfor %}",
    "{% for x in m %}\n<|im_start|>{{ x.role }}\n{{ x.content | default('') }}<|im_end|>\n{% endfor %}\n<s>a\n",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}={{ v | tojson }};{% endfor %}{% for x in l %}{{ x | tojson }}{% endfor %}",
    "{{ s.strip() }}|{{ s.split() }}|{{ s.split('a') }}|{{ s.splitlines() }}|{{ s.upper() }}|{{ ', '.join(e) }}",
    "{{ w.title() }}|{{ w.replace('o', 'O') }}|{{ w.startswith('a') }}|{{ w.find('e') }}|{{ w[1:3] }}|{{ w | length }}",
    "{{ l | length }}{{ e | first }}{{ e | last }}{{ e | list }}{{ (e[1:]) | list }}{{ e | reverse | list }}",
    "{{ l[1:] }}{{ e[::-1] }}{{ e[:1] }}",
    "{{ f > 0.5 }}{{ j == 3 }}{{ h != j }}{{ 'a' in s }}{{ 'a' in d }}{{ s == 'a' or b }}{{ [1, 2.5, none] }}",
    "{{ {'a': f, 'b': [g, none, s]} }}{{ (1, f) }}{{ (s,) }}",
    "{% set ns = namespace(x=0) %}{% for x in e %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
    "{% for x in e %}{{ loop.index0 }}{% if x == '' %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% macro show(x, y=1) %}[{{ x }}{{ y }}]{% endmacro %}{{ show(f) }}{{ show(s, g) }}",
    "{{ d.get('a', 'x') }}{{ d.get('zz', f) }}{{ e | map('upper') | list }}{{ m | map(attribute='role') | join }}",
    "{{ bos_token }}{{ s }}{{ eos_token }}",
    "{{ missing if n is none else s }}",
    "{{ n.x if b else s }}",
]


def texts(rng: random.Random) -> str:
    kinds = [
        "ab c",
        "ọ̀ṣọ́ Ẹ",
        "'\"\\ '",
        "\n\t\r",
        "\u200b\u00ad\ue000\u2028",
        "😀𝒳",
        "1.5e-7 -0",
        "ŠIJ ßǆ",
        "\x01\x1c\x7f\x85",
    ]
    return "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randrange(9)))


def floats(rng: random.Random) -> float:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.random()
    if kind == 1:
        return rng.choice(
            [
                0.0,
                -0.0,
                1e16,
                1e-7,
                1e15,
                123456789012345680.0,
                0.0001,
                0.00001,
                5e-324,
                1.7976931348623157e308,
            ]
        )
    if kind == 2:
        while True:
            value = struct.unpack("<d", rng.randbytes(8))[0]
            if value == value and abs(value) != float("inf"):
                return float(value)
    return rng.uniform(-1000, 1000) if kind < 5 else float(rng.randrange(10**6)) / 8


def ints(rng: random.Random) -> int:
    return rng.choice(
        [
            0,
            1,
            -1,
            rng.randrange(-1000, 1000),
            rng.getrandbits(70),
            -rng.getrandbits(126),
            2**63,
            2**64,
        ]
    )


def scalars(rng: random.Random) -> Any:
    return rng.choice([texts, floats, ints, lambda _: None, lambda r: r.random() < 0.5])(rng)


def anything(rng: random.Random, depth: int = 3) -> Any:
    kind = rng.randrange(6 if depth else 4)
    if kind < 4:
        return scalars(rng) if depth < 3 else [scalars(rng)]
    if kind == 4:
        return [anything(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {texts(rng): anything(rng, depth - 1) for _ in range(rng.randrange(4))}


def records(rng: random.Random) -> dict[str, Any]:
    return {
        "s": texts(rng),
        "w": rng.choice(["one two", "ọ̀kan ẹ̀jì", "they're bob-cat Óò", "a.b e"]),
        "f": floats(rng),
        "g": rng.choice([1e-7, 1.5e-10, 1e22, 2.5e-5]) * rng.randrange(1, 9),
        "h": round(rng.uniform(-100, 100), rng.randrange(5)),
        "i": rng.choice([ints(rng), rng.getrandbits(300)]),
        "j": rng.randrange(-(10**6), 10**6),
        "b": rng.random() < 0.5,
        "l": [scalars(rng) for _ in range(rng.randrange(5))],
        "d": {
            "a": floats(rng),
            "b": texts(rng),
            "c d": scalars(rng) or 0,
            "e": rng.choice([None, [None, 1e-9]]),
        },
        "v": anything(rng),
        "n": rng.choice([None, texts(rng)]),
        "m": [
            {"role": rng.choice(["user", "model"]), "content": rng.choice([None, texts(rng)])}
            for _ in range(rng.randrange(4))
        ],
        "e": [texts(rng) for _ in range(1 + rng.randrange(3))],
        "k": {"a": texts(rng)},
        "en-US": texts(rng),
        "Tweet text": rng.choice([texts(rng), floats(rng)]),
        "èdè": texts(rng),
    }


def byte_tokenizer(file: Path) -> dict[int, bytes]:
    """Write a tokenizer with a token for each byte and for each of `TAGS`; returns what each id
    spells.
    """
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocab = {letter: index for index, letter in enumerate(sorted(letters))}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(TAGS)
    tokenizer.save(str(file))
    spelled = {tokenizer.token_to_id(tag): tag.encode() for tag in TAGS}
    for byte in range(256):
        # The alphabet's order by byte: printable ones stand for themselves, the others follow.
        spelled[vocab[letter_of(byte)]] = bytes([byte])
    return spelled


def letter_of(byte: int) -> str:
    """The letter of a byte in byte-level BPE, as GPT-2 has it."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in printable].index(byte))


def write_corpus(
    folder: Path, templates: list[str], lines: list[str], head: str = ""
) -> dict[int, bytes]:
    """A corpus of one source for each template, all of the same lines; its prompt is the template,
    its target `.`.
    """
    folder.mkdir()
    spelled = byte_tokenizer(folder / "tokenizer.json")
    (folder / "a.jsonl").write_text("".join(line + "\n" for line in lines), "utf-8")
    toml = [
        '[tokenizer]\nfile = "tokenizer.json"\nbos = "<s>"\neos = "</s>"\n[pack]\nseq_len = 8192\n',
        head,
    ]
    for index, template in enumerate(templates):
        prompt = json.dumps(template, ensure_ascii=False)
        toml.append(
            f'[[source]]\nname = "t{index}"\nfiles = ["a.jsonl"]\noverflow = "error"\n'
            f'segments = [{{ prompt = {prompt} }}, {{ target = "." }}]\n'
        )
    (folder / "corpus.toml").write_text("".join(toml), "utf-8")
    return spelled


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text("utf-8") + text, "utf-8")


def documents(out: Path, spelled: dict[int, bytes]) -> Iterator[tuple[int, int, str]]:
    """Source, offset of the record, and text of every document, BOS and EOS taken off."""
    with sabiprep.open_dataset(out) as data:
        for split in (data.train, data.validation):
            for row in (split[index] for index in range(len(split))):
                at = 0
                for length, source, record in zip(
                    row["seq_lengths"], row["source_ids"], row["record_ids"], strict=True
                ):
                    ids = row["input_ids"][at + 1 : at + int(length) - 1].tolist()
                    at += int(length)
                    yield (
                        int(source),
                        int(record),
                        b"".join(spelled[index] for index in ids).decode("utf-8"),
                    )


@lru_cache
def compiled(template: str) -> jinja2.Template:
    return JINJA.from_string(template)


def rendered(template: str, record: dict[str, Any]) -> str | None:
    """What Jinja2 makes of a record; nothing where the contract drops it."""
    names = record | {
        "record": record,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
    }
    try:
        text = compiled(template).render(names)
    except (jinja2.UndefinedError, NullShown):
        return None
    # The BOS of the configuration stands for one that the template begins with.
    return (
        text.removeprefix("<s>")
        if "<s>" in template or template.startswith("{{ bos_token }}")
        else text
    )


@pytest.mark.parametrize("templates", [PLAIN, RENDERED], ids=["compiled", "rendered"])
def test_templates_render_what_json_and_jinja2_render(tmp_path: Path, templates: list[str]) -> None:
    rng = random.Random(0)
    count = -(-RECORDS // len(PLAIN + RENDERED))
    lines = [json.dumps(records(rng), ensure_ascii=rng.random() < 0.5) for _ in range(count)]
    spelled = write_corpus(tmp_path / "corpus", templates, lines)
    sabiprep.pack(tmp_path / "corpus", tmp_path / "out", PackOptions(threads=2))
    offsets, at = {}, 0
    for index, line in enumerate(lines):
        offsets[at] = index
        at += len(line.encode()) + 1
    seen = {
        (source, offsets[record]): text
        for source, record, text in documents(tmp_path / "out", spelled)
    }
    loaded = [json.loads(line) for line in lines]
    for source, template in enumerate(templates):
        for index, record in enumerate(loaded):
            expected = rendered(template, record)
            shown = seen.get((source, index))
            assert shown == (None if expected is None else expected + "."), (template, lines[index])


def drops(out: Path, source: int = 0) -> list[tuple[int, str, str]]:
    """Line, reason and words of the records of a source that the report shows as dropped."""
    examples = json.loads((out / "manifest.json").read_text("utf-8"))["sources"][source]["examples"]
    return sorted((example["line"], example["reason"], example["why"]) for example in examples)


def test_what_no_text_can_hold_costs_the_record_only_where_it_is_read(tmp_path: Path) -> None:
    lines = [
        '{"s": "a", "x": NaN}',
        '{"s": "b", "x": {"deep": ["\\ud800"]}, "\\udc00": 1}',
        '{"s": "c", "x": 1e999}',
        '{"s": "d", "x": 1}',
    ]
    templates = [
        "{{ s }}",
        "{% if true %}{{ s }}{% endif %}",
        "{{ s }}{{ x }}",
        "{% if true %}{{ x | tojson }}{% endif %}",
    ]
    spelled = write_corpus(tmp_path / "corpus", templates, lines)
    sabiprep.pack(tmp_path / "corpus", tmp_path / "out")
    kept = sorted((source, text) for source, _, text in documents(tmp_path / "out", spelled))
    assert kept == [
        (0, "a."),
        (0, "b."),
        (0, "c."),
        (0, "d."),
        (1, "a."),
        (1, "b."),
        (1, "c."),
        (1, "d."),
        (2, "d1."),
        (3, "1."),
    ]
    read = drops(tmp_path / "out", 2)
    assert [(line, reason) for line, reason, _ in read] == [
        (1, "malformed"),
        (2, "malformed"),
        (3, "malformed"),
    ]
    assert [
        word in why for word, (_, _, why) in zip(["NaN", "\\ud800", "1e999"], read, strict=True)
    ] == [True] * 3
    assert "template line 1, column" in drops(tmp_path / "out", 3)[0][2]


@pytest.mark.parametrize(
    ("template", "record", "reason", "words"),
    [
        ("{{ n }}", {"n": None}, "missing field", ["field 'n' is null"]),
        (
            "{% if true %}{{ n }}{% endif %}",
            {"n": None},
            "missing field",
            ["field 'n' is null", "column 17", "{{ n }}"],
        ),
        (
            "a\n{% for x in ms %}{{ x }}{% endfor %}",
            {"m": []},
            "missing field",
            ["'ms' is missing", "line 2", "fields: m"],
        ),
        (
            "{{ pad }}{% if 1 %}{{ d.a.b }}{% endif %}",
            {"pad": "", "d": {"a": {}}},
            "missing field",
            ["'d.a.b' is missing"],
        ),
        ("{{ en-US }}", {"en-US": "x"}, "template error", ['{{ record["en-US"] }}']),
        (
            "{{ m | tojson(indnt=2) }}",
            {"m": 1},
            "template error",
            ["indnt", "{{ m | tojson(indnt=2) }}"],
        ),
        ("{{ strftime_now('%d') }}", {"m": 1}, "template error", ["each day"]),
        ("{{ raise_exception('odd ' ~ m) }}", {"m": 1e-7}, "template error", ["odd 1e-07"]),
        ("{{ '%(a)s' | format(a=m) }}", {"m": 1}, "template error", ["%(name)s"]),
        ("{{ '%9999999d' | format(m) }}", {"m": 1}, "template error", ["wider than"]),
        ("{{ m > 1 }}", {"m": 10**50}, "template error", ["an integer of 51 digits"]),
    ],
)
def test_a_record_that_a_template_cannot_render_is_named_with_the_place(
    tmp_path: Path, template: str, record: dict[str, Any], reason: str, words: list[str]
) -> None:
    write_corpus(tmp_path / "corpus", [template], [json.dumps(record)])
    told = sabiprep.explain(record, "t0", corpus=tmp_path / "corpus")
    assert told.dropped is not None
    dropped = str(told.dropped)
    assert reason in dropped
    assert [word for word in words if word not in dropped] == []


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{q} and {{ Tweet text }}",
            ['{{ record["Tweet text"] }}', "line 1, column", "{{ Tweet text }}"],
        ),
        ("Question: {q}", ["show no field", "write {{ q }} for {q}"]),
        ("\n{{ a | nope }}", ["nope", "line 2"]),
    ],
)
def test_a_wrong_template_is_refused_with_what_was_meant(
    tmp_path: Path, template: str, words: list[str]
) -> None:
    write_corpus(tmp_path / "corpus", [template], ['{"q": "x", "a": "y"}'])
    with pytest.raises(sabiprep.SabiprepError) as caught:
        sabiprep.pack(tmp_path / "corpus", tmp_path / "out")
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_header_is_not_a_record(tmp_path: Path) -> None:
    def corpus(name: str, keys: str, first: str) -> Path:
        folder = tmp_path / name
        write_corpus(folder, [], [])
        (folder / "a.tsv").write_text(f"{first}\none\ttwo\n", "utf-8")
        source = f'[[source]]\nname = "a"\nfiles = ["a.tsv"]\n{keys}\nsegments = [{{ prompt = "{{{{ p }}}}" }}, '
        append(folder / "corpus.toml", source + '{ target = "{{ t }}" }]\n')
        return folder

    columns = 'columns = ["p", "t"]'
    for first in ("Tweet text\tLabel", "P\tt"):
        with pytest.raises(sabiprep.SabiprepError, match="looks like a header") as caught:
            sabiprep.pack(corpus(f"unsaid {first[:1]}", columns, first), tmp_path / "out")
        assert "header = true" in str(caught.value)
    for name, keys, first, records in [
        ("skipped", columns + "\nheader = true", "Tweet text\tLabel", 1),
        ("kept", columns + "\nheader = false", "Tweet text\tLabel", 2),
        ("none", columns, "good morning to all of you\tẹ káàárọ̀", 2),
        ("named", "header = true", "p\tt", 1),
    ]:
        sabiprep.pack(corpus(name, keys, first), tmp_path / f"{name}.out")
        manifest = json.loads((tmp_path / f"{name}.out" / "manifest.json").read_text("utf-8"))
        assert (manifest["sources"][0]["records"], manifest["sources"][0]["kept"]) == (
            records,
            records,
        ), name


def test_a_conversation_shorter_than_its_segments_says_how_to_work_round(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    write_corpus(folder, [], ['{"m": ["q", "a", "q", "a"]}', '{"m": ["q", "a"]}'])
    turns = [("prompt", "{{ m[0] }}"), ("target", "{{ m[1] }}")]
    turns += [
        (kind, f"{{% if m | length > 2 %}}{{{{ m[{i}] }}}}{{% endif %}}")
        for i, kind in ((2, "prompt"), (3, "target"))
    ]
    segments = ", ".join(f'{{ {kind} = "{template}" }}' for kind, template in turns)
    append(
        folder / "corpus.toml",
        f'[[source]]\nname = "a"\nfiles = ["a.jsonl"]\nsegments = [{segments}]\n',
    )
    sabiprep.pack(folder, tmp_path / "out")
    ((line, reason, why),) = drops(tmp_path / "out")
    assert (line, reason) == (2, "empty target")
    assert "target 2 of 2" in why and "one source for each number of turns" in why


def test_record_is_the_field_of_that_name_where_there_is_one(tmp_path: Path) -> None:
    lines = [
        '{"a b": "whole"}',
        '{"record": {"a b": "field"}, "a b": "whole"}',
        '{"a b": "whole", "record": "text"}',
    ]
    templates = ['{{ record["a b"] }}', '{% generation %}{{ record["a b"] }}{% endgeneration %}']
    spelled = write_corpus(tmp_path / "corpus", templates, lines)
    sabiprep.pack(tmp_path / "corpus", tmp_path / "out")
    kept = sorted(
        (source, record, text) for source, record, text in documents(tmp_path / "out", spelled)
    )
    second = len(lines[0]) + 1
    assert kept == [
        (source, at, text) for source in (0, 1) for at, text in ((0, "whole."), (second, "field."))
    ]
    assert [drop[:2] for source in (0, 1) for drop in drops(tmp_path / "out", source)] == [
        (3, "missing field")
    ] * 2
