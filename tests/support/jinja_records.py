"""Records of every kind of value, and Jinja2 as strict as the contract."""

from __future__ import annotations

import json
import os
import random
import struct
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

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
