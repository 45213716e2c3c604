"""A training run, top to bottom: ``python -m sabitrain --data OUT --run DIR``.

Opens the packed dataset, trains on its targets, validates, saves checkpoints that ``transformers``
reads, and answers a few held-out prompts. Everything it leaves lies in the run folder
(`sabitrain.checkpoints.run_folder`). However it ends, by Ctrl-C or ``kill -9``, the same command with
``--resume`` goes on as if it had not.
"""

from __future__ import annotations

import platform

import torch

from sabiprep.dataset import PackedDataset
from sabiprep.errors import Interrupted, TrainError
from sabitrain.attention.documents import check_attention
from sabitrain.checkpoints.files import output_error
from sabitrain.checkpoints.fingerprint import check_fingerprint, fingerprint_of
from sabitrain.checkpoints.history import History
from sabitrain.checkpoints.run_folder import (
    METRICS_FILE,
    begin_run,
    keep_skipped,
    plain_configuration,
    resume_command,
    take_up,
)
from sabitrain.checkpoints.trainer_state import Progress, restore_state
from sabitrain.config import TrainConfig
from sabitrain.data.batches import make_step
from sabitrain.data.loader import Loader
from sabitrain.data.masking import masking_of
from sabitrain.data.mixture import Order, make_order, open_datasets
from sabitrain.device import choose_device, limit_memory, runs_in_bf16, set_deterministic
from sabitrain.evaluation.evaluate import precision
from sabitrain.evaluation.generate import answer_held_out
from sabitrain.models.compiling import compile_ahead
from sabitrain.models.flops import step_flops
from sabitrain.models.llama import Llama
from sabitrain.models.loss import predicting_states, weighted_loss
from sabitrain.monitoring.clock import Clock
from sabitrain.monitoring.console import open_console
from sabitrain.monitoring.metrics import Metrics
from sabitrain.monitoring.report import Report, report_end, report_stop, saved_so_far
from sabitrain.monitoring.tensorboard import check_tensorboard, open_tensorboard
from sabitrain.optim.guard import StepGuard, records_of, stop_error
from sabitrain.optim.optimizers import clip_gradient, make_optimizers, set_learning_rate, skip_where
from sabitrain.optim.schedule import learning_rate
from sabitrain.preflight import check_dataset
from sabitrain.stopping import StopRequest
from sabitrain.validation import Validator


def run_training(config: TrainConfig) -> Report:
    """Train as ``config`` says, and leave everything in the run folder.

    Raises:
        DatasetError: If the dataset cannot be read, has nothing to train on, or is not the one of
            the run to resume.
        ConfigError: If a setting is not that of the run to resume.
        TrainError: If it does not fit the model, or three steps in a row could not be taken.
        OutputError: If the run folder is not empty, or cannot be written to.
        Interrupted: If Ctrl-C came twice.
    """
    with open_datasets(config.datasets) as dataset:
        check_dataset(config, dataset)
        check_tensorboard(config.tensorboard)
        device = choose_device(config.device)
        set_deterministic(config.deterministic)
        limit_memory(device, config.memory_limit)
        try:
            with begin_run(config), StopRequest() as stop:
                return _run(config, dataset, device, stop)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped by Ctrl-C at once; {saved_so_far(config.run)}",
                file=str(config.run),
                remedy=f"go on with: {resume_command(config)}",
            ) from None
        except torch.OutOfMemoryError as error:
            raise TrainError(
                f"the GPU's memory is full (--memory-limit is {config.memory_limit:g} GB)",
                remedy=f"lower --batch.micro-tokens from {config.batch.micro_tokens}, or use --recompute; "
                "`python -m sabitrain plan` says what fits",
            ) from error
        except OSError as error:
            raise output_error(
                error, "the run cannot go on", config.run, resume_command(config)
            ) from error


def _run(
    config: TrainConfig, dataset: PackedDataset, device: torch.device, stop: StopRequest
) -> Report:
    """The run itself, once everything is known to fit."""
    # Set up, from the newest checkpoint if there is one.
    notes: list[str] = []
    history = History(config.run, config.checkpoint)
    resumed = history.resume(notes.append) if config.resume else None
    if resumed is not None:
        check_fingerprint(resumed[1].dataset, dataset)
        config = take_up(resumed[1].config, resumed[1].step, config)
        history.settle(resumed[0])
    keep_skipped(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    shape, bf16 = config.model, runs_in_bf16(device)
    check_attention(
        shape.heads,
        shape.key_heads,
        shape.head_size,
        device,
        torch.bfloat16 if bf16 else torch.float32,
    )
    model = Llama(shape, dataset.vocab_size).to(device)
    model.recompute(config.recompute)
    forward = torch.compile(model, dynamic=True) if config.compile else model
    optimizers, guard = make_optimizers(model, config.optim), StepGuard(device, config.optim.spike)
    plan = (
        dict(resumed[1].plan)
        if resumed
        else config.step_plan(len(dataset.train), dataset.seq_len, device.type)
    )
    steps, micro_rows = plan["steps"], plan["micro_rows"]
    order = make_order(dataset, config, plan["rows_per_step"], steps)
    masking = masking_of(config, dataset.sources)
    begun, seconds, kept = (
        (resumed[1].step, resumed[1].seconds, resumed[1].metrics_bytes) if resumed else (0, 0.0, 0)
    )
    done, evaluation, saved, step_saved = begun, None, None, begun if resumed else -1
    clock = Clock(steps, config.hours, begun, seconds)
    with (
        open_console(clock) as console,
        open_tensorboard(config.tensorboard, config.run, begun) as tensorboard,
        Metrics(
            config.run / METRICS_FILE, console, clock, device, config.log_every, kept, tensorboard
        ) as metrics,
        Loader(
            dataset.train, order.step, steps, micro_rows, masking, config.compute, pin=bf16
        ) as loader,
    ):
        stop.say_by(console.say)
        for note in notes:
            console.say(note, "bold")
        if resumed is None:
            metrics.start(
                dataset=dataset.fingerprint,
                parameters=model.n_parameters(),
                **plan,
                device=str(device),
                bf16=bf16,
                torch=torch.__version__,
                python=platform.python_version(),
                skip_batches=config.skip_batches,
            )
        else:
            saved = resumed[0]
            restore_state(saved, model, optimizers, guard)
            metrics.not_finite, metrics.spikes = guard.state["counts"].tolist()
            facts = {
                "device": str(device),
                "torch": torch.__version__,
                "skip_batches": config.skip_batches,
            }
            metrics.resume(step=done, checkpoint=saved.name, **facts)
            console.say(f"going on from {saved}, after step {done:,}")
        console.say(
            f"{config.preset}: {model.n_parameters():,} parameters, vocabulary {dataset.vocab_size:,}, on {device}"
            f"{' in bf16' if bf16 else ''}\n"
            f"{', '.join(config.data)}: {len(dataset.train):,} rows of {dataset.seq_len} tokens to train on, "
            f"{len(dataset.validation):,} held out\n"
            f"{steps:,} steps of {order.rows_per_step} rows, {order.epoch(steps):.2f} epochs"
        )
        if order.rows_per_step > len(dataset.train):
            most = len(dataset.train) * dataset.seq_len
            console.say(
                f"note: one step repeats every row there is; --batch.tokens {most} would be one epoch"
            )

        validator = Validator(config, dataset, model, micro_rows, bf16, clock, console, stop)
        validator.prepare()
        if config.compile and done < steps and not stop.is_requested():
            console.between_steps("compiling")
            first = make_step(
                dataset.train, order.step(done)[:micro_rows], micro_rows, masking, config.compute
            )
            compile_ahead(forward, model, first.batches[0].to(device), config.compute, bf16, stop)

        # Train. A checkpoint comes before all else that is due after its step, so that is where a
        # resumed run begins.
        while True:
            asked = stop.signal
            last = validator.is_last(done)
            validates = last or validator.is_due(done)
            due = config.checkpoint.every and done > 0 and done % config.checkpoint.every == 0
            if validates or due or asked or done % config.log_every == 0:
                _check_steps(guard, config, dataset, order, metrics)
            if (validates or due or asked) and done > step_saved:
                console.between_steps("saving")
                seconds = clock.seconds
                progress = Progress(
                    step=done,
                    seconds=clock.seconds,
                    metrics_bytes=metrics.sync(),
                    plan=plan,
                    config=plain_configuration(config),
                    dataset=fingerprint_of(dataset),
                )
                saved, step_saved = history.save(model, optimizers, guard, dataset, progress), done
                clock.seconds_to_save = clock.seconds - seconds
            if validates and not asked:
                evaluation = validator.validate(done, last)
                asked = stop.signal
                if evaluation is not None:
                    metrics.validation(done, evaluation)
            if asked and saved is not None:
                return report_stop(config, console, stop, done, evaluation, saved)
            if last:
                break
            if done + 1 in config.skip_batches:
                done += 1
                continue
            metrics.begin_step()
            step = loader.step(done)
            rate = learning_rate(config.optim, done, steps)
            loss = torch.zeros((), device=device)
            left = len(step.batches)
            for batch in (batch.to(device) for batch in step.batches):
                with precision(device, bf16):
                    hidden_MC = predicting_states(forward, batch, config.compute)
                    to_minimise, cross_entropy = weighted_loss(
                        hidden_MC, model.head_VC, batch, config.z_loss
                    )
                torch.autograd.backward(to_minimise)
                loss += cross_entropy
                left -= 1
                if left and stop.is_requested():
                    break
            if left:  # nothing of the step is kept: it is done again when the run is resumed
                for optimizer in optimizers:
                    optimizer.zero_grad()
                continue
            grad_norm = clip_gradient(model, config.optim.clip)
            skip, outcome = guard.judge(loss, grad_norm, done + 1, step.targets)
            set_learning_rate(optimizers, rate)
            skip_where(optimizers, skip)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            done += 1
            flops = step_flops(shape, dataset.vocab_size, step, config.compute, config.recompute)
            metrics.step(
                done,
                step,
                flops,
                epoch=order.epoch(done),
                lr=rate,
                outcome=outcome,
                waited=loader.waited,
            )

        # Show what was trained.
        console.settle()
        if done < steps:
            console.say(
                f"{config.hours:g} hours are over: stopping at step {done}, before the rate has come down"
            )
        console.say(f"saved {history.newest} after {clock.seconds:.0f} s")
        console.between_steps("answering")
        answers = answer_held_out(
            model,
            dataset,
            config.answers,
            seed=config.seed,
            tasks=config.answer_tasks,
            max_new_tokens=config.max_new_tokens,
            go_on=validator.going_on("answering", "tokens"),
        )
        if stop.signal and saved is not None:
            return report_stop(config, console, stop, done, evaluation, saved)
        return report_end(metrics, done, evaluation, answers, history.newest)


def _check_steps(
    guard: StepGuard, config: TrainConfig, dataset: PackedDataset, order: Order, metrics: Metrics
) -> None:
    """Stop the run if too many steps in a row could not be taken, and name what was in the last."""
    bad = guard.stopping_steps()
    if bad:
        records = records_of(dataset, dataset.train.batch(order.step(bad[-1] - 1)))
        metrics.stopped(bad[-1], records)
        raise stop_error(bad[-1], records, resume_command(config, bad))
