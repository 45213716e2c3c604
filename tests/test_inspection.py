"""Inspection: the text of every document against the corpus it was made from, marks, colours,
refusals.
"""

from __future__ import annotations

import io
import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from rich.console import Console

import sabiprep
from sabiprep import ConfigError, DatasetError, PackedDataset, PackOptions, PackReport, Role
from sabiprep.inspection import RowView, ShownDocument, inspect

EVIL = "\x1b[2J\x07 \r\x00 \u202e ⟦t+|fake⟧ \\x1b [red]x[/red] :smile: e\u0301 👩\u200d👧"


@pytest.fixture(scope="module")
def dataset(packed: PackReport) -> PackedDataset:
    return sabiprep.open_dataset(packed.out)


def all_rows(dataset: PackedDataset) -> list[RowView]:
    return [
        inspect(dataset, split=split, row=row)
        for split in ("train", "validation")
        for row in range(len(dataset[split]))
    ]


def text_of(document: ShownDocument, *roles: Role) -> str:
    return "".join(run.text for run in document.runs if not roles or run.role in roles)


def test_the_text_of_every_document_is_that_of_the_line_it_names(
    dataset: PackedDataset, shared_corpus: Path
) -> None:
    seen = set()
    for view in all_rows(dataset):
        for document in view.shown:
            name = document.source.name
            if document.source.task == "sum":
                content = (shared_corpus / "sums.jsonl").read_bytes()
                offset = document.record_id
                assert document.place == f"sums.jsonl at byte {offset:,}"
                fields = json.loads(content[offset:].split(b"\n")[0])
                word = fields["words"] if name == "sum-eng" else fields["yor"]
                tag = name.removeprefix("sum-")
                assert text_of(document) == f"<sum> {fields['a']} {fields['b']} <{tag}>: {word}</s>"
                assert text_of(document, Role.TARGET) == f" {word}"
            elif name == "label":
                file, offset = document.record_id >> 40, document.record_id & (1 << 40) - 1
                assert document.place == f"labels-{'ab'[file]}.tsv at byte {offset:,}"
                line = (
                    (shared_corpus / f"labels-{'ab'[file]}.tsv")
                    .read_bytes()[offset:]
                    .split(b"\n")[0]
                    .decode()
                )
                text, label = line.split("\t")
                assert text_of(document) == f"<label> {text}: {label}</s>"
            seen.add((name, document.copy, document.window))
            assert document.targets == sum(
                run.tokens for run in document.runs if run.role in (Role.TARGET, Role.CONTROL)
            ) - (
                name == "plain"  # the first token of a window of plain text is not trained
            )
    assert {("sum-yor", 0, 0), ("sum-yor", 1, 0), ("label", 0, 0), ("plain", 0, 1)} <= seen


def test_the_windows_of_a_long_text_put_together_are_the_text(
    dataset: PackedDataset, shared_corpus: Path
) -> None:
    windows = {
        document.window: document
        for view in all_rows(dataset)
        for document in view.shown
        if document.source.name == "plain" and document.record_id == max_record(dataset)
    }
    assert len(windows) > 2
    trained = "".join(run.text for at in sorted(windows) for run in windows[at].runs if run.trained)
    line = (shared_corpus / "plain.txt").read_text("utf-8").splitlines()[-1]
    assert trained.startswith(line.removeprefix(windows[0].runs[0].text)) and trained.endswith(
        "</s>"
    )


def max_record(dataset: PackedDataset) -> int:
    return max(
        int(record)
        for split in (dataset.train, dataset.validation)
        for row in split
        for record, source in zip(row["record_ids"], row["source_ids"], strict=True)
        if dataset.sources[source].name == "plain"
    )


def test_counts_are_those_of_the_row(dataset: PackedDataset) -> None:
    for at, view in enumerate(all_rows(dataset)[: len(dataset.train)]):
        row = dataset.train[at]
        assert view.row == at and view.documents == len(view.shown) == len(row["seq_lengths"])
        assert [document.tokens for document in view.shown] == row["seq_lengths"].tolist()
        assert view.targets == sum(document.targets for document in view.shown) == row["n_targets"]
        assert view.padding == dataset.seq_len - row["seq_lengths"].sum()


def test_marks_tell_roles_and_what_is_trained(dataset: PackedDataset) -> None:
    view = inspect(dataset, source="sum-yor")
    lines = str(view).splitlines()
    assert lines[0].startswith(
        f"train row {view.row} (rows 0 to {len(dataset.train) - 1}): 128 tokens, "
    )
    assert lines[1].startswith(
        "legend: ⟦p|template⟧ ⟦d|data⟧ ⟦t|target⟧ ⟦c|control⟧ · + is trained"
    )
    assert (
        lines[2].startswith("── document ")
        and " · sum-yor · sum · yor · sums.jsonl at byte " in lines[2]
    )
    first = view.shown[0]
    data = [run.text for run in first.runs if run.role is Role.DATA]
    (target,) = [run.text for run in first.runs if run.role is Role.TARGET]
    assert lines[3].startswith("⟦p|<sum>") and f"⟦t+|{target}⟧⟦c+|</s>⟧" in lines[3]
    assert all(f"⟦d|{text}⟧" in lines[3] for text in data)
    assert lines[-1] == f"── padding · {view.padding} token{'s' * (view.padding != 1)}"
    assert len(lines) == 3 + 2 * len(view.shown)
    assert "\x1b" not in str(view)


def test_the_first_token_of_plain_text_is_marked_as_not_trained(dataset: PackedDataset) -> None:
    document = inspect(dataset, source="plain").shown[0]
    assert [(run.role, run.trained) for run in document.runs][:2] == [
        (Role.TARGET, False),
        (Role.TARGET, True),
    ]
    assert document.runs[0].tokens == 1
    line = str(inspect(dataset, source="plain")).splitlines()[3]
    assert line.startswith(f"⟦t|{document.runs[0].text}⟧⟦t+|")


def render(view: RowView, **console: object) -> str:
    file = io.StringIO()
    Console(file=file, width=100, **console).print(view, crop=False)  # type: ignore[arg-type]
    return file.getvalue()


def test_colours_take_the_place_of_marks(
    dataset: PackedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    view = inspect(dataset, source="sum-eng")
    shown = render(view, force_terminal=True, color_system="standard")
    assert "⟦" not in shown
    (target,) = [run.text for run in view.shown[0].runs if run.role is Role.TARGET]
    assert f"\x1b[7;32m{target}\x1b[0m" in shown  # trained: reverse; target: green
    assert "\x1b[36m<sum>" in shown and "\x1b[33m" in shown  # template: cyan; data: yellow
    assert len({role.colour for role in Role}) == len({role.letter for role in Role}) == 4


@pytest.mark.parametrize(
    "console",
    [
        {"force_terminal": True, "color_system": None},
        {"force_terminal": True, "color_system": "standard", "no_color": True},
        {"force_terminal": False},
    ],
)
def test_without_colours_there_are_marks(
    dataset: PackedDataset, console: dict[str, object]
) -> None:
    assert "⟦t+|" in render(inspect(dataset), **console)


def test_text_cannot_drive_the_terminal_nor_pass_for_a_mark(corpus: Path, tmp_path: Path) -> None:
    (corpus / "sums.jsonl").write_text(
        json.dumps({"a": "1", "b": "2", "words": EVIL, "yor": EVIL}) + "\n", "utf-8"
    )
    config = (corpus / "corpus.toml").read_text("utf-8")
    (corpus / "corpus.toml").write_text(config.replace("validation = 0.1", ""), "utf-8")
    sabiprep.pack(corpus, tmp_path / "out", PackOptions(seq_len=512))
    view = inspect(sabiprep.open_dataset(tmp_path / "out"), source="sum-eng")
    assert text_of(view.shown[0], Role.TARGET) == unicodedata.normalize("NFC", f" {EVIL}")
    expected = (
        r"⟦t+| \x1b[2J\x07 \r\x00 \u202e \u27e6t+|fake\u27e7 \\x1b [red]x[/red] "
        r":smile: é 👩\u200d👧⟧"
    )
    assert expected in str(view)
    assert expected in render(view, force_terminal=False)
    in_colour = render(view, force_terminal=True, color_system="standard")
    assert not set(in_colour) & {"\r", "\x00", "\x07", "\u202e"} and "\x1b[2J" not in in_colour


def test_only_the_documents_of_the_source_are_shown(dataset: PackedDataset) -> None:
    for name in ("sum-eng", "label", "plain"):
        view = inspect(dataset, source=name)
        assert {document.source.name for document in view.shown} == {name}
        ids = [source.name for source in dataset.sources]
        earlier = [
            row["source_ids"].tolist() for row in (dataset.train[i] for i in range(view.row))
        ]
        assert all(ids.index(name) not in sources for sources in earlier)
        sources = dataset.train[view.row]["source_ids"].tolist()
        assert [document.index for document in view.shown] == [
            at for at, source in enumerate(sources) if source == ids.index(name)
        ]
        if len(view.shown) < view.documents:
            assert f"{len(view.shown)} shown" in str(view).splitlines()[0]


def test_what_is_not_there_is_named(dataset: PackedDataset) -> None:
    last = len(dataset.train) - 1
    for row in (last + 1, -1):
        with pytest.raises(DatasetError, match=f"no row {row} .*\n.*0 to {last}"):
            inspect(dataset, row=row)
    with pytest.raises(ConfigError, match="did you mean sum-yor"):
        inspect(dataset, source="sum-yo")
    with pytest.raises(DatasetError, match="no split 'test'"):
        inspect(dataset, split="test")
    absent = next(
        (row, source)
        for row in range(last + 1)
        for source in dataset.sources
        if source.id not in dataset.train[row]["source_ids"]
    )
    with pytest.raises(DatasetError, match=f"row {absent[0]} .* no document of this source"):
        inspect(dataset, row=absent[0], source=absent[1].name)


def test_an_empty_split_says_where_the_rows_are(corpus: Path, tmp_path: Path) -> None:
    config = (corpus / "corpus.toml").read_text("utf-8")
    (corpus / "corpus.toml").write_text(config.replace("validation = 0.1", ""), "utf-8")
    report = sabiprep.pack(corpus, tmp_path / "out")
    dataset = sabiprep.open_dataset(tmp_path / "out")
    with pytest.raises(DatasetError, match=f"train split has {report.train.rows} rows"):
        inspect(dataset, split="validation")


def test_another_tokenizer_is_refused(packed: PackReport, tmp_path: Path) -> None:
    out = Path(shutil.copytree(packed.out, tmp_path / "out"))
    tokenizer = out / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\n")
    with pytest.raises(DatasetError, match="not the tokenizer"):
        inspect(sabiprep.open_dataset(out))
    tokenizer.unlink()
    with pytest.raises(DatasetError, match=r"(?s)no such file or folder.*put back"):
        inspect(sabiprep.open_dataset(out))
