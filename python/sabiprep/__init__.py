"""Packs multitask corpora into fixed-length rows with exact loss masks, and reads them.

    print(sabiprep.plan("corpus"))           # what is in the files, and what is wrong
    report = sabiprep.pack("corpus", "out")  # as `sabiprep pack corpus out`
    dataset = sabiprep.open_dataset("out")   # memory-mapped; needs no compiled core
    row = dataset.train[0]                   # input_ids, labels, loss_mask, cu_seqlens, roles ...
    print(sabiprep.explain({"text": "..."}, "my-source", corpus="corpus"))

Everything public is named here. Every error is a `SabiprepError`, with its place and its remedy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sabiprep.api import (
    Engine,
    Progress,
    explain,
    init,
    pack,
    plan,
    remix,
    train_tokenizer,
    verify,
)
from sabiprep.errors import (
    ConfigError,
    DatasetError,
    InputError,
    InternalError,
    Interrupted,
    OutputError,
    SabiprepError,
    TokenizerError,
    TrainError,
)
from sabiprep.explanation import Explanation, Refusal, Span
from sabiprep.options import PackOptions
from sabiprep.parts import PartReport, finish, finish_part, pack_part, settle
from sabiprep.report import (
    Counts,
    Example,
    PackReport,
    Shares,
    SourceReport,
    SplitReport,
    TaskReport,
    Timing,
    TokenizerReport,
    VerifyReport,
)
from sabiprep.roles import Role
from sabiprep.survey import (
    CorpusPlan,
    Estimate,
    PlannedFiles,
    PlannedRecord,
    PlannedSource,
    Problem,
    SeenField,
)

if TYPE_CHECKING:
    from sabiprep.dataset import BatchDict, PackedDataset, RowDict, SourceInfo, Split, open_dataset
    from sabiprep.encoder import Encoder
    from sabiprep.handover.exporting import export
    from sabiprep.handover.report import ExportedSplit, ExportedTask, ExportReport, TasksReport
    from sabiprep.handover.tasks import export_tasks

# What needs NumPy and pyarrow is imported when it is asked for: packing needs neither, and they
# take long to load.
_DATASET = ("BatchDict", "PackedDataset", "RowDict", "SourceInfo", "Split", "open_dataset")
_REPORTS = ("ExportReport", "ExportedSplit", "ExportedTask", "TasksReport")
_MODULES = {
    "Encoder": "sabiprep.encoder",
    "export": "sabiprep.handover.exporting",
    "export_tasks": "sabiprep.handover.tasks",
    **dict.fromkeys(_REPORTS, "sabiprep.handover.report"),
    **dict.fromkeys(_DATASET, "sabiprep.dataset"),
}

__all__ = [
    "BatchDict",
    "ConfigError",
    "CorpusPlan",
    "Counts",
    "DatasetError",
    "Encoder",
    "Engine",
    "Estimate",
    "Example",
    "Explanation",
    "ExportReport",
    "ExportedSplit",
    "ExportedTask",
    "InputError",
    "InternalError",
    "Interrupted",
    "OutputError",
    "PackOptions",
    "PackReport",
    "PackedDataset",
    "PartReport",
    "PlannedFiles",
    "PlannedRecord",
    "PlannedSource",
    "Problem",
    "Progress",
    "Refusal",
    "Role",
    "RowDict",
    "SabiprepError",
    "SeenField",
    "Shares",
    "SourceInfo",
    "SourceReport",
    "Span",
    "Split",
    "SplitReport",
    "TaskReport",
    "TasksReport",
    "Timing",
    "TokenizerError",
    "TokenizerReport",
    "TrainError",
    "VerifyReport",
    "explain",
    "export",
    "export_tasks",
    "finish",
    "finish_part",
    "init",
    "open_dataset",
    "pack",
    "pack_part",
    "plan",
    "remix",
    "settle",
    "train_tokenizer",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'sabiprep' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
