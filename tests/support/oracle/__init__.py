"""The slow, obvious oracle of the boundary, mask, overflow and accounting contracts.

It is written from the contracts alone, with the Python `tokenizers` library, and shares nothing
with the Rust core: where the two disagree, one of them, or the contract, is wrong. It has to be
clear, not fast.

`document` does everything for one record; the other functions are its steps.
"""

from support.oracle.corpus import (
    Copy,
    Mixed,
    document,
    drops_by_content,
    loss_mask,
    mix,
    truncation_problem,
    windows,
    word_runs,
)
from support.oracle.rows import check_accounts, check_row
from support.oracle.text import (
    CONTROL,
    DATA,
    FIELD,
    TARGET,
    TEMPLATE,
    Form,
    MissingField,
    NoContinuation,
    Span,
    added_tokens,
    as_jinja_reads,
    continuation_json,
    encode_document,
    encode_run,
    first_form,
    matches,
    normalised_text,
    render,
    runs,
    template_matches,
)

__all__ = [
    "CONTROL",
    "DATA",
    "FIELD",
    "TARGET",
    "TEMPLATE",
    "Copy",
    "Form",
    "MissingField",
    "Mixed",
    "NoContinuation",
    "Span",
    "added_tokens",
    "as_jinja_reads",
    "check_accounts",
    "check_row",
    "continuation_json",
    "document",
    "drops_by_content",
    "encode_document",
    "encode_run",
    "first_form",
    "loss_mask",
    "matches",
    "mix",
    "normalised_text",
    "render",
    "runs",
    "template_matches",
    "truncation_problem",
    "windows",
    "word_runs",
]
