"""The training itself: transformers' Trainer with a loss on the answers alone.

Transformers and PEFT do the arithmetic: AdamW, gradients, clipping, the learning rate, states to go on from. Ours are what a
training on answers needs besides: the vocabulary's logits are computed only where an answer is (the most costly layer of a
small model, and most tokens are prompt), batches come in an order told by the seed and the step alone, and the held-out loss
is an average over tokens.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerControl

from workbench.adapters import WEIGHTS
from workbench.engines.local.memory import is_out_of_memory
from workbench.errors import AdapterError, EngineUnavailable
from workbench.training.curve import best_step, is_over
from workbench.training.tokens import IGNORED, Batches, collate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from workbench.training.checkpoints import Checkpoints
    from workbench.training.settings import Settings
    from workbench.training.tokens import Tokens

_WARMUP: Final = 0.05
"""Share of the steps in which the learning rate rises."""
_CLIP: Final = 1.0
"""Longest gradient, all parameters together."""
_POINTS: Final = 300
"""Most points of the curve of the training loss, about."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is trained.

    Attributes:
        rows: To train on, at least one.
        held_out: To measure on.
        settings: How.
        pad: Token that fills short rows; never looked at.
    """

    rows: Sequence[Tokens]
    held_out: Sequence[Tokens]
    settings: Settings
    pad: int

    @property
    def n_batches(self) -> int:
        """Steps in an epoch."""
        return -(-len(self.rows) // self.settings.step_rows)

    @property
    def n_steps(self) -> int:
        """Steps if nothing stops it early."""
        return self.n_batches * self.settings.epochs

    @property
    def check_every(self) -> int:
        """Steps between checks."""
        return max(1, round(self.n_batches / self.settings.checks))


def answer_losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Negative log-likelihood of every answer token, nats, fp32 (B, A); 0 where there is none."""
    labels = batch["labels"]
    out = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=labels.shape[1] + 1,
        use_cache=False,
    )
    logits = out.logits[:, :-1].float()
    return functional.cross_entropy(
        logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )


def mean_loss(model: Any, rows: Sequence[Tokens], batch_size: int, pad: int) -> float:
    """Mean negative log-likelihood of the answers' tokens, nats; the model is left in eval mode."""
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row.ids))
    total, n = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ordered), batch_size):
            part = ordered[start : start + batch_size]
            total += float(answer_losses(model, collate(part, pad, model.device)).sum())
            n += sum(row.n_answer for row in part)
    return total / n


class UnreadableState(Exception):  # noqa: N818 - says what, and is caught by the one who asked
    """A checkpoint's files are as they were written, and training cannot go on from them."""


class AnswerTrainer(Trainer):  # type: ignore[misc]
    """Trains on answers; its arguments and rows come from `Work`."""

    loss_is_scaled_for_ga = True

    def __init__(self, model: Any, work: Work, arguments: TrainingArguments, watch: Watch) -> None:
        super().__init__(model=model, args=arguments, callbacks=[watch])
        self.remove_callback(PrinterCallback)
        self._work = work
        self._watch = watch

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Rows in the order of `Batches`."""
        work = self._work
        lengths = [len(row.ids) for row in work.rows]
        how = work.settings
        batches = Batches(lengths, how.batch_size, how.seed, self._epoch, how.gradient_accumulation)
        together = partial(collate, pad=work.pad)
        return DataLoader(list(work.rows), batch_sampler=batches, collate_fn=together)  # type: ignore[arg-type]

    def _epoch(self) -> int:
        return int(self.state.global_step) // self._work.n_batches

    def create_scheduler(self, num_training_steps: int, *_: Any, **__: Any) -> LambdaLR:
        """The learning rate: up in a straight line, from the first step on, then down to 0."""
        rise = math.ceil(_WARMUP * num_training_steps)

        def share(step: int) -> float:
            return min(1.0, (step + 1) / rise) * (1 - step / num_training_steps)

        self.lr_scheduler = LambdaLR(self.optimizer, share)
        return self.lr_scheduler

    def get_batch_samples(self, *args: Any, **options: Any) -> tuple[list[Any], Tensor]:
        """The batches of a step, and the answer tokens in them."""
        batches, _ = super().get_batch_samples(*args, **options)
        n = [(batch["labels"] != IGNORED).sum() for batch in batches]
        return batches, torch.stack(n).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,  # noqa: ARG002 - as the Trainer has it
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """A batch's share of the mean over the answer tokens of the step."""
        assert num_items_in_batch is not None  # `get_batch_samples` gives it
        loss = answer_losses(model, inputs).sum() / num_items_in_batch
        if not self.state.global_step:
            self._check(float(loss))
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the held-out rows."""
        work = self._work
        metrics = {
            "eval_loss": mean_loss(
                self.model, work.held_out, 2 * work.settings.batch_size, work.pad
            )
        }
        self.log(dict(metrics))
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], *_: Any, **__: Any) -> None:
        """Note losses with the time since the training began, pauses not counted."""
        for name in ("loss", "eval_loss"):
            self._check(logs.get(name, 0.0))
        super().log(logs | {"elapsed_s": round(self._watch.elapsed_s(), 3)})

    def _check(self, loss: float) -> None:
        step = self.state.global_step
        if not math.isfinite(loss):
            raise AdapterError(
                f"the loss is no finite number after {step} steps; lower learning_rate"
                if step
                else "the loss is no finite number before the first step, so the base model, the kernel or the data are at "
                "fault: try kernel fp32, and look for odd rows"
            )

    def save_model(self, output_dir: str | None = None, *_: Any, **__: Any) -> None:
        """Write the adapter alone, as PEFT's ``save_pretrained`` does but for its card."""
        assert output_dir is not None
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        state = {name: tensor.contiguous() for name, tensor in state.items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        replace(self.model.peft_config["default"], inference_mode=True).save_pretrained(folder)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Says when to log, measure, save and stop; moves the bar; seals checkpoints."""

    def __init__(self, work: Work, checkpoints: Checkpoints, bar: Any) -> None:
        self._work = work
        self._checkpoints = checkpoints
        self._bar = bar
        self._log_every = max(1, work.n_steps // _POINTS)
        self._before_s = 0.0
        self._start_s = time.perf_counter()
        self.begun = False

    def elapsed_s(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._before_s + time.perf_counter() - self._start_s

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take up clock and bar where they were."""
        self._before_s = max((e.get("elapsed_s", 0.0) for e in state.log_history), default=0.0)
        self._start_s = time.perf_counter()
        self._bar.update(state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """From here on all is loaded."""
        self.begun = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Decide what comes after this step."""
        step = state.global_step
        last = step >= state.max_steps
        check = step % self._work.check_every == 0 or last
        control.should_log = check or step % self._log_every == 0
        control.should_evaluate = check and bool(self._work.held_out)
        control.should_save = check
        self._bar.update()

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Show the newest losses."""
        shown = {}
        for key, name in (("loss", "loss"), ("eval_loss", "held out")):
            values = [entry[key] for entry in state.log_history if key in entry]
            if values:
                shown[name] = f"{values[-1]:.3f}"
        self._bar.set_postfix(shown)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Stop if it no longer helps."""
        if is_over(state.log_history, self._work.n_steps, self._work.settings.patience):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The checkpoint is whole: only it and the best stay."""
        self._checkpoints.seal(state.global_step)
        self._checkpoints.keep({state.global_step, best_step(state.log_history)})


def arguments(work: Work, checkpoints: Checkpoints, device: torch.device) -> TrainingArguments:
    """What transformers' Trainer is told.

    Raises:
        EngineUnavailable: It would train on another device than the one that the model is on.
    """
    settings = work.settings
    made = TrainingArguments(
        output_dir=str(checkpoints.path),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        activation_checkpointing=settings.gradient_checkpointing,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        optim="adamw_torch",
        max_grad_norm=_CLIP,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=False,
        seed=settings.seed,
    )
    if made.device.type != device.type:
        raise EngineUnavailable(
            f"the model is on {device}, and accelerate was set up for {made.device} earlier in this process; "
            "train in a new process"
        )
    made._n_gpu = min(made.n_gpu, 1)  # noqa: SLF001 - the model is on one GPU, however many there are
    return made


def train(
    model: Any,
    work: Work,
    checkpoints: Checkpoints,
    bar: Any,
) -> list[dict[str, Any]]:
    """Train a PEFT model, or go on from its newest checkpoint.

    Returns:
        What was logged, from the first step on.

    Raises:
        AdapterError: The loss is no finite number.
        EngineUnavailable: See `arguments`.
        UnreadableState: The newest checkpoint cannot be loaded.
    """
    resume = checkpoints.newest()
    made = arguments(work, checkpoints, model.device)
    made.eval_on_start = bool(work.held_out) and resume is None
    watch = Watch(work, checkpoints, bar)
    trainer = AnswerTrainer(model, work, made, watch)
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except Exception as error:  # whatever the libraries raise on a file that they cannot read
        if resume is None or watch.begun or is_out_of_memory(error):
            raise
        raise UnreadableState(resume.name) from error
    history: list[dict[str, Any]] = trainer.state.log_history
    return history
