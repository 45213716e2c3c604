"""Text in the colours of its roles, or in marks where there are no colours."""

from __future__ import annotations

from rich.text import Text

from sabiprep.roles import Role
from sabiprep.terminal import visible


def legend(colours: bool) -> Text:
    """Returns the line that explains colours or marks."""
    line = Text("legend: ")
    for role, meaning in (
        (Role.TEMPLATE, "template"),
        (Role.DATA, "data"),
        (Role.TARGET, "target"),
        (Role.CONTROL, "control"),
    ):
        line.append_text(marked(role, False, meaning, colours)).append(" ")
    if colours:
        return (
            line.append("· ")
            .append("trained", "reverse")
            .append(" · a token is of the part it starts in · \\ escapes, as in Python")
        )
    return line.append(
        "· + is trained · a token is of the part it starts in · \\ escapes, as in Python"
    )


def marked(role: Role, trained: bool, text: str, colours: bool) -> Text:
    """Returns a text in the colour of its role, or in marks."""
    if colours:
        return Text(text, f"{role.colour} reverse" if trained else role.colour)
    return Text(f"⟦{role.letter}{'+' if trained else ''}|{text}⟧")


def without_marks(text: str) -> str:
    """Returns the text with the characters of marks escaped."""
    return visible(text).replace("⟦", "\\u27e6").replace("⟧", "\\u27e7")
