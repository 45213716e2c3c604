"""The self-test: on a CPU its cells run small and hold, and what is broken is seen by its cell."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

import sabiprep
from sabitrain.__main__ import main
from sabitrain.device import limit_memory
from sabitrain.optim.guard import StepGuard
from sabitrain.optim.optimizers import SkippingMuon
from sabitrain.selftest import attention, bench, loss, numerics, profile, run, runs, steps
from sabitrain.selftest.bench import Bench, Outcome, Part
from sabitrain.selftest.record import WIDTH
from support.train import stand_in_gpu
from support.train.runs import environment


class Ran(NamedTuple):
    """What a self-test left: its exit code, the lines of its file, and what it printed."""

    code: int
    lines: list[dict[str, Any]]
    printed: str

    def results(self, cell: str) -> dict[str, dict[str, Any]]:
        """The results of a cell by their names."""
        return {line["name"]: line for line in self.lines if line.get("cell") == cell}


def selftest(folder: Path, *options: str) -> Ran:
    """Runs the self-test on the CPU."""
    file, printed = folder / "selftest.jsonl", io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["selftest", "--device", "cpu", "--out", str(file), *options])
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return Ran(code, lines, printed.getvalue())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The whole self-test, once."""
    with warnings.catch_warnings():
        # dynamo itself looks there.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")
        return selftest(tmp_path_factory.mktemp("selftest"), "--seconds", "500")


def test_every_cell_runs_and_holds(ran):
    results = [line for line in ran.lines if line["kind"] == "result"]
    assert {line["cell"] for line in results} == {*"abcdefgh"}
    assert not [line for line in ran.lines if line["kind"] == "unfinished"]
    assert all(line["held"] is not False for line in results), results
    held = {line["cell"] for line in results if line["held"]}
    assert held == {*"abcdfg"}, "memory has no cap on a CPU, and the profile only measures"
    # What only measures says its numbers, or why it has none.
    for line in results:
        assert line["held"] or line["why"] or line["cell"] == "h", line
    assert ran.code == 0


def test_the_first_line_names_the_machine(ran):
    first = ran.lines[0]
    assert first["kind"] == "machine" and first["torch"] == torch.__version__
    assert {"device", "cuda", "triton", "python", "sabitrain"} <= first.keys()


def test_a_run_is_stopped_resumed_and_repeated(ran):
    results = ran.results("a")
    assert 0 < results["stopped by SIGTERM"]["steps"] < results["resumed to its end"]["steps"]
    assert results["resumed to its end"]["last_loss"] < results["resumed to its end"]["first_loss"]
    assert len(results["deterministic, twice"]["sha256"]) == 64


def test_steps_are_timed_and_compiled_once(ran):
    compiled = ran.results("d")["125m compiled"]
    assert (compiled["recompilations"], compiled["batches"], compiled["graph_breaks"]) == (0, 30, 0)
    eager = ran.results("d")["125m eager"]
    assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-4)
    for line in (compiled, eager):
        assert line["host_ms"] > 0 and line["ms"] > 0 and line["targets_per_second"] > 0
        assert line["plan_mb"] - line["plan_without_reserve_mb"] == 1000


def test_the_shares_of_a_step_sum_to_one(ran):
    line = ran.results("h")["125m"]
    shares = [line[kind] for kind in ("products", "attention", "copies", "elementwise", "other")]
    assert sum(shares) == pytest.approx(1) and line["products"] > 0 and line["attention"] > 0


def test_what_is_printed_fits_the_terminal_and_ends_in_the_table(ran):
    printed = ran.printed.splitlines()
    assert max(map(len, printed[1:])) <= WIDTH == 80
    table = printed[printed.index("") + 1 :]
    assert [line[0] for line in table[1:]] == [*"abcdefgh"]
    assert "4 of 4" in table[1] and "measured" in table[8]


def cells(monkeypatch: pytest.MonkeyPatch, *functions: str) -> None:
    """Has the self-test consist of cells whose parts functions of this file list."""
    made = [
        run.Cell(chr(ord("a") + index), function, f"{__name__}:{function}")
        for index, function in enumerate(functions)
    ]
    monkeypatch.setattr(run, "CELLS", tuple(made))


def holding(bench: Bench) -> list[Part]:
    return [Part("holds", 1, lambda: Outcome(True, {"number": float("nan")}))]


def raising(bench: Bench) -> list[Part]:
    def fails() -> Outcome:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    return [Part("fails", 1, fails), *holding(bench)]


def unlisted(bench: Bench) -> list[Part]:
    raise ImportError("no such package")


def interrupted(bench: Bench) -> list[Part]:
    def stops() -> Outcome:
        raise KeyboardInterrupt

    return [Part("stops", 1, stops), *holding(bench)]


def hanging(bench: Bench) -> list[Part]:
    def hangs() -> Outcome:
        (bench.folder / "file").write_text("")
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        bench.children.append(child)
        print(f"hanging {bench.folder} {child.pid}", flush=True)
        time.sleep(600)
        return Outcome(True)

    return [*holding(bench), Part("hangs", 1, hangs)]


def test_an_error_is_a_line_and_the_others_run(tmp_path, monkeypatch):
    cells(monkeypatch, "raising", "unlisted", "holding")
    ran = selftest(tmp_path)
    assert ran.code == 1
    results = [(line["cell"], line["name"], line["held"]) for line in ran.lines[1:]]
    assert results == [
        ("a", "fails", False),
        ("a", "holds", True),
        ("b", "unlisted", False),
        ("c", "holds", True),
    ]
    fails = ran.lines[1]
    assert fails["why"].startswith("OutOfMemoryError at selftest/run.py:")
    assert fails["why"].endswith(": CUDA out of memory. Tried to allocate 2 GiB")
    # JSON has no such number.
    assert ran.lines[2]["number"] == "nan"
    assert "1 of 2" in ran.printed and "fails: OutOfMemoryError" in ran.printed


def test_ctrl_c_prints_the_table_of_what_is_done(tmp_path, monkeypatch):
    cells(monkeypatch, "holding", "interrupted")
    ran = selftest(tmp_path)
    assert ran.code == 130
    assert [line["kind"] for line in ran.lines] == ["machine", "result", "unfinished"]
    assert "not done: stops" in ran.printed


def test_nothing_is_begun_after_the_deadline(tmp_path, monkeypatch):
    cells(monkeypatch, "holding")
    ran = selftest(tmp_path, "--seconds", "0.9")
    assert ran.code == 1
    assert [line["kind"] for line in ran.lines] == ["machine", "unfinished"]
    assert "are left" in ran.lines[1]["why"] and "not done: holds" in ran.printed


def test_a_part_that_hangs_is_ended_with_the_table(tmp_path):
    out = tmp_path / "selftest.jsonl"
    # torch is imported before the time begins.
    script = (
        "import pytest, sys, torch, test_selftest as t\n"
        "from sabitrain.selftest import bench, machine\n"
        "t.cells(pytest.MonkeyPatch(), 'hanging', 'holding')\n"
        "options = ['--device', 'cpu', '--seconds', '4', '--out', sys.argv[1]]\n"
        "sys.exit(t.main(['selftest', *options]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        cwd=Path(__file__).parent,
    )
    assert ended.returncode == 1, ended.stderr
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["machine", "result", "unfinished"]
    assert lines[-1]["name"] == "hangs"
    hanging = next(line for line in ended.stdout.splitlines() if line.startswith("hanging /"))
    _, folder, child = hanging.split()
    assert not Path(folder).exists()
    assert not Path("/proc", child).exists() or "Z" in Path("/proc", child, "stat").read_text()
    assert "not done: hangs" in ended.stdout and "cell" in ended.stdout


def faults(ran: Ran, cell: str) -> list[str]:
    """The reasons of what did not hold in a cell."""
    return [line["why"] for line in ran.results(cell).values() if line["held"] is False]


def test_attention_across_documents_is_seen(tmp_path, monkeypatch):
    real = attention.document_attention

    def leaks(q, k, v, bounds, longest):
        return real(q, k, v, bounds[[0, -1]], len(q))

    monkeypatch.setattr(attention, "document_attention", leaks)
    found = faults(selftest(tmp_path, "--only", "b"), "b")
    assert len(found) == 8
    assert all("changes bits of another" in why and "output is" in why for why in found)


def test_nan_that_leaves_its_document_is_seen(tmp_path, monkeypatch):
    real = attention.document_attention
    monkeypatch.setattr(
        attention, "document_attention", lambda q, *rest: real(q, *rest) + 0 * q.mean()
    )
    found = faults(selftest(tmp_path, "--only", "b"), "b")
    assert len(found) == 8 and set(found) == {"NaN leaves its document"}


def test_empty_segments_that_change_bits_are_seen(tmp_path, monkeypatch):
    real = attention.document_attention

    def drifts(q, k, v, bounds, longest):
        return real(q, k, v, bounds, longest) * (1 + 2**-7 * (len(bounds) > 65))

    monkeypatch.setattr(attention, "document_attention", drifts)
    found = faults(selftest(tmp_path, "--only", "b"), "b")
    assert len(found) == 8 and set(found) == {"empty segments change bits"}


def test_a_guard_that_lets_a_bad_step_pass_is_seen(tmp_path, monkeypatch):
    real = StepGuard.judge

    def lenient(self, *arguments):
        skip, outcome = real(self, *arguments)
        return torch.zeros_like(skip), outcome

    monkeypatch.setattr(StepGuard, "judge", lenient)
    results = selftest(tmp_path, "--only", "g").results("g")
    for name in ("NaN leaves AdamW alone", "NaN leaves Muon alone"):
        assert results[name]["held"] is False and "it changed" in results[name]["why"]
    assert results["gradients, eager"]["held"]


def test_a_muon_that_heeds_no_verdict_is_seen(monkeypatch):
    monkeypatch.setattr(SkippingMuon, "step", torch.optim.Muon.step)
    on_cpu = Bench(torch.device("cpu"), time.monotonic() + 100)
    assert "momentum_buffer" in (numerics._bad_step(on_cpu, "muon").why or "") or (
        numerics._bad_step(on_cpu, "muon").held is False
    )
    assert numerics._bad_step(on_cpu, "adamw").held


def test_a_wrong_gradient_is_seen(monkeypatch):
    real = numerics.predicting_states

    def wrong(model, batch):
        hidden = real(model, batch)
        if hidden.dtype != torch.float64:
            hidden.register_hook(lambda grad: grad + 0.1 * grad.roll(1, 0))
        return hidden

    monkeypatch.setattr(numerics, "predicting_states", wrong)
    outcome = numerics._gradients(Bench(torch.device("cpu"), time.monotonic() + 100), False)
    assert outcome.held is False and "has cosine" in outcome.why
    assert "the loss" not in outcome.why


def test_a_wrong_loss_is_seen(tmp_path, monkeypatch):
    for module in (numerics, loss):
        real = module.weighted_loss

        def wrong(hidden, *rest, real=real, **options):
            value, cross_entropy = real(hidden, *rest, **options)
            return value * (1 if hidden.dtype == torch.float64 else 1.002), cross_entropy

        monkeypatch.setattr(module, "weighted_loss", wrong)
    on_cpu = Bench(torch.device("cpu"), time.monotonic() + 100)
    assert "the loss is off by 0.002" in numerics._gradients(on_cpu, False).why
    outcome = loss._measure(on_cpu, 32, 600, "eager")
    assert outcome.held is False and outcome.numbers["error_loss"] > 1e-3


def compiled_by(monkeypatch: pytest.MonkeyPatch, unit_of: Any) -> Outcome:
    """Times small steps whose units ``unit_of`` compiles, with no code made."""

    def compile_units(model):
        for unit in model.units():
            unit.compiled = unit_of(unit)

    monkeypatch.setattr("sabitrain.training_state.compile_units", compile_units)
    monkeypatch.setattr("sabitrain.training_state.compiled_chunk", lambda: loss.eager_chunk)
    on_cpu = Bench(torch.device("cpu"), time.monotonic() + 100)
    try:
        return steps._measure(on_cpu, "125m", True)
    finally:
        on_cpu.tidy()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiling_again_is_seen(monkeypatch):
    outcome = compiled_by(
        monkeypatch, lambda unit: torch.compile(unit.forward, dynamic=False, backend="eager")
    )
    assert outcome.held is False and outcome.why.startswith("compiled again: ")
    assert outcome.numbers["recompilations"] >= 2


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_graph_break_is_seen(monkeypatch):
    def broken(unit):
        def forward(*inputs):
            torch._dynamo.graph_break()
            return unit.forward(*inputs)

        return torch.compile(forward, dynamic=True, backend="eager")

    outcome = compiled_by(monkeypatch, broken)
    assert outcome.held is False and "graph break" in outcome.why


def test_a_step_that_waits_is_seen(monkeypatch):
    modes: list[str] = []
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda", 0), synchronize=lambda: None)
    setup: Any = SimpleNamespace(
        state=SimpleNamespace(clear_gradients=lambda: modes.append("cleared")), batch=None
    )
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(steps, "take_step", lambda *arguments: None)
    assert steps._waits(on_gpu, setup, None) is None

    def waits(*arguments):
        raise RuntimeError("called a synchronizing CUDA operation")

    monkeypatch.setattr(steps, "take_step", waits)
    assert "called a synchronizing CUDA operation" in steps._waits(on_gpu, setup, None)
    assert modes == ["error", "default", "error", "cleared", "default"]


def test_memory_that_runs_out_is_seen(tmp_path, monkeypatch):
    def out_of_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(steps, "take_step", out_of_memory)
    ran = selftest(tmp_path, "--only", "e")
    assert (ran.code, faults(ran, "e")) == (1, ["out of memory: CUDA out of memory."])


@pytest.mark.parametrize(("limit", "share"), [(20 * 10**9, 0.25), (None, 1.0)])
def test_the_cap_is_a_share_of_the_card(monkeypatch, limit, share):
    shares: list[float] = []
    card = SimpleNamespace(total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.append(share)
    )
    limit_memory(torch.device("cuda", 0), "auto" if limit is None else limit / 1e9)
    assert shares == [share]


class SmallOnAGpu(Bench):
    """A bench of small sizes on the stand-in for a GPU."""

    def __init__(self, device, deadline):
        super().__init__(device, deadline)
        self.small = True


def test_what_is_asked_of_a_gpu_passes_the_checks_of_torch_cuda(tmp_path, monkeypatch):
    """Every cell but the runs, on tensors that lie on the CPU: nothing it calls is misspelt."""
    gpu = stand_in_gpu.install(monkeypatch, total_memory=80 * 10**9)
    modes: list[int] = []
    for name in ("synchronize", "emptyCache", "resetPeakMemoryStats"):
        monkeypatch.setattr(torch._C, f"_cuda_{name}", lambda *arguments: None, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_set_sync_debug_mode", modes.append, raising=False)
    card = torch.cuda.get_device_properties(0)
    card.multi_processor_count = 132
    monkeypatch.setattr(bench, "Bench", SmallOnAGpu)
    # Without a driver the profiler itself takes a minute to fail.
    kernel = SimpleNamespace(
        name="nvjet",
        time_range=SimpleNamespace(start=0, end=100, elapsed_us=lambda: 100),
        device_type=profile.DeviceType.CUDA,
        is_user_annotation=False,
    )
    profiled = SimpleNamespace(events=lambda: [kernel])
    monkeypatch.setattr(profile, "profile", lambda **options: contextlib.nullcontext(profiled))
    file = tmp_path / "selftest.jsonl"
    with gpu, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In CUDA autocast")
        options = ["--out", str(file), "--seconds", "300", "--only", *"bcdefgh"]
        code = main(["selftest", *options])
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert (lines[0]["device"], lines[0]["multiprocessors"]) == ("Stand-in", 132)
    wrong = [line for line in lines if line.get("held") is False]
    assert (code, wrong) == (0, [])
    shares = next(line for line in lines if line.get("cell") == "h")
    assert shares["products"] == 1 and 0 < shares["idle"] < 1
    # Capped, and not any more.
    assert gpu.fractions == [(pytest.approx(0.29), 0), (1.0, 0)]
    assert modes == [2, 0] * 2
    assert {line["held"] for line in lines if line.get("cell") in ("d", "e")} == {True}


def made_runs(tmp_path: Path) -> runs._Runs:
    """Runs in a folder of the test's."""
    made = runs._Runs(Bench(torch.device("cpu"), time.monotonic() + 100))
    made._bench._folder = tmp_path
    return made


def test_weights_that_differ_are_seen(tmp_path):
    made = made_runs(tmp_path)
    for name in ("once", "again"):
        (tmp_path / name / "checkpoint").mkdir(parents=True)
        (tmp_path / name / "checkpoint" / "model.safetensors").write_text(name)
        made._repeated[name] = subprocess.Popen([sys.executable, "-c", ""])
        made._bench.children.append(made._repeated[name])
    outcome = made.repeat()
    assert outcome.held is False and outcome.why == "the weights differ"
    assert made._bench.children == []


def test_a_run_that_leaves_something_out_is_seen(tmp_path, monkeypatch):
    made = made_runs(tmp_path)
    (tmp_path / "run").mkdir()
    lines = [{"kind": "train", "step": step, "loss": 1.0 + step} for step in range(1, 7)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "run" / "metrics.jsonl").write_text(text)

    def start(name, *words):
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit('sorry')"])
        (tmp_path / f"{name}.log").write_text("sorry")
        made._bench.children.append(process)
        return process

    monkeypatch.setattr(made, "_start", start)
    outcome = made.resume()
    assert outcome.held is False
    assert outcome.why == (
        "sorry; it did not reach its last step; it did not go on where it was stopped; "
        "no validation line; no answer line; no end line; the loss did not fall; no checkpoint"
    )


def test_a_run_that_begins_anew_is_no_resumed_one():
    """Without its checkpoint ``--resume`` begins again, and comes to its end as well."""
    lines = [{"kind": "start"}, {"kind": "train", "step": 7}, {"kind": "end"}]
    assert runs._resumed_at(lines) is None
    assert runs._resumed_at([*lines, {"kind": "resume", "step": 7}]) == 7


def test_without_the_core_the_runs_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sabiprep._core", None)
    monkeypatch.delattr(sabiprep, "_core", raising=False)
    ran = selftest(tmp_path, "--only", "a")
    assert ran.code == 0
    assert {line["held"] for line in ran.results("a").values()} == {None}
    assert "cannot be loaded" in ran.results("a")["packed"]["why"]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention"),
        ("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT", "products"),
        ("ampere_bf16_s16816gemm_bf16_128x256_ldg8_f2f_stages_64x3_tn", "products"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm...>", "products"),
        ("triton_red_fused__to_copy_add_mul_3", "elementwise"),
        ("void at::native::vectorized_elementwise_kernel<4, ...>", "elementwise"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "elementwise"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("Memset (Device)", "copies"),
        ("something_new", "other"),
    ],
)
def test_kernels_are_told_apart(kernel, kind):
    assert profile.class_of(kernel) == kind


def test_time_in_which_two_kernels_run_is_busy_once():
    def event(start, end, kind=profile.DeviceType.CUDA, annotation=False):
        stretch = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
        return SimpleNamespace(
            name=f"kernel {start}",
            time_range=stretch,
            device_type=kind,
            is_user_annotation=annotation,
        )

    events = [
        event(30, 40),
        event(0, 10),
        event(5, 20),
        event(6, 8),
        event(0, 90, annotation=True),
        event(0, 90, profile.DeviceType.CPU),
    ]
    assert profile._busy(events) == 30
    assert sum(profile._kernels(events, True).values()) == 10 + 10 + 15 + 2


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--only", "z"], 2, "there is no cell 'z', only a b c d e f g h"),
        (["--device", "tpu"], 1, "device must be auto, cpu, cuda or cuda:N"),
        (["--device", "cuda"], 1, "torch"),
        (["--device", "cpu", "--out", "/nowhere/at/all"], 1, "cannot be written"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(tmp_path, monkeypatch, capsys, options, code, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    try:
        assert main(["selftest", *options]) == code
    except SystemExit as error:
        assert error.code == code
    assert said in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_bits_are_promised_only_inside_the_with(monkeypatch):
    monkeypatch.delenv(bench._CUBLAS, raising=False)
    with bench.deterministic():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert bench._CUBLAS not in bench.os.environ
