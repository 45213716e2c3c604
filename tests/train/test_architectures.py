"""An architecture is a file and a line of the table; nothing outside models/ knows one."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sabitrain
from sabiprep.dataset import open_dataset
from sabiprep.errors import ConfigError, TrainError
from sabitrain.checkpoints.checkpoint import load_checkpoint
from sabitrain.config import CheckpointConfig, ModelConfig, OptimConfig
from sabitrain.data.datasets import Datasets
from sabitrain.memory import RESERVE
from sabitrain.models.architecture import architecture_of
from sabitrain.models.registry import ARCHITECTURES
from sabitrain.planning import plan_run
from sabitrain.trainer import run_training
from support.train.runs import without_times
from support.train.second_architecture import ENTRY, MODEL_TYPE, PerToken
from support.train.tiny import VOCAB_SIZE, tiny_config, write_tiny

PACKAGE = Path(sabitrain.__file__).parent


@pytest.fixture
def shape(monkeypatch) -> ModelConfig:
    monkeypatch.setitem(ARCHITECTURES, MODEL_TYPE, ENTRY)
    return ModelConfig(
        architecture=MODEL_TYPE, layers=2, width=16, heads=2, mlp_width=24, context=64
    )


@pytest.fixture
def data(tmp_path) -> Path:
    return write_tiny(tmp_path / "data").path


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_trains_saves_and_loads_by_a_line_of_the_table(data, tmp_path, shape, optimizer):
    options = {"model": shape, "optim": OptimConfig(name=optimizer, lr=1e-2), "max_steps": 30}
    report = run_training(
        tiny_config(data, tmp_path / "run", eval_every=0, recompute="on", **options)
    )
    losses = [x["loss"] for x in without_times(tmp_path / "run") if x["kind"] == "train"]
    assert report.evaluation is not None and report.evaluation.total.loss < losses[0] - 0.5
    assert len(report.answers) == 3
    written = json.loads((report.checkpoint / "config.json").read_text())
    assert (written["model_type"], written["n_embd"], written["eos_token_id"]) == (
        MODEL_TYPE,
        16,
        0,
    )
    weights = load_file(report.checkpoint / "model.safetensors")
    assert all(name.startswith("transformer.") for name in weights)
    model = load_checkpoint(report.checkpoint)
    assert isinstance(model, PerToken) and model.config == shape
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[f"transformer.{name}"])


def test_it_resumes_as_if_it_had_not_been_stopped(data, tmp_path, shape):
    options = {"model": shape, "max_steps": 6, "checkpoint": CheckpointConfig(every=3)}
    run_training(tiny_config(data, tmp_path / "whole", **options))
    run = tmp_path / "run"
    run_training(tiny_config(data, run, **options))
    for path in (run / "checkpoints" / "step-00000006").iterdir():
        path.unlink()
    run_training(tiny_config(data, run, resume=True, **options))
    whole, resumed = (
        (path / "checkpoint" / "model.safetensors").read_bytes()
        for path in (tmp_path / "whole", run)
    )
    assert whole == resumed
    other = ModelConfig(layers=2, width=16, heads=2, mlp_width=24, context=64)
    with pytest.raises(
        ConfigError, match=r"model\.architecture is 'llama', but this run was begun"
    ):
        run_training(tiny_config(data, run, resume=True, **{**options, "model": other}))


def test_it_is_planned(data, tmp_path, shape):
    with open_dataset(data) as dataset:
        plan = plan_run(tiny_config(data, tmp_path / "run", model=shape), Datasets([dataset]))
    made = architecture_of(MODEL_TYPE).make(shape, VOCAB_SIZE)
    assert plan.parameters == made.n_parameters()
    assert plan.fit.memory.total > RESERVE and plan.flops.dense == 3 * 128 * (
        2 * 4 * 16 * 24 + 2 * 16 * 20
    )


def test_an_architecture_that_is_not_in_the_table_is_refused(data, tmp_path):
    with pytest.raises(
        ConfigError, match=r"model\.architecture must be one of llama, .*, not 'gpt2'"
    ):
        ModelConfig(architecture="gpt2")
    run_training(tiny_config(data, tmp_path / "run", max_steps=1))
    file = (tmp_path / "run" / "checkpoint").resolve() / "config.json"
    file.write_text(file.read_text().replace('"model_type": "llama"', '"model_type": "gpt2"'))
    with pytest.raises(TrainError, match="no architecture 'gpt2'"):
        load_checkpoint(file.parent)


def imports() -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        names = file.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(names[:-1] if names[-1] == "__init__" else names)
        found[module] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sabitrain"):
                inner = {f"{node.module}.{name.name}" for name in node.names}
                modules = {x for x in inner if PACKAGE.parent.joinpath(*x.split(".")).exists()}
                files = {
                    x
                    for x in inner
                    if PACKAGE.parent.joinpath(*x.split(".")).with_suffix(".py").exists()
                }
                found[module] |= modules | files or {str(node.module)}
    return found


def without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def test_only_the_package_and_its_table_name_an_architecture():
    families = {entry.partition(":")[0] for entry in ARCHITECTURES.values()}
    users = {module for module, of in imports().items() if of & families}
    assert all(user.startswith("sabitrain.models.") for user in users), users
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name != "models":
            # A docstring may say which models have a thing; code goes by no name.
            code = without_docstrings(ast.parse(file.read_text())).lower()
            assert not any(name in code for name in ("llama", "qwen", "gemma", "olmo")), file


# Each wing imports from those before it alone.
DOWNHILL = ("attention", "data", "models", "optim", "evaluation", "checkpoints", "monitoring")


def test_wings_import_downhill_and_nothing_imports_the_trainer():
    of = imports()
    for module, imported in of.items():
        wing = module.split(".")[1] if module.count(".") == 2 else None
        for other in imported:
            part = other.split(".")[1]
            if other.endswith((".settings", ".registry")) or part not in DOWNHILL:
                continue
            if module.endswith(".settings") or module == "sabitrain.config":
                pytest.fail(f"{module} imports {other}, which is no settings")
            if wing in DOWNHILL:
                assert DOWNHILL.index(part) <= DOWNHILL.index(wing), f"{module} imports {other}"
    users = {module for module, imported in of.items() if "sabitrain.trainer" in imported}
    assert users <= {"sabitrain", "sabitrain.__main__"}


def test_no_module_imports_itself_by_a_circle():
    of, done = imports(), set()
    of.pop("sabitrain")  # it exports names that are imported when they are asked for

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in of.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in of:
        visit(module, ())
