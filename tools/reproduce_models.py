"""The rows of the reproduction tables: what BARS published on frappe_x1, and what each model is in FuxiCTR's zoo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys.core.errors import ConfigError
from tools.fuxictr_setup import CRITEO_CATEGORICAL, CRITEO_NUMERIC, FRAPPE_IDS, PeerSettings


@dataclass(frozen=True, kw_only=True)
class Published:
    """Test AUC and log loss that BARS publishes."""

    auc: float  # of the best run, which its leaderboard has
    log_loss: float
    num_parameters: int
    mean_auc: float | None = None  # of five seeds, where it has them


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model of a table: the option `experiment=reproduce/<dataset>/<name>`."""

    name: str
    title: str
    published: Published | None = None
    peer: bool = False  # whether FuxiCTR's is run beside it


@dataclass(frozen=True, kw_only=True)
class Table:
    """One data set's table."""

    dataset: str
    title: str
    rows: Sequence[Row]
    seeds: Sequence[int]
    margin: float  # difference of mean AUCs that counts as equal
    numeric: Sequence[str] = ()  # columns of the peer
    categorical: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=list)


def _row(name: str, title: str, *, peer: bool = False, published: tuple[float, float, int] | None = None) -> Row:
    found = None
    if published is not None:
        auc, log_loss, num_parameters = published
        mean = BARS_MEANS.get(name)
        found = Published(auc=auc, log_loss=log_loss, num_parameters=num_parameters, mean_auc=mean)
    return Row(name=name, title=title, published=found, peer=peer)


BARS_MEANS = {
    "dnn": 0.98405,
    "wide_deep": 0.98307,
    "deepfm": 0.98395,
    "dcn": 0.98342,
    "dcnv2": 0.98382,
    "xdeepfm": 0.98414,
}

FRAPPE = Table(
    dataset="frappe",
    title="Frappe",
    margin=0.0005,
    seeds=[2021, 2022, 2023],
    categorical=FRAPPE_IDS,
    rows=[
        _row("lr", "LR", peer=True, published=(0.9356, 0.3076, 5_390)),
        _row("crossnet", "CrossNet", published=(0.9594, 0.2715, 55_191)),
        _row("fm", "FM", peer=True, published=(0.9671, 0.2065, 59_280)),
        _row("fmfm", "FmFM", peer=True, published=(0.9749, 0.2004, 59_730)),
        _row("fwfm", "FwFM", published=(0.9776, 0.2030, 107_826)),
        _row("cin", "CIN", published=(0.9782, 0.2352, 147_984)),
        _row("autoint", "AutoInt", peer=True, published=(0.9831, 0.1637, 306_051)),
        _row("fibinet", "FiBiNET", published=(0.9832, 0.1941, 743_480)),
        _row("dnn", "DNN", published=(0.9833, 0.1622, 781_892)),
        _row("masknet", "MaskNet", published=(0.9837, 0.1696, 571_691)),
        _row("dcn", "DCN", published=(0.9839, 0.1527, 418_591)),
        _row("dlrm", "DLRM (concatenated)", published=(0.9840, 0.1444, 417_891)),
        _row("wide_deep", "Wide&Deep", published=(0.9841, 0.1490, 423_280)),
        _row("deepfm", "DeepFM", peer=True, published=(0.9842, 0.1482, 423_280)),
        _row("dcnv2", "DCNv2", peer=True, published=(0.9845, 0.1491, 458_391)),
        _row("xdeepfm", "xDeepFM", published=(0.9845, 0.1466, 429_809)),
        _row("autoint_plus", "AutoInt+", peer=True, published=(0.9848, 0.1490, 622_180)),
        _row("finalnet_1b", "FinalNet-1B", published=(0.9852, 0.1366, 256_791)),
        _row("finalnet_2b", "FinalNet-2B", peer=True, published=(0.9857, 0.1311, 338_502)),
        _row("finalmlp", "FinalMLP", peer=True, published=(0.9861, 0.1484, 253_392)),
    ],
    notes=[
        "Published: the best single run of each model on BARS' leaderboard; in brackets the mean of its five seeds, "
        "where BARS has one.",
        "Protocol: d = 10, batches of 4,096, Adam at .001, whole tables regularised, learning rate × 0.1 after an "
        "epoch without a better validation AUC, stop after two in a row, best epoch kept; hyper-parameters as BARS "
        "logged them.",
        "Validation and test rows are the published ones. The training file was not to be had: its positives and the "
        "contexts of its negatives are exact, the items of its negatives are drawn anew, so published figures are no "
        "exact target. FuxiCTR read the very same rows.",
        "Matrix products of recsys are in bfloat16, save for LR, CrossNet, FM, FmFM and FwFM; FuxiCTR's in float32.",
        "BARS' parameter count of DNN holds a second MLP that takes no part.",
    ],
)

CRITEO = Table(
    dataset="criteo",
    title="Criteo sample",
    margin=0.0,
    seeds=[1, 2, 3],
    numeric=CRITEO_NUMERIC,
    categorical=CRITEO_CATEGORICAL,
    rows=[
        _row("lr", "LR"),
        _row("fm", "FM"),
        _row("fmfm", "FmFM"),
        _row("fwfm", "FwFM"),
        _row("dnn", "DNN"),
        _row("wide_deep", "Wide&Deep"),
        _row("deepfm", "DeepFM"),
        _row("xdeepfm", "xDeepFM"),
        _row("dcn", "DCN"),
        _row("dcnv2", "DCNv2", peer=True),
        _row("dcnv2_mixture", "DCNv2, mixture of low rank"),
        _row("dlrm", "DLRM"),
        _row("autoint", "AutoInt", peer=True),
        _row("autoint_plus", "AutoInt+"),
        _row("fibinet", "FiBiNET"),
        _row("masknet", "MaskNet"),
        _row("finalmlp", "FinalMLP", peer=True),
        _row("finalnet_1b", "FinalNet-1B"),
        _row("finalnet_2b", "FinalNet-2B"),
    ],
    notes=[
        "137,139 rows, 8:1:1; the same rows on both sides. No published figure exists on them.",
        "recsys trains each model by one of two protocols, whichever ended at the higher validation AUC with seed 1: "
        "fused row-wise Adagrad at .08 and at most three epochs, or that of FuxiCTR's side (`criteo_bars`); both in "
        "bfloat16.",
        "FuxiCTR has the same hyper-parameters of the model and its own protocol: Adam at .001 on whole tables, "
        "regulariser 1e-5, up to 100 epochs, learning rate × 0.1 after an epoch without a better validation AUC, stop "
        "after two in a row. Its numeric columns get sign(x) log(1 + |x|), standardised, as ours: its own "
        "standardisation alone ends lower. Each numeric column has an embedding there.",
    ],
)

PEER_REGULARIZER = 1e-5
"""FuxiCTR's, where our side trains tables without one: that of its protocol on Criteo."""


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """A model of FuxiCTR's zoo by what ours calls things."""

    name: str
    keys: Mapping[str, str]  # our key of `model` -> argument
    fixed: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)  # our value -> theirs, where they are named differently
    file: str = ""  # empty: `<name>/src/<name>.py`
    regularizer: str = "embedding_regularizer"


MLP = {"batch_norm": "batch_norm", "dropout": "net_dropout"}
ZOO = {
    "LRConfig": ZooModel(name="LR", keys={"embedding_dim": ""}, regularizer="regularizer"),
    "FMConfig": ZooModel(name="FM", keys={}, regularizer="regularizer"),
    "FmFMConfig": ZooModel(
        name="FmFM",
        keys={"interaction": "field_interaction_type"},
        words={"VECTOR": "vectorized", "MATRIX": "matrixed"},
        regularizer="regularizer",
    ),
    "DeepFMConfig": ZooModel(
        name="DeepFM", file="DeepFM/DeepFM_torch/src/DeepFM.py", keys={"hidden_units": "hidden_units", **MLP}
    ),
    "DCNv2Config": ZooModel(
        name="DCNv2",
        keys={
            "structure": "model_structure",
            "num_cross_layers": "num_cross_layers",
            "hidden_units": "parallel_dnn_hidden_units",
            **MLP,
        },
        words={"PARALLEL": "parallel"},
    ),
    "AutoIntConfig": ZooModel(
        name="AutoInt",
        keys={
            "num_attention_layers": "attention_layers",
            "attention_dim": "attention_dim",
            "num_heads": "num_heads",
            "residual": "use_residual",
            "layer_norm": "layer_norm",
            "scale": "use_scale",
            "wide": "use_wide",
            "hidden_units": "dnn_hidden_units",
            **MLP,
        },
    ),
    "FinalMLPConfig": ZooModel(
        name="FinalMLP",
        keys={
            "stream1_units": "mlp1_hidden_units",
            "stream1_dropout": "mlp1_dropout",
            "stream2_units": "mlp2_hidden_units",
            "stream2_dropout": "mlp2_dropout",
            "batch_norm": "mlp1_batch_norm mlp2_batch_norm",
            "num_heads": "num_heads",
            "gates": "use_fs",
            "gate_units": "fs_hidden_units",
            "gate1_context": "fs1_context",
            "gate2_context": "fs2_context",
        },
    ),
    "FinalNetConfig": ZooModel(
        name="FinalNet",
        keys={
            "blocks": "block_type",
            "field_gate": "use_feature_gating",
            "batch_norm": "batch_norm",
            "block1_units": "block1_hidden_units",
            "block1_dropout": "block1_dropout",
            "block2_units": "block2_hidden_units",
            "block2_dropout": "block2_dropout",
        },
        fixed={"block1_hidden_activations": "ReLU", "block2_hidden_activations": "ReLU"},
        words={"ONE": "1B", "TWO": "2B"},
    ),
}
"""Class of our configuration -> the same model in FuxiCTR's zoo."""


def peer_settings(values: Mapping[str, Any], *, numeric: Sequence[str], categorical: Sequence[str]) -> PeerSettings:
    """Return what the peer is to train for a composed configuration of ours: the same model with the same settings.

    Args:
        values: of the whole run, plain.
        numeric: columns that it reads.
        categorical: columns that it reads.
    Raises:
        ConfigError: the zoo is not known to have this model, or this form of it.
    """
    name = values["model"]["_target_"].rpartition(".")[2]
    if name not in ZOO:
        raise ConfigError(f"{name} has no counterpart in tools/reproduce_models.py. It knows {sorted(ZOO)}.")
    zoo, optimizer = ZOO[name], values["train"]["optimizer"]
    same_protocol = optimizer["table"] == "adam"  # BARS'; else the peer keeps to its own
    return PeerSettings(
        zoo_file=zoo.file or f"{zoo.name}/src/{zoo.name}.py",
        model=zoo.name,
        arguments={
            **_arguments(zoo, {key: value for key, value in values["model"].items() if key != "_target_"}),
            zoo.regularizer: optimizer["table_regularizer"] if same_protocol else PEER_REGULARIZER,
        },
        numeric=numeric,
        categorical=categorical,
        numeric_treatment="log",
        embedding_dim=values["model"]["embedding_dim"],
        batch_size=values["train"]["batch_size"],
        learning_rate=optimizer["dense_learning_rate"] if same_protocol else 1e-3,
        max_epochs=values["train"]["epochs"] if same_protocol else 100,
    )


def _arguments(zoo: ZooModel, model: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the class; a key that it does not know is refused rather than left out."""
    keys = {"embedding_dim": "embedding_dim", **zoo.keys}
    found = dict(zoo.fixed)
    for key, value in model.items():
        if key not in keys or (isinstance(value, str) and value not in zoo.words):
            raise ConfigError(f"model.{key}={value!r}: FuxiCTR's {zoo.name} has nothing like it. Leave --peer out.")
        found |= {argument: zoo.words[value] if isinstance(value, str) else value for argument in keys[key].split()}
    return found
