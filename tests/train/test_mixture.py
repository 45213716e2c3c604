"""Mixtures: the rows are those of their datasets, in shares that a slow count agrees with, and
steps are read ahead.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiprep.errors import ConfigError, DatasetError
from sabitrain.command_line import parse_command_line
from sabitrain.data.batches import make_step
from sabitrain.data.datasets import open_datasets
from sabitrain.data.loader import Loader
from sabitrain.data.masking import Masking
from sabitrain.data.mixture import MixedRows, Mixture
from sabitrain.data.order import MixedOrder, RowOrder, RowStream, mix_of_steps, shuffled
from sabitrain.data.settings import Mix
from sabitrain.trainer import run_training
from support.train.tiny import VOCAB_SIZE, tiny_config, write_tiny


class Part:
    def __init__(self, rows: int, fingerprint: str) -> None:
        self.train, self.fingerprint = range(rows), fingerprint


def order_of(rows, per_step, seed, steps, begin, end, along="linear") -> MixedOrder:
    """The order of a mixture of datasets with so many rows each."""
    parts = [Part(count, f"print {index}") for index, count in enumerate(rows)]
    return MixedOrder(parts, "mixed", per_step, seed, steps, Mix([], begin, end, along))


def row_of(split: MixedRows, row: int) -> dict:
    """A row by itself, the arrays of tokens as `RowDict` has them."""
    batch = split.batch([row])
    stacked = ("input_ids", "labels", "loss_mask", "position_ids", "roles", "n_targets")
    return {name: value[0] if name in stacked else value for name, value in batch.items()}


weights = st.floats(0.01, 10)


@settings(deadline=None)
@given(
    mix=st.lists(st.tuples(st.integers(1, 30), weights, weights), min_size=2, max_size=4),
    per_step=st.integers(1, 40),
    steps=st.integers(1, 30),
    changes=st.booleans(),
    along=st.sampled_from(["linear", "cosine"]),
)
def test_shares_and_epochs_are_those_of_a_slow_count(mix, per_step, steps, changes, along):
    rows, begin, end = ([entry[i] for entry in mix] for i in range(3))
    order = order_of(rows, per_step, 3, steps, begin, end if changes else None, along)
    starts = [sum(rows[:index]) for index in range(len(rows))]
    streams = [
        RowStream(count, f"sabitrain rows 3 print {index}") for index, count in enumerate(rows)
    ]
    taken, exact = [0] * len(rows), [0.0] * len(rows)
    for step in range(steps):
        progress = step / max(1, steps - 1)
        if along == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        got = sorted(order.step(step).tolist())
        assert len(got) == per_step
        for index, start in enumerate(starts):
            first, last = begin[index] / sum(begin), end[index] / sum(end)
            share = per_step * (first + progress * (last - first) if changes else first)
            mine = [row - start for row in got if start <= row < start + rows[index]]
            assert abs(len(mine) - share) < 1 + 1e-9, "within one row of the exact share"
            assert mine == sorted(
                streams[index].take(taken[index], taken[index] + len(mine)).tolist()
            )
            taken[index] += len(mine)
            exact[index] += share
    assert order.repeats(steps) == pytest.approx(
        [count / of for count, of in zip(taken, rows, strict=True)]
    )
    # The golden ratio's discrepancy grows with the logarithm of the steps (each share is an
    # interval with two ends). Where shares change, their ends may move along with it for a while.
    if not changes:
        bound = 2 * (1 + math.log2(1 + steps))
        assert all(abs(count - want) < bound for count, want in zip(taken, exact, strict=True))


def test_a_step_is_a_pure_function():
    def order(seed: int) -> MixedOrder:
        return order_of([7, 5], 4, seed, 40, [0.7, 0.3], [0.2, 0.8])

    asked = order(0)
    for step in (30, 2, 39, 2):
        assert np.array_equal(asked.step(step), order(0).step(step))
    assert any(not np.array_equal(order(0).step(step), order(1).step(step)) for step in range(5))


def test_where_a_mix_begins_and_ends():
    for along in ("linear", "cosine"):
        mix = mix_of_steps(11, [3, 1], [1, 3], along)
        assert mix[0].tolist() == [0.75, 0.25] and mix[-1] == pytest.approx([0.25, 0.75])
        assert mix[5] == pytest.approx([0.5, 0.5]) and (np.diff(mix[:, 0]) < 0).all()
    assert abs(np.diff(mix_of_steps(11, [3, 1], [1, 3], "cosine")[:2, 0])) < 0.02, (
        "a cosine begins slowly"
    )


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    return [
        write_tiny(tmp_path / "a", train=60).path,
        write_tiny(tmp_path / "b", train=33, kinds="tc").path,
    ]


def test_a_mixture_has_the_rows_of_its_datasets(paths):
    with (
        open_datasets(paths) as opened,
        open_datasets(paths[:1]) as first_alone,
        open_datasets(paths[1:]) as second_alone,
    ):
        mixed, a, b = opened.rows, first_alone.rows, second_alone.rows
        assert isinstance(mixed, Mixture) and not isinstance(a, Mixture)
        assert [source.id for source in mixed.sources] == list(range(6))
        split, first = mixed.train, len(a.train)
        assert len(split) == first + len(b.train)
        assert split.n_targets.tolist() == [*a.train.n_targets, *b.train.n_targets]
        for row in range(len(split)):
            want = a.train[row] if row < first else b.train[row - first]
            got = row_of(split, row)
            for name, value in want.items():
                shift = 3 if name == "source_ids" and row >= first else 0
                assert np.array_equal(got[name], value + shift if shift else value)
        batch = split.batch([first + 1, 0, first])
        alone = [b.train[1], b.train[0]]
        assert np.array_equal(
            batch["input_ids"], [a.train[0]["input_ids"], *(row["input_ids"] for row in alone)]
        )
        rows = [a.train[0], *alone]
        bounds = [
            0,
            *(32 * i + end for i, row in enumerate(rows) for end in row["cu_seqlens"].tolist()[1:]),
        ]
        assert batch["cu_seqlens"].tolist() == bounds and batch["cu_seqlens"].dtype == np.int32
        assert batch["doc_rows"].tolist() == [
            i for i, row in enumerate(rows) for _ in row["record_ids"]
        ]
        with pytest.raises(IndexError):
            split.batch([len(split)])


def test_datasets_that_do_not_fit_together_are_refused(paths, tmp_path):
    other = write_tiny(tmp_path / "other", vocab_size=VOCAB_SIZE + 1).path
    with pytest.raises(DatasetError, match=r"another vocabulary than .*: 21 and 20"):
        open_datasets([paths[0], other])
    longer = write_tiny(tmp_path / "longer", seq_len=64).path
    with pytest.raises(DatasetError, match="rows of another length"):
        open_datasets([paths[0], longer])
    wider = write_tiny(tmp_path / "wider", id_dtype="uint32").path
    with pytest.raises(DatasetError, match=r"ids of another width than .*: uint32 and uint16"):
        open_datasets([paths[0], wider])


def test_a_mixed_run_resumes_and_is_bound_to_its_mix(paths, tmp_path):
    data = (f"{paths[0]}=0.75", f"{paths[1]}=0.25")
    end = (f"{paths[1]}=0.75", f"{paths[0]}=0.25")
    config = tiny_config(data, tmp_path / "run", data_end=end, data_schedule="cosine", max_steps=6)
    report = run_training(config)
    assert report.evaluation is not None
    again = tiny_config(
        data, tmp_path / "run", data_end=end, data_schedule="cosine", max_steps=6, resume=True
    )
    assert run_training(again).evaluation == report.evaluation
    for changed in ({"data_end": ()}, {"data": (f"{paths[0]}=0.7", f"{paths[1]}=0.3")}):
        options = {
            "data": data,
            "data_end": end,
            "data_schedule": "cosine",
            "max_steps": 6,
            "resume": True,
            **changed,
        }
        with pytest.raises(ConfigError, match="but this run was begun with"):
            run_training(tiny_config(options.pop("data"), tmp_path / "run", **options))
    with pytest.raises(DatasetError, match="so far: datasets '2'"):
        other = write_tiny(tmp_path / "other", train=31).path
        options = {
            "data_end": (f"{paths[0]}=1", f"{other}=3"),
            "data_schedule": "cosine",
            "max_steps": 6,
        }
        run_training(
            tiny_config((f"{paths[0]}=3", f"{other}=1"), tmp_path / "run", resume=True, **options)
        )


def test_the_mix_on_the_command_line(paths, tmp_path):
    mixed = ["--data", "a=0.7", "--data", "b=0.3", "--run", "run"]
    config = parse_command_line(mixed)
    assert (config.data, config.datasets) == (("a=0.7", "b=0.3"), [Path("a"), Path("b")])
    file = tmp_path / "a.toml"
    file.write_text('data = ["x=1", "y=1"]\ndata_end = ["x=1", "y=9"]\nrun = "r"\n')
    assert parse_command_line(["--config", str(file)]).data_end == ("x=1", "y=9")
    over = parse_command_line(["--config", str(file), *mixed])
    assert (over.data, over.data_end) == (("a=0.7", "b=0.3"), ())
    assert parse_command_line([*mixed, "--data-end", "a=1", "--data-end", "b=1"]).data_end == (
        "a=1",
        "b=1",
    )
    for wrong in (
        ["--data", "a", "--data", "b"],
        ["--data", "a=1", "--data", "b=x"],
        ["--data", "a=1", "--data", "a=2"],
    ):
        with pytest.raises(ConfigError):
            parse_command_line([*wrong, "--run", "r"])
    with pytest.raises(ConfigError, match="data_end must weigh the datasets of data"):
        parse_command_line([*mixed, "--data-end", "a=1"])


def test_reading_ahead_changes_nothing(paths):
    with open_datasets(paths[:1]) as opened:
        dataset = opened.rows
        order, masking = RowOrder(dataset, 4, 0), Masking(dataset.sources)
        with Loader(dataset.train, order.step, 9, 2, masking) as loader:
            for step in (0, 1, 2, 5, 8):
                got, want = (
                    loader.step(step),
                    make_step(dataset.train, order.step(step), 2, masking),
                )
                assert (got.tokens, got.targets, len(got.batches)) == (want.tokens, want.targets, 2)
                for one, other in zip(got.batches, want.batches, strict=True):
                    for name, value in vars(one).items():
                        assert np.array_equal(value, vars(other)[name])
        assert loader.waited > 0


def test_what_goes_wrong_in_the_thread_is_raised_where_the_step_is_wanted(paths):
    def broken(step: int) -> np.ndarray:
        if step == 1:
            raise DatasetError("damaged")
        return shuffled(4, str(step))

    with (
        open_datasets(paths[:1]) as opened,
        Loader(opened.rows.train, broken, 5, 4, Masking(opened.rows.sources)) as loader,
    ):
        loader.step(0)
        with pytest.raises(DatasetError, match="damaged"):
            loader.step(1)


def test_metrics_of_a_run_are_those_without_a_loader(paths, tmp_path):
    """The steps that a run takes are those of its order, each once: tokens and targets tell."""
    config = tiny_config(paths[0], tmp_path / "run", max_steps=5)
    run_training(config)
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    with open_datasets(paths[:1]) as opened:
        dataset = opened.rows
        order = RowOrder(dataset, 4, 0)
        want = [int(dataset.train.n_targets[order.step(step)].sum()) for step in range(5)]
    assert [line["targets"] for line in lines if line["kind"] == "train"] == want
