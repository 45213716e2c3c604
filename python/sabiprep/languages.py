"""Languages identified by ``py3langid`` (the extra ``language``), for the filter `min_language`.

Its model lies in its package and knows 139 languages. The core calls this module from the threads
that map records; the library computes under the interpreter's lock, so that threads do not make it
faster.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier


@cache
def _identifier() -> LanguageIdentifier:
    """The model, loaded once; its scores are probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def describe() -> tuple[str, list[str]]:
    """Describe the library.

    Returns:
        Its name with its version, and its codes of the languages that it knows, in order.

    Raises:
        ImportError: It is not installed.
    """
    return f"py3langid {version('py3langid')}", sorted(_identifier().labels)


def judge(text: str, code: str) -> tuple[float, str, float]:
    """Judge in which language a text is.

    Args:
        text: The text.
        code: The library's code of the language that is expected.

    Returns:
        The probability of that language, the code of the likeliest language, and the probability of
        that one; of a text that says nothing, as digits, every language is as likely.

    Raises:
        ValueError: The library does not know the code.
    """
    ranking = _identifier().rank(text)
    likeliest, most = ranking[0]
    for known, probability in ranking:
        if known == code:
            return probability, likeliest, most
    raise ValueError(f"py3langid does not know '{code}'")
