"""From Hydra's composed configuration to one checked, immutable `RunConfig`."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from pipelines.pareto_config import ParetoConfig
from recsys.core.errors import ConfigError
from recsys.core.jsonable import build_config
from recsys.core.specs import RowType
from recsys.data.dataset import Dataset
from recsys.data.ingest import IngestOptions
from recsys.data.joined import SideTable
from recsys.embeddings.method import MethodConfig
from recsys.evaluate.compare_config import CompareConfig
from recsys.evaluate.config import EvaluateConfig
from recsys.export.config import ExportConfig
from recsys.models.ctr import ModelConfig
from recsys.retrieval.config import RetrievalConfig
from recsys.search.method import SearchConfig
from recsys.train.config import TrainConfig

ONLY_HOW = ("checkpoint_every", "num_processes", "num_threads", "sharding", "table_memory", "cache_load_factor")
"""Keys of `train` and `train.run_on` that say how to train, not what: a run may go on with others."""

ONLY_WHERE = ("launcher", "num_workers")
"""Keys of `ingest` that say who does the work: the result is the same."""

ONLY_RANKING = ("top_k", "users_at_once")
"""Keys of `retrieval` that say how to rank, not what is trained."""

MAX_NAME_BYTES = 200
"""Of a folder that a job's overrides name: file systems take 255, and files beside it have longer names."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What to score with an exported bundle."""

    bundle: str = ""  # folder; empty: this run's own
    input: str = ""  # raw rows, CSV, TSV, JSONL, Parquet or Arrow; empty: the run's raw test rows
    columns: list[str] = field(default_factory=list)  # names of the input's columns, where its text has no header line
    quoted: bool = True  # its text values may stand between double quotes, as in the dataset config
    output: str = ""  # Parquet file; empty: predict/scores.parquet of the run
    row_type: RowType = RowType.FLOAT32  # which model of the bundle
    batch_size: int = 65_536
    k: int = 20  # items of a list, with a bundle that lists items
    filter_seen: bool = True  # list nothing that a user has met

    def __post_init__(self) -> None:
        for name in ("batch_size", "k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """What to propose a dataset config for."""

    files: list[str] = field(default_factory=list)  # of one form; the first one is looked at
    label: str = ""  # column of 0 and 1; empty: found by its name
    name: str = "mine"  # of the data set
    output: str = ""  # yaml to write, say conf/dataset/mine.yaml; empty: print it
    num_rows: int = 100_000  # rows to look at
    side: tuple[SideTable, ...] = ()  # as `dataset.side`: their columns get a role like the rows' own

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ConfigError(f"num_rows={self.num_rows}: must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What to say of a plan before training."""

    num_ranks: int = 0  # ranks to lay the tables over; 0: as many as train.run_on.num_processes

    def __post_init__(self) -> None:
        if self.num_ranks < 0:
            raise ConfigError(f"num_ranks={self.num_ranks}: must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything one run needs. The keys are those of `conf/config.yaml`, where `budget_mib` is `embedding`'s."""

    name: str
    seed: int
    runs: str
    overwrite: bool
    dataset: Dataset
    model: ModelConfig
    embedding: MethodConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    export: ExportConfig
    ingest: IngestOptions
    plan: PlanConfig = field(default_factory=PlanConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    infer: InferConfig = field(default_factory=InferConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    trained_by: str = ""  # run whose train stage this one evaluates and exports; empty: its own
    retrieval: RetrievalConfig | None = None  # users and items instead of clicks, with `model` left out of account
    search: SearchConfig | None = None  # set by search=<method>
    pareto: ParetoConfig | None = None  # set by the experiments of conf/experiment/pareto

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.=,+/-]+", self.name) or ".." in self.name:
            raise ConfigError(
                f"name={self.name!r}: must be a folder name of letters, digits, '-', '_', '.', '=', ',' and '/'."
            )


@dataclass(frozen=True)
class Run:
    """A checked configuration with the plain values it was built from, which stages record."""

    config: RunConfig
    values: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Folder of this run's stages."""
        return Path(self.config.runs) / self.config.name

    def stage(self, name: str) -> Path:
        """Folder that a stage writes. Ingest's depends on its own options alone, so that runs share it."""
        if name == "train" and self.config.trained_by:
            return Path(self.config.runs) / self.config.trained_by / name
        if name != "ingest":
            return self.folder / name
        digest = hashlib.sha256(json.dumps(self.part("dataset", "ingest"), sort_keys=True).encode()).hexdigest()[:8]
        kind = self.values["dataset"]["_target_"].rpartition(".")[2].removesuffix("Dataset").lower()
        return Path(self.config.runs) / "data" / f"{kind}-{digest}"

    def part(self, *keys: str) -> dict[str, Any]:
        """Some of the plain values: what a stage's result depends on."""
        found = {key: self.values[key] for key in keys}
        if "train" in found:
            train = {key: value for key, value in found["train"].items() if key not in ONLY_HOW}
            train["run_on"] = {key: value for key, value in train["run_on"].items() if key not in ONLY_HOW}
            found["train"] = train
        if "ingest" in found:
            found["ingest"] = {k: value for k, value in found["ingest"].items() if k not in ONLY_WHERE}
        if "retrieval" in found:
            found["retrieval"] = {k: value for k, value in found["retrieval"].items() if k not in ONLY_RANKING}
        return found

    def refuse_from(self) -> None:
        """Refuse to train where `from` names another run, whose training this would replace.

        Raises:
            ConfigError: it does.
        """
        if self.config.trained_by:
            raise ConfigError(
                f"from={self.config.trained_by}: that run is trained, and this command would train it again, in its "
                "folder. Leave from= out to train a run of its own, or serve that one in another form: "
                f"`python -m pipelines.compress from={self.config.trained_by} embedding=…`."
            )

    @property
    def trained_with(self) -> dict[str, Any]:
        """Options that the train stage must have been made with.

        Another run's may have had another embedding: its checkpoint tells whether that trains the same tables.
        """
        return self.part(self.kind) if self.config.trained_by else self.part(self.kind, "embedding")

    @property
    def kind(self) -> str:
        """Key of what is trained: `model` of clicks, or `retrieval`."""
        return "model" if self.config.retrieval is None else "retrieval"


def load(composed: DictConfig) -> Run:
    """Check a composed configuration.

    Raises:
        ConfigError: naming the key, what was given, and what would do.
    """
    try:
        values: dict[str, Any] = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no default. Set it on the command line: {error.full_key}=…") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from error
    _give_budget(values.pop("budget_mib", None), values["embedding"])
    values["trained_by"] = values.pop("from")
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is not None and hydra.mode == RunMode.MULTIRUN:
        # Jobs of a sweep differ in their overrides alone, so these name the folders.
        values["name"] += "/" + folder_name(hydra.job.override_dirname)
    return Run(build_config(RunConfig, values, key=""), values)


def folder_name(overrides: str) -> str:
    """The overrides of a job as a name that a folder may have; of very many a part and a hash of all."""
    name = re.sub(r"[^\w.=,+-]", "_", overrides)
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(overrides.encode()).hexdigest()[:12]
    return name.encode()[: MAX_NAME_BYTES - 13].decode(errors="ignore") + "-" + digest


def _give_budget(budget_mib: Any, embedding: dict[str, Any]) -> None:
    """Let `budget_mib=…` stand for `embedding.budget_mib=…`."""
    if budget_mib is None:
        return
    if embedding.get("budget_mib") not in (None, budget_mib):
        raise ConfigError(
            f"budget_mib={budget_mib} and embedding.budget_mib={embedding['budget_mib']} are the same option. Set one."
        )
    embedding["budget_mib"] = budget_mib
