"""Greedy answers: the same as the slow way, and the right documents asked the right way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sabiprep.errors import TrainError
from sabitrain.config import ModelConfig
from sabitrain.evaluation.generate import answer_held_out, greedy
from sabitrain.models.architecture import CausalModel, make_model
from sabitrain.models.decoder import DecoderModel
from sabitrain.models.family import Specifics
from sabitrain.models.llama import LlamaArchitecture
from support.dataset_writer import CONTROL, DATA, TARGET, TEMPLATE, Document
from support.train.tiny import ANSWER, BOS, COPY, EOS, VOCAB_SIZE, documents, write_tiny


@pytest.fixture
def model() -> CausalModel:
    torch.manual_seed(3)
    model = make_model(
        ModelConfig(layers=2, width=16, heads=2, kv_heads=1, mlp_width=24, context=24), VOCAB_SIZE
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
        model.head_VC[EOS] *= 1.5  # so that some answers end by themselves
    return model


def one_by_one(model: CausalModel, prompt: list[int], max_new_tokens: int) -> list[int]:
    """The oracle: one prompt, one token at a time."""
    text = list(prompt)
    while len(text) - len(prompt) < max_new_tokens and len(text) < model.config.context:
        n = len(text)
        hidden = model(torch.tensor(text), torch.arange(n), torch.tensor([0, n]).int(), n)
        text.append(int(F.linear(hidden[-1], model.head_VC).argmax()))
        if text[-1] == EOS:
            break
    return text[len(prompt) :]


def test_side_by_side_is_what_each_is_alone(model):
    prompts = [list(document.ids[: 2 + i % 3]) for i, document in enumerate(documents(24, 5))]
    got = greedy(model, prompts, EOS, 10)
    assert got == [one_by_one(model, prompt, 10) for prompt in prompts]
    assert any(answer[-1] == EOS for answer in got) and any(len(answer) == 10 for answer in got)


def test_answers_end_where_the_context_does(model):
    assert greedy(model, [[7] * 24], EOS, 5) == [[]]
    assert all(len(answer) <= 2 for answer in greedy(model, [[7] * 22, [9] * 22], EOS, 5))


class Parrot(DecoderModel):
    """Says ``script`` whatever it is asked: the next word of it by how far the answer is."""

    def __init__(self, script: list[int]) -> None:
        shape = ModelConfig(layers=1, width=VOCAB_SIZE * 2, heads=1, kv_heads=1, context=64)
        super().__init__(shape, VOCAB_SIZE, LlamaArchitecture().parts(shape, Specifics()))
        self.script, self.calls = script, 0
        with torch.no_grad():
            self.head_VC.copy_(torch.eye(VOCAB_SIZE, VOCAB_SIZE * 2))

    def forward(self, ids_N, positions_N, cu_seqlens, max_seqlen, at_M):
        said = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        return F.one_hot(torch.full_like(at_M, said), VOCAB_SIZE * 2).float()


def question(words: list[int], answer: list[int], source: int = 0, bos: bool = False) -> Document:
    ids = [COPY, *words, ANSWER, *answer, EOS]
    roles = [TEMPLATE, *[DATA] * len(words), TEMPLATE, *[TARGET] * len(answer), CONTROL]
    return Document([BOS, *ids], [CONTROL, *roles], source) if bos else Document(ids, roles, source)


@pytest.mark.parametrize(
    ("said", "exact"),
    [
        ([8, 9, EOS], True),
        ([8, EOS], False),
        ([8, 9, 10, EOS], False),
        ([8, 9, 10, 11, 12], False),
        ([EOS], False),
    ],
)
def test_exact_is_the_whole_answer_and_then_the_end(tmp_path, said, exact):
    dataset = write_tiny(tmp_path, validation=[question([7, 7], [8, 9])])
    (answer,) = answer_held_out(Parrot(said), dataset, 5, max_new_tokens=5)
    assert answer.exact is exact
    assert (answer.task, answer.prompt, answer.expected) == ("copy", "t3 t7 t7 t5", "t8 t9")
    assert answer.produced == " ".join(f"t{id_}" for id_ in said if id_ != EOS)


def test_the_prompt_is_shown_without_bos_but_asked_with_it(tmp_path):
    dataset = write_tiny(tmp_path, validation=[question([7], [8], bos=True)], bos_id=BOS)
    asked = []

    class Listener(Parrot):
        def forward(self, ids_N, *rest):
            asked.append(ids_N.tolist())
            return super().forward(ids_N, *rest)

    (answer,) = answer_held_out(Listener([8, EOS]), dataset, 1)
    assert asked[0] == [BOS, COPY, 7, ANSWER]
    assert (answer.prompt, answer.exact) == ("t3 t7 t5", True)


def test_which_documents_are_asked(tmp_path):
    text = Document([8, 9, EOS], [TARGET, TARGET, CONTROL], 2)
    text_after_bos = Document([BOS, 8, EOS], [CONTROL, TARGET, CONTROL], 2)
    talk = Document([COPY, 8, COPY, 9, EOS], [DATA, TARGET, DATA, TARGET, CONTROL], 0)
    open_end = Document([COPY, ANSWER, 8, 9], [DATA, TEMPLATE, TARGET, TARGET], 0)
    questions = [question([i], [i + 1], source=i % 2) for i in range(7, 17)]
    held_out = [text, *questions[:5], talk, open_end, text_after_bos, *questions[5:]]
    dataset = write_tiny(tmp_path, validation=held_out)
    every = answer_held_out(Parrot([EOS]), dataset, 99)
    assert sorted(answer.expected for answer in every) == sorted(f"t{i + 1}" for i in range(7, 17))
    assert all(answer.prompt == f"t3 t{int(answer.expected[1:]) - 1} t5" for answer in every)
    labels = answer_held_out(Parrot([EOS]), dataset, 99, tasks=["label"])
    assert len(labels) == 5 and {answer.task for answer in labels} == {"label"}
    assert (
        answer_held_out(Parrot([EOS]), dataset, 4, seed=1)
        == answer_held_out(Parrot([EOS]), dataset, 9, seed=1)[:4]
    )
    assert answer_held_out(Parrot([EOS]), dataset, 9, seed=1) != answer_held_out(
        Parrot([EOS]), dataset, 9, seed=2
    )
    with pytest.raises(TrainError, match="no task 'translate'"):
        answer_held_out(Parrot([EOS]), dataset, 1, tasks=["translate"])


def test_no_answers_without_a_validation_split(tmp_path, model):
    assert answer_held_out(model, write_tiny(tmp_path, validation=[]), 3) == []
