"""``hf://`` in a corpus, served by a stub of the Hub on loopback, each command in a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sabiprep
from sabiprep import ConfigError, InputError, SabiprepError
from sabiprep.hub import _pattern
from sabiprep.manifest import read_manifest
from support import packer
from support.files import files_of
from support.hub import Hub, served
from support.strategies import tokenizer_json

pytest.importorskip("huggingface_hub")

NAME = "masakhane/news"
TOKEN = "hf_secretsecretsecretsecret"


def lines(name: str, count: int = 30) -> bytes:
    return "".join(f"{name} ọ̀rọ̀ {nth}\n" for nth in range(count)).encode()


ALL = ["hau", "yor"]
FILES = {
    "README.md": b"# news\n",
    "data/yor/train.txt": lines("yor"),
    "data/hau/train.txt": lines("hau"),
    "data/hau/test.txt": lines("test", 5),
    "data/hau/deep/train.txt": lines("deep"),
    "odd [1].txt": lines("odd"),
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub with one dataset."""
    with served(Hub()) as hub:
        hub.commit(NAME, FILES)
        yield hub


class Place:
    """A corpus, a cache, and commands that run with it against a Hub."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        """Makes the corpus, which has no source yet."""
        self.folder, self.hub = folder, hub
        self.corpus = folder / "corpus"
        self.corpus.mkdir()
        (self.corpus / "tokenizer.json").write_text(tokenizer_json("bytes"), "utf-8")

    def write(self, *patterns: str, **source: Any) -> None:
        sources = [{"name": "s", "files": list(patterns)} | source]
        packer.write_config(
            self.corpus, sources, tokenizer={"file": "tokenizer.json"}, pack={"seq_len": 64}
        )

    def run(
        self, *arguments: object, cache: str = "cache", **env: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("HF_", "HUGGING"))
        }
        settings = {
            "HF_HOME": str(self.folder / cache),
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "sabiprep", *map(str, arguments)],
            env={**kept, **settings, **env},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )
        assert "Traceback" not in done.stderr and TOKEN not in done.stdout + done.stderr
        return done

    def pack(self, out: str, *options: str, cache: str = "cache", **env: str) -> Path:
        done = self.run("pack", self.corpus, self.folder / out, *options, cache=cache, **env)
        assert done.returncode == 0, done.stderr
        return self.folder / out

    def refused(self, **env: str) -> str:
        done = self.run("pack", self.corpus, self.folder / "refused", **env)
        assert done.returncode == 1, done.stdout
        assert not (self.folder / "refused").exists()
        return done.stderr


@pytest.fixture
def place(tmp_path: Path, hub: Hub) -> Place:
    """A corpus and a cache of the test's own."""
    return Place(tmp_path, hub)


def inputs(out: Path) -> list[str]:
    return [entry["path"] for entry in read_manifest(out).raw["inputs"]]


def test_files_are_found_fetched_and_named_by_their_commit(place: Place, hub: Hub) -> None:
    place.write(
        f"hf://datasets/{NAME}/data/*/train.txt",
        validation_files=[f"hf://datasets/{NAME}@main/data/hau/test.txt"],
    )
    out = place.pack("out", HF_TOKEN=TOKEN)
    commit = hub.datasets[NAME]["main"][0]
    names = ["data/hau/train.txt", "data/yor/train.txt", "data/hau/test.txt"]
    assert inputs(out) == [f"hf://datasets/{NAME}@{commit}/{name}" for name in names]
    manifest = read_manifest(out).raw
    assert manifest["splits"]["validation"]["documents"] == 5
    assert str(place.folder) not in json.dumps(manifest), "no path of this machine"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    fetched = {request for request in hub.requests if "/resolve/" in request}
    assert not any("deep" in request or "README" in request for request in fetched)
    # The same bytes from another cache, and by files of the same content nothing differs but names.
    other = place.pack("other", cache="elsewhere")
    assert files_of(other) == files_of(out)
    # What is in the cache is not fetched again.
    hub.requests.clear()
    assert files_of(place.pack("again")) == files_of(out)
    assert not any("/resolve/" in request for request in hub.requests)


def test_a_dataset_is_resumed_mixed_again_and_verified_by_the_same_names(place: Place) -> None:
    place.write(f"hf://datasets/{NAME}/**/train.txt")
    out = place.pack("out", "--keep-spool")
    assert len(inputs(out)) == 3
    assert place.run("pack", place.corpus, out, "--resume").returncode == 0
    mixed = place.run("remix", out, place.folder / "mixed")
    assert mixed.returncode == 0 and "tokenized before" in mixed.stdout, mixed.stderr
    verified = place.run("verify", out, "--against", place.corpus)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    explained = place.run("explain", place.corpus, "--source", "s", "--record", '{"text": "a"}')
    assert explained.returncode == 0, explained.stderr
    trained = place.run(
        "tokenizer", "train", place.corpus, place.folder / "new.json", "--vocab-size", "300"
    )
    assert trained.returncode == 0, trained.stderr


def test_a_source_for_each_language_of_its_files(place: Place, hub: Hub) -> None:
    def rows(out: Path) -> list[tuple[Any, ...]]:
        sources = read_manifest(out).raw["sources"]
        return [(s["name"], s["task"], s["lang"], s["inputs"]) for s in sources]

    commit = hub.commit(
        "flores/plus", {f"{name}/{name}.dev": lines(name) for name in ("eng", *ALL)}
    )
    beginning = f"hf://datasets/flores/plus@{commit}"
    place.write("hf://datasets/flores/plus/{lang:hau|yor}/{lang}.dev", format="text")
    listed = [(f"s-{lang}", "s", lang, [f"{beginning}/{lang}/{lang}.dev"]) for lang in ALL]
    assert rows(place.pack("listed")) == listed
    place.write("hf://datasets/flores/plus/[!e]*/{lang}.dev", format="text")
    assert rows(place.pack("found")) == listed
    place.write("hf://datasets/flores/plus/**/{lang}.de[v]", format="text")
    assert [row[2] for row in rows(place.pack("all"))] == ["eng", *ALL]
    # Parallel text: one side for all, one of each language.
    sides = {"en": "hf://datasets/flores/plus/eng/eng.dev"}
    sides["other"] = "hf://datasets/flores/plus/{lang:hau|yor}/{lang}.dev"
    segments = [{"prompt": "{{ en }} <{lang}>:"}, {"target": "{{ other }}"}]
    place.write(files=sides, segments=segments)
    assert [row[:3] for row in rows(place.pack("sides"))] == [row[:3] for row in listed]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{lang:hau|zul}/train.txt", r"no file of the dataset matches data/zul/train\.txt"),
        ("{lang}/{lang}.txt", "no file of the dataset matches"),
        ("*{lang}/train.txt", "may be .* in the name of data/.*remedy|list the languages"),
    ],
)
def test_files_without_a_clear_language_are_refused(place: Place, path: str, message: str) -> None:
    place.write(f"hf://datasets/{NAME}/data/{path}")
    assert re.search(message, place.refused()), place.refused()


def test_a_revision_is_a_branch_a_tag_or_a_commit(place: Place, hub: Hub) -> None:
    parquet = hub.commit(NAME, {"a.txt": lines("parquet")}, "refs/convert/parquet")
    main = hub.datasets[NAME]["main"][0]
    place.write(f"hf://datasets/{NAME}@refs%2Fconvert%2Fparquet/a.txt")
    assert inputs(place.pack("branch")) == [f"hf://datasets/{NAME}@{parquet}/a.txt"]
    place.write(
        f"hf://datasets/{NAME}@{main}/data/yor/train.txt", f"hf://datasets/{NAME}/odd [1].txt"
    )
    found = place.pack("commit")
    names = ["data/yor/train.txt", "odd [1].txt"]
    assert inputs(found) == [f"hf://datasets/{NAME}@{main}/{name}" for name in names]
    # The branch moves on: the commit of the dataset says so.
    moved = hub.commit(NAME, {**FILES, "odd [1].txt": lines("moved")})
    place.write(f"hf://datasets/{NAME}/odd [1].txt")
    assert inputs(place.pack("moved")) == [f"hf://datasets/{NAME}@{moved}/odd [1].txt"]


def test_offline_the_cache_serves_what_it_holds_whole(place: Place, hub: Hub) -> None:
    pattern = f"hf://datasets/{NAME}/data/*/train.txt"
    place.write(pattern)
    out = place.pack("out")
    hub.requests.clear()
    offline = {"HF_HUB_OFFLINE": "1"}
    assert files_of(place.pack("offline", **offline)) == files_of(out)
    # Nobody listens there.
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert files_of(place.pack("nowhere", **nowhere)) == files_of(out)
    assert not hub.requests
    # A file that was never fetched is not passed over in silence.
    place.write(f"hf://datasets/{NAME}/data/**/*.txt")
    error = place.refused(**offline)
    assert "HF_HUB_OFFLINE is set" in error and "source 's'" in error
    place.write(f"hf://datasets/{NAME}@other/a.txt")
    assert "HF_HUB_OFFLINE is set" in place.refused(**offline)
    assert "cannot be fetched" in place.refused(**nowhere)


@pytest.mark.parametrize(
    "fault",
    [("/revision/", 500), ("/api/", 503), ("/tree/", 500), ("/resolve/", 500), ("/resolve/", 0)],
)
def test_a_fault_that_passes_is_passed_over(place: Place, hub: Hub, fault: tuple[str, int]) -> None:
    place.write(f"hf://datasets/{NAME}@main/data/yor/train.txt")
    hub.faults += [fault, fault]
    out = place.pack("out")
    assert not hub.faults
    assert read_manifest(out).raw["sources"][0]["records"] == 30


@pytest.mark.parametrize(
    ("pattern", "answer", "words"),
    [
        ("no/such/a.txt", None, ["no such dataset on the Hub", "huggingface.co/datasets/no/such"]),
        (f"{NAME}@v9/a.txt", None, ["no revision 'v9'"]),
        (f"{NAME}/data/yor/trian.txt", None, ["no file", "did you mean data/yor/train.txt?"]),
        (f"{NAME}/*.parquet", None, ["no file of the dataset matches"]),
        (f"{NAME}/odd*", (403, "GatedRepo"), ["is gated", "accept its conditions", "HF_TOKEN"]),
        (f"{NAME}/odd*", (401, "RepoNotFound"), ["no such dataset", "private"]),
        (f"{NAME}/odd*", (401, ""), ["HF_TOKEN"]),
        (f"{NAME}/odd*", (404, "RepoNotFound"), ["no such dataset on the Hub"]),
        (f"{NAME}/odd*", (500, ""), ["the Hub answers 500"]),
    ],
)
def test_what_cannot_be_fetched_is_an_error_with_its_pattern_source_and_remedy(
    place: Place, hub: Hub, pattern: str, answer: tuple[int, str] | None, words: list[str]
) -> None:
    if answer is not None:
        hub.always["/"] = answer
    place.write(f"hf://datasets/{pattern}")
    error = place.refused(HF_TOKEN=TOKEN)
    assert f"hf://datasets/{pattern}, source 's': " in error and "Remedy: " in error
    for word in words:
        assert word in error, error


def test_without_the_package_the_remedy_names_the_extra(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(f"hf://datasets/{NAME}/odd*")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SabiprepError, match=r"pip install 'sabiprep\[hub\]'") as caught:
        sabiprep.pack(place.corpus, place.folder / "out")
    assert caught.value.source == "s"
    # A corpus without such files needs no package.
    (place.corpus / "a.txt").write_bytes(lines("a"))
    place.write("a.txt")
    sabiprep.pack(place.corpus, place.folder / "out")


@pytest.mark.parametrize(
    "pattern", ["hf://datasets/a", "hf://datasets/a/b", "hf://models/a/b/c", "hf://a/b/c", "hf://"]
)
def test_a_pattern_of_another_form_is_refused(place: Place, pattern: str) -> None:
    place.write(pattern)
    with pytest.raises(ConfigError, match="hf://datasets/OWNER/NAME/PATH") as caught:
        sabiprep.pack(place.corpus, place.folder / "out")
    assert caught.value.file is not None and caught.value.source == "s"


def test_a_file_that_is_no_toml_is_left_to_the_core(place: Place) -> None:
    (place.corpus / "corpus.toml").write_text("files = [hf://\n", "utf-8")
    with pytest.raises(ConfigError, match=r"corpus\.toml:1"):
        sabiprep.pack(place.corpus, place.folder / "out")


def test_the_core_by_itself_fetches_nothing(place: Place) -> None:
    place.write(f"hf://datasets/{NAME}/odd*")
    with pytest.raises(InputError, match="nothing has fetched it") as caught:
        packer.pack(place.corpus, place.folder / "out", tokenizer=place.corpus / "tokenizer.json")
    assert caught.value.remedy is not None


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a/*.json", "a/b.json", True),
        ("a/*.json", "a/b/c.json", False),
        ("**/*.json", "c.json", True),
        ("**/*.json", "a/b/c.json", True),
        ("a/[!b]?.x", "a/cd.x", True),
        ("a/[!b]?.x", "a/bd.x", False),
        ("a/[!b]?.x", "a//d.x", False),
        ("a/[]]x", "a/]x", True),
        ("[[]a", "[a", True),
        ("a[0-9]", "a5", True),
        ("a.b", "axb", False),
        ("**/f/*", "f/x", True),
        ("eng-{lang}/train.json", "eng-yor/train.json", True),
    ],
)
def test_patterns_are_those_of_local_files(pattern: str, path: str, matches: bool) -> None:
    assert bool(_pattern(pattern).fullmatch(path)) == matches
