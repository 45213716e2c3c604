"""Make the golden cases that Rust and pytest both read: ``python tests/golden/make_golden.py``.

The expected values are the oracle's. The tokenizers are trained anew only when their files are
missing, so that the ids stay; a change in any other file is a change of contract, to be read by
eye.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support import oracle, strategies  # noqa: E402

TOKENIZERS = {
    "bytelevel": ("tokenizer-bytelevel.json", "bytes-nfc"),
    "bytelevel-prefix": ("tokenizer-bytelevel-prefix.json", "bytes-prefix"),
    "metaspace": ("tokenizer-metaspace.json", "metaspace-first"),
    "llama": ("tokenizer-llama.json", "llama"),
}
"""Byte-level BPE with NFC; byte-level with a prefix space; Metaspace "first" without byte fallback;
Llama's Prepend.
"""

TRANSLATE = [
    {"prompt": "<translate> {{ translation.en }} <yor>:"},
    {"target": " {{ translation.yor }}"},
]
LABEL = [{"prompt": "{{ text }} label:"}, {"target": " {{ label }}"}]
BYTES, PREFIX, META, LLAMA = TOKENIZERS
ALL = (BYTES, PREFIX, META, LLAMA)

CASES: list[tuple[str, tuple[str, ...], str | None, list[dict[str, str]], dict[str, Any]]] = [
    (
        "a translation",
        ALL,
        None,
        TRANSLATE,
        {"translation": {"en": "three schools", "yor": "ilé-ìwé mẹ́ta"}},
    ),
    ("BOS opens the document", (BYTES, META), "<s>", LABEL, {"text": "go", "label": "yes"}),
    (
        "a one-token target after a space",
        ALL,
        None,
        LABEL,
        {"text": "going to school", "label": "yes"},
    ),
    (
        "digits split by the boundary",
        ALL,
        None,
        [{"prompt": "{{ a }}"}, {"target": "{{ b }}"}],
        {"a": "12", "b": "24"},
    ),
    (
        "whole numbers are rendered",
        (BYTES,),
        None,
        [{"prompt": "{{a}}+"}, {"target": "{{b}}"}],
        {"a": 12, "b": -3},
    ),
    ("plain text alone", ALL, None, [{"target": "{{ text }}"}], {"text": "Yara suna zuwa."}),
    (
        "an empty prompt leaves the target first",
        ALL,
        None,
        [{"prompt": "{{ a }}"}, {"target": "yes"}],
        {"a": ""},
    ),
    (
        "a control token in the data is text",
        ALL,
        None,
        LABEL,
        {"text": "a </s> b<yor>", "label": "</s>"},
    ),
    (
        "a field completes a control token",
        (BYTES, LLAMA),
        None,
        [{"prompt": "<yo{{ a }}:"}, {"target": "x"}],
        {"a": "r>"},
    ),
    (
        "a field begins a control token",
        (BYTES, META),
        None,
        [{"prompt": "{{ a }}r>:"}, {"target": "x"}],
        {"a": "<yo"},
    ),
    (
        "an empty field keeps halves apart",
        (BYTES,),
        None,
        [{"prompt": "<yo{{ a }}r>"}, {"target": "x"}],
        {"a": ""},
    ),
    (
        "a longer control token completed by data",
        (BYTES,),
        None,
        [{"prompt": "<yor>{{ a }}"}, {"target": "x"}],
        {"a": ": y"},
    ),
    (
        "two prompts make a control token",
        (BYTES,),
        None,
        [{"prompt": "<yo"}, {"prompt": "r>:"}, {"target": "x"}],
        {},
    ),
    (
        "no control token across a boundary",
        (BYTES,),
        None,
        [{"prompt": "a <yo"}, {"target": "r>"}],
        {},
    ),
    (
        "a control token in a target",
        (BYTES, META),
        None,
        [{"prompt": "{{ a }}"}, {"target": " {{ a }}<|sep|>x"}],
        {"a": "<|sep|>"},
    ),
    (
        "text after a control token",
        ALL,
        None,
        [{"prompt": "<yor>a<yor> a {{ x }}"}, {"target": "a<yor>a"}],
        {"x": "a"},
    ),
    (
        "two turns",
        (BYTES, PREFIX, META),
        None,
        [*LABEL, {"prompt": "\nyes {{ text }}:"}, {"target": " no"}],
        {"text": "o", "label": "no"},
    ),
    (
        "adjacent targets are one run",
        (BYTES,),
        None,
        [{"prompt": "label:"}, {"target": " y"}, {"target": "{{ a }}"}],
        {"a": "es"},
    ),
    (
        "adjacent fields are one run",
        (BYTES,),
        None,
        [{"prompt": "{{ a }}{{ b }}"}, {"target": " no"}],
        {"a": " y", "b": "es"},
    ),
    (
        "marks compose within a run",
        (BYTES, PREFIX),
        None,
        LABEL,
        {"text": "o\u0323\u0300 e\u0323\u0301", "label": "o\u0323"},
    ),
    (
        "a mark of the data on a letter of the template",
        (BYTES,),
        None,
        [{"prompt": "o{{ a }}"}, {"target": "x"}],
        {"a": "\u0323 a"},
    ),
    (
        "marks do not compose across a boundary",
        (BYTES,),
        None,
        [{"prompt": "o"}, {"target": "{{ a }}"}],
        {"a": "\u0323"},
    ),
    (
        "a mark on a control token stays beside it",
        (BYTES,),
        None,
        [{"prompt": "<yor>{{ a }}"}, {"target": "x"}],
        {"a": "\u0338"},
    ),
    ("emoji joined by ZWJ", (BYTES, META, LLAMA), None, LABEL, {"text": "👩🏽‍👧 a", "label": "👧"}),
    (
        "NUL, lone CR, tab and noncharacter",
        (BYTES, LLAMA),
        None,
        LABEL,
        {"text": "a\u0000b\rc\td\ufdd0e", "label": "x\r"},
    ),
    (
        "spaces at the boundary",
        ALL,
        None,
        [{"prompt": "{{ a }}  "}, {"target": "  {{ b }} "}],
        {"a": " x ", "b": "y"},
    ),
    (
        "template signs and marks of spaces in data",
        (BYTES, META, LLAMA),
        None,
        LABEL,
        {"text": "{{ label }} ▁Ġ", "label": "{% x %}"},
    ),
]

WINDOWS = [
    *((n, 64) for n in (1, 2, 63, 64, 65, 66, 127, 128, 129, 190, 191, 1000)),
    *((n, 2) for n in (2, 5)),
    *((n, 2048) for n in (2048, 2049, 10_000)),
]


def boundary() -> dict[str, Any]:
    """The contents of ``boundary.json``."""
    files = {
        name: json.loads((HERE / file).read_text("utf-8")) for name, (file, _) in TOKENIZERS.items()
    }
    cases = []
    for title, names, bos, segments, record in CASES:
        for name in names:
            file = json.dumps(files[name])
            control = oracle.added_tokens(file)
            document = oracle.document(
                file,
                [pair for segment in segments for pair in segment.items()],
                record,
                bos_id=None if bos is None else control[bos],
                eos_id=control["</s>"],
            )
            cases.append(
                {
                    "name": f"{title} ({name})",
                    "tokenizer": name,
                    "bos": bos,
                    "eos": "</s>",
                    "segments": segments,
                    "record": record,
                    "spans": [
                        {"text": span.text, "role": span.role, "data": span.data}
                        for span in document["spans"]
                    ],
                    "ids": document["ids"],
                    "roles": document["roles"],
                    "loss_mask": document["loss_mask"],
                }
            )
    return {"tokenizers": {name: file for name, (file, _) in TOKENIZERS.items()}, "cases": cases}


def windows() -> list[dict[str, Any]]:
    """The contents of ``windows.json``."""
    return [
        {"n": n, "seq_len": t, "windows": [list(window) for window in oracle.windows(n, t)]}
        for n, t in WINDOWS
    ]


def one_line_each(entries: list[dict[str, Any]], indent: str) -> str:
    """JSON objects, each field on a line of its own."""
    objects = []
    for entry in entries:
        fields = [
            f"{indent}  {json.dumps(key)}: {json.dumps(value, ensure_ascii=True)}"
            for key, value in entry.items()
        ]
        objects.append(indent + "{\n" + ",\n".join(fields) + f"\n{indent}}}")
    return "[\n" + ",\n".join(objects) + f"\n{indent[2:]}]"


def main() -> None:
    """Write what is missing of the tokenizers, and the cases."""
    for file, kind in TOKENIZERS.values():
        if not (HERE / file).exists():
            tokenizer = json.loads(strategies.tokenizer_json(kind, 320))
            (HERE / file).write_text(
                json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n", "utf-8"
            )
    cases = boundary()
    (HERE / "boundary.json").write_text(
        f'{{\n  "tokenizers": {json.dumps(cases["tokenizers"])},\n'
        f'  "cases": {one_line_each(cases["cases"], "    ")}\n}}\n',
        "utf-8",
    )
    (HERE / "windows.json").write_text(one_line_each(windows(), "  ") + "\n", "utf-8")


if __name__ == "__main__":
    main()
