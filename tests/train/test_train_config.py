"""The configuration: what is refused, which source wins, and a saved file that gives the same run
again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiprep.errors import ConfigError
from sabitrain.__main__ import main
from sabitrain.command_line import parse_command_line
from sabitrain.config import PRESETS, BatchConfig, ModelConfig, OptimConfig, TrainConfig
from sabitrain.config_file import resolve, to_toml
from sabitrain.partial.settings import PartialConfig

REQUIRED = ["--data", "out", "--run", "run"]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_goes_before_the_file_and_it_before_the_preset(tmp_path):
    file = write(
        tmp_path / "a.toml",
        'preset = "125m"\nseed = 7\n[optim]\nlr = 0.5\nclip = 2\n[model]\nlayers = 3\n',
    )
    config = parse_command_line(
        [*REQUIRED, "--config", str(file), "--optim.lr", "0.25", "--model.heads", "6"]
    )
    assert (config.data, config.run, config.config) == (("out",), Path("run"), file)
    assert (config.optim.lr, config.optim.clip, config.optim.warmup) == (0.25, 2.0, 0.02)
    assert (config.model.layers, config.model.heads, config.model.width) == (3, 6, 768)
    assert (config.preset, config.seed) == ("125m", 7)
    nano = parse_command_line([*REQUIRED, "--config", str(file), "--preset", "nano"])
    assert (nano.preset, nano.model.layers, nano.model.width) == ("nano", 3, 128)


def test_none_was_offered_as_a_number_of_bits(capsys):
    given = [*REQUIRED, "--init", "base", "--train", "lora", "--lora.bits"]
    assert [parse_command_line([*given, bits]).lora.bits for bits in ("4", "8")] == [4, 8]
    with pytest.raises(SystemExit):
        parse_command_line([*given, "3"])
    said = " ".join(capsys.readouterr().err.split())
    assert "invalid choice '3'" in said and "None" not in said


def test_defaults_are_the_nano_preset():
    assert parse_command_line(REQUIRED) == TrainConfig(data=Path("out"), run=Path("run"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_built(preset):
    base = ["--init", "base"] if preset == "checkpoint" else []
    assert parse_command_line([*REQUIRED, *base, "--preset", preset]).preset == preset


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("[optim]\nlearning_rat = 1", "unknown key 'optim.learning_rat'", "did you mean 'optim."),
        ("[optim]\nwarmpu = 1", "unknown key 'optim.warmpu'", "did you mean 'optim.warmup'?"),
        ("[optm]\nlr = 1", "unknown key 'optm'", "did you mean 'optim'?"),
        ("sed = 1", "unknown key 'sed'", "did you mean 'seed'?"),
        ("seed = 1.5", "'seed' must be a whole number, not 1.5", None),
        ("seed = true", "'seed' must be a whole number, not True", None),
        ("overwrite = 1", "'overwrite' must be true or false, not 1", None),
        ("device = 'tpu'", "device must be auto, cpu, cuda or cuda:N, not 'tpu'", None),
        ("compile = 'yes'", "'compile' must be one of 'auto', 'on', 'off', not 'yes'", None),
        ("memory_limit = 'all'", "'memory_limit' must be a number or 'auto', not 'all'", None),
        ("answer_tasks = 'label'", "'answer_tasks' must be a list of strings, not 'label'", None),
        (
            "skip_batches = [7, '8']",
            "'skip_batches' must be a list of whole numbers, not [7, '8']",
            None,
        ),
        ("model = 3", "'model' must be a table, not 3", "[model]"),
        ("preset = 'mini'", "no preset 'mini'", "nano, 125m, 350m, 1b"),
        ("[model]\nwidth = 100", "model.width must be a multiple of twice model.heads", None),
        ("[model", "is not TOML", None),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path, text, message, remedy):
    file = write(tmp_path / "a.toml", text)
    with pytest.raises(ConfigError) as caught:
        resolve(None, file, {"data": "out", "run": "run"})
    assert message in caught.value.message
    assert caught.value.file == str(file)
    assert remedy is None or remedy in (caught.value.remedy or "")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        resolve(None, tmp_path / "none.toml", {})


@pytest.mark.parametrize(
    "change",
    [
        (ModelConfig, "layers", 0),
        (ModelConfig, "heads", 3),
        (ModelConfig, "kv_heads", 3),
        (ModelConfig, "kv_heads", 0),
        (ModelConfig, "context", 0),
        (ModelConfig, "rope_theta", 1.0),
        (ModelConfig, "norm_eps", 0.0),
        (ModelConfig, "init_std", -0.1),
        (BatchConfig, "tokens", 0),
        (BatchConfig, "micro_tokens", 0),
        (OptimConfig, "lr", 0.0),
        (OptimConfig, "lr", float("nan")),
        (OptimConfig, "warmup", 1.0),
        (OptimConfig, "floor", 1.1),
        (OptimConfig, "decay", 0.0),
        (OptimConfig, "momentum", 1.0),
        (OptimConfig, "beta1", 1.0),
        (OptimConfig, "beta2", -0.1),
        (OptimConfig, "eps", 0.0),
        (OptimConfig, "weight_decay", -1.0),
        (OptimConfig, "clip", -1.0),
        (TrainConfig, "prompt_weight", -0.1),
        (TrainConfig, "z_loss", float("inf")),
        (TrainConfig, "task_weights", ("label",)),
        (TrainConfig, "task_weights", ("label=-1",)),
        (TrainConfig, "task_weights", ("=1",)),
        (TrainConfig, "task_weights", ("label=1", "label=2")),
        (TrainConfig, "compile", True),
        (TrainConfig, "recompute", "yes"),
        (TrainConfig, "memory_limit", 0.0),
        (TrainConfig, "memory_limit", float("inf")),
        (TrainConfig, "memory_limit", float("nan")),
        (TrainConfig, "epochs", 0.0),
        (TrainConfig, "max_steps", 0),
        (TrainConfig, "max_tokens", 0),
        (TrainConfig, "hours", 0.0),
        (TrainConfig, "eval_every", -1),
        (TrainConfig, "log_every", 0),
        (TrainConfig, "answers", -1),
        (TrainConfig, "max_new_tokens", 0),
        (TrainConfig, "seed", -1),
        (TrainConfig, "threads", -1),
        (TrainConfig, "skip_batches", (3, 0)),
    ],
)
def test_a_field_that_cannot_be_right_is_refused_by_name(change):
    kind, name, value = change
    paths = {"data": Path("out"), "run": Path("run")} if kind is TrainConfig else {}
    with pytest.raises(ConfigError, match=name):
        kind(**paths, **{name: value})


def test_every_option_says_what_it_is(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_command_line(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for kind, prefix in (
        (TrainConfig, ""),
        (ModelConfig, "model."),
        (BatchConfig, "batch."),
        (OptimConfig, "optim."),
    ):
        for field in dataclasses.fields(kind):
            # Phases are tables of a file alone.
            if field.name not in ("model", "batch", "optim", "phase"):
                assert f"--{prefix}{field.name.replace('_', '-')}" in shown


@pytest.mark.parametrize(
    "arguments", [["--optm.lr", "1", *REQUIRED], ["--run", "x"], [*REQUIRED, "--preset", "mini"]]
)
def test_a_wrong_command_line_exits_with_2_and_says_why(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_command_line(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--preset", "125M"],
            "no preset '125M'\nRemedy: did you mean 125m? use one of nano, 125m, 350m, 1b",
        ),
    ],
)
def test_what_is_not_there_is_said_in_words(arguments, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_command_line([*REQUIRED, *arguments])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_a_run_is_named_where_one_is_to_go_on(tmp_path, capsys):
    """It was said that --data is required."""
    with pytest.raises(SystemExit) as stopped:
        parse_command_line(["--run", str(tmp_path), "--resume"])
    assert stopped.value.code == 2
    assert f"{tmp_path} holds no run to go on with" in capsys.readouterr().err


@pytest.mark.parametrize("threads", [-1, 4097, 100_000])
def test_threads_without_bound_are_refused(threads):
    with pytest.raises(
        ConfigError, match=rf"threads must be from 1 to 4096, or 0 for one a core, not {threads}"
    ):
        parse_command_line([*REQUIRED, "--threads", str(threads)])
    assert [parse_command_line([*REQUIRED, "--threads", str(n)]).threads for n in (0, 4096)] == [
        0,
        4096,
    ]


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["adapt", "--help"]])
def test_the_first_words_of_help_were_wider_than_a_terminal(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    shown = capsys.readouterr().out.splitlines()
    intro = shown[: next(number for number, line in enumerate(shown) if "-h, --help" in line)]
    assert len(intro) > 3 and max(map(len, intro)) <= 80


def test_freeze_is_a_list_or_a_table_or_one_pattern(tmp_path):
    file = tmp_path / "train.toml"
    required = {"data": ["x"], "run": Path("run"), "init": "base"}
    written = {
        'freeze = ["a.*", "b.*"]': ("a.*", "b.*"),
        '[freeze]\npatterns = ["a.*", "b.*"]': ("a.*", "b.*"),
        'freeze = "a.*"': ("a.*",),
        "[freeze]": (),
    }
    for text, patterns in written.items():
        file.write_text(text)
        config = resolve(None, file, required)
        assert config.freeze == patterns
        file.write_text(to_toml(config))
        assert resolve(None, file, {}).freeze == patterns
    file.write_text(
        '[[phase]]\ntrain = "all"\nsteps = 2\nfreeze = { patterns = ["a.*"] }\n'
        '[[phase]]\ntrain = "all"\nfreeze = "b.*"\n'
    )
    config = resolve(None, file, required)
    assert [phase.freeze for phase in config.phase] == [("a.*",), ("b.*",)]
    for text, message in (
        ('[freeze]\npattern = ["a.*"]', r"unknown key 'freeze.pattern'(.|\n)*freeze.patterns"),
        ("[freeze]\npatterns = 3", "'freeze' must be a list of strings"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            resolve(None, file, required)


def test_wrong_words_of_what_is_trained_had_no_remedy():
    for train, meant in (
        ("lst:2", "last:2"),
        ("last:0", "last:N"),
        ("embedding", "embeddings"),
        ("newrows", "new-rows"),
        ("Lora", "lora"),
        ("last", "last:N"),
    ):
        with pytest.raises(ConfigError, match="train must be") as caught:
            PartialConfig(train=train)
        assert caught.value.remedy == f"did you mean {meant}?"
    with pytest.raises(ConfigError, match="new_rows must be FIRST") as caught:
        PartialConfig(train="new-rows", new_rows=(5, 5))
    assert caught.value.remedy is not None and "5 6 is one row" in caught.value.remedy


def test_the_help_of_plan_says_what_plan_does(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    shown = capsys.readouterr().out
    assert (
        "what a run with these options will take" in " ".join(shown.split())
        and "Train a causal" not in shown
    )
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "sabitrain plan" in capsys.readouterr().out


@given(
    seed=st.integers(0, 2**63 - 1),
    lr=st.floats(1e-12, 1e6),
    epochs=st.none() | st.floats(1e-3, 1e3),
    tasks=st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
)
def test_the_saved_file_gives_the_configuration_back(
    tmp_path_factory, seed, lr, epochs, tasks, name
):
    config = TrainConfig(
        data=Path(name),
        run=Path("run"),
        seed=seed,
        epochs=epochs,
        answer_tasks=tuple(tasks),
        skip_batches=(seed + 1,),
        optim=OptimConfig(lr=lr),
        model=ModelConfig(layers=2, kv_heads=1),
    )
    file = write(tmp_path_factory.getbasetemp() / "config.toml", to_toml(config))
    assert dataclasses.replace(resolve(None, file, {}), config=None) == config


def test_the_saved_file_can_be_run_again_into_another_folder(tmp_path):
    file = write(
        tmp_path / "config.toml", to_toml(TrainConfig(data=Path("out"), run=Path("run"), seed=3))
    )
    again = parse_command_line(["--config", str(file), "--run", "run2"])
    assert (again.data, again.run, again.seed) == (("out",), Path("run2"), 3)


def test_steps_and_rows():
    def steps(**limits: object) -> int:
        batch = BatchConfig(tokens=4 * 64, micro_tokens=64)
        config = TrainConfig(data=Path(), run=Path(), batch=batch, **limits)
        return config.step_plan(10, 64, "cpu")["steps"]

    assert steps() == 3
    assert steps(epochs=2) == 5
    assert steps(max_steps=2) == 2
    assert steps(max_steps=100) == 100
    assert steps(max_steps=4, epochs=2) == 4
    assert steps(max_steps=100, epochs=2) == 5
    assert steps(hours=1) == 3
    assert steps(max_tokens=4 * 64 * 7 + 1) == 7
    assert steps(max_tokens=1) == 1
    assert steps(max_tokens=4 * 64 * 7, epochs=2) == 5
    assert steps(max_tokens=4 * 64 * 7, max_steps=9) == 7
    batch = BatchConfig(tokens=1000, micro_tokens=300)
    assert (batch.rows(128), batch.micro_rows(128, "cpu")) == (7, 2)
    assert (batch.rows(4096), batch.micro_rows(4096, "cpu")) == (1, 1)
    large = dataclasses.replace(batch, micro_tokens=32_768)
    assert (large.micro_rows(128, "cuda"), large.micro_rows(128, "cpu")) == (256, 32)
    # The memory of a GPU decides, which is not known here.
    auto = BatchConfig(tokens=1000)
    assert (auto.micro_rows(128, "cuda"), auto.micro_rows(128, "cpu")) == (None, 32)


def test_a_file_says_on_and_off_as_toml_does(tmp_path):
    """As files of runs did before there was an auto."""
    file = write(tmp_path / "a.toml", "compile = true\nrecompute = false\nmemory_limit = 40")
    config = resolve(None, file, {"data": "out", "run": "run"})
    assert (config.compile, config.recompute, config.memory_limit) == ("on", "off", 40.0)
    said = parse_command_line(
        ["--data", "out", "--run", "run", "--recompute", "on", "--memory-limit", "23.5"]
    )
    assert (said.compile, said.recompute, said.memory_limit) == ("auto", "on", 23.5)
    assert said.batch.micro_tokens == "auto"


def test_what_is_infinite_is_written_as_toml_spells_it(tmp_path):
    """JSON's Infinity made a file that no later session could read."""
    config = TrainConfig(data=Path("out"), run=Path("run"), optim=OptimConfig(lr=float("inf")))
    file = write(tmp_path / "a.toml", to_toml(config))
    assert resolve(None, file, {}).optim.lr == float("inf")
