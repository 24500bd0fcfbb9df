"""The settings of the reproduction tables: the published ones, the same on both sides."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Run
from pipelines.entry import CONFIG_FOLDER
from pipelines.pareto_cells import compose_run
from recsys.core.errors import ConfigError
from tools.fuxictr_setup import PeerSettings
from tools.reproduce_models import CRITEO, FRAPPE, Table, peer_settings

ROWS = [(table, row.name) for table in (FRAPPE, CRITEO) for row in table.rows]
IDS = [f"{table.dataset}-{name}" for table, name in ROWS]


def composed(table: Table, name: str) -> Run:
    return compose_run([f"experiment=reproduce/{table.dataset}/{name}"])


def settings_of(run: Run, table: Table) -> PeerSettings:
    return peer_settings(run.values, numeric=table.numeric, categorical=table.categorical)


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, str], Run]:
    return {(table.dataset, name): composed(table, name) for table, name in ROWS}


@pytest.mark.parametrize("table", [FRAPPE, CRITEO], ids=["frappe", "criteo"])
def test_every_file_has_a_row_and_every_row_a_file(table: Table) -> None:
    files = (Path(CONFIG_FOLDER) / "experiment" / "reproduce" / table.dataset).glob("*.yaml")
    assert sorted(path.stem for path in files) == sorted(row.name for row in table.rows)


@pytest.mark.parametrize(("table", "name"), ROWS, ids=IDS)
def test_every_row_composes_by_its_protocol(table: Table, name: str, runs: dict[tuple[str, str], Run]) -> None:
    run = runs[table.dataset, name]
    train, optimizer = run.config.train, run.values["train"]["optimizer"]
    assert run.config.name.startswith(f"reproduce/{table.dataset}/{name}_seed")
    assert run.config.evaluate.num_replicates == 0
    assert not run.config.evaluate.data_checks
    assert train.batch_size == 4096
    if table is FRAPPE:
        assert run.values["model"]["embedding_dim"] == (1 if name == "lr" else 10)
        assert (optimizer["table"], optimizer["table_learning_rate"], optimizer["clip_norm"]) == ("adam", 0.001, 10.0)
        assert run.values["train"]["plateau"] == {"factor": 0.1, "min_learning_rate": 1e-6, "stop_after": 2}


# Of BARS' logs on frappe_x1: the regulariser of tables, and some of the rest.
PUBLISHED: dict[str, tuple[float, dict[str, Any]]] = {
    "lr": (1e-5, {}),
    "fm": (5e-6, {}),
    "deepfm": (0.05, {"hidden_units": [400, 400, 400], "batch_norm": True, "dropout": 0.2}),
    "wide_deep": (0.1, {"dropout": 0.6}),
    "dcnv2": (0.05, {"num_cross_layers": 4, "dropout": 0.4, "batch_norm": True, "structure": "PARALLEL"}),
    "xdeepfm": (0.1, {"cin_units": [64], "dropout": 0.2}),
    "dlrm": (0.1, {"interaction": "CAT", "dropout": 0.4}),
    "autoint": (0.05, {"num_attention_layers": 6, "layer_norm": False, "scale": False, "hidden_units": []}),
    "autoint_plus": (0.1, {"num_attention_layers": 5, "layer_norm": True, "scale": True, "dropout": 0.1}),
    "finalmlp": (
        0.05,
        {"stream1_units": [400], "stream2_units": [100], "num_heads": 5, "gate1_context": ["user"]},
    ),
    "finalnet_2b": (0.1, {"block1_units": [400, 400], "block2_units": [400], "field_gate": True, "blocks": "TWO"}),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_settings_are_those_that_bars_logged(name: str, runs: dict[tuple[str, str], Run]) -> None:
    regularizer, wanted = PUBLISHED[name]
    values = runs["frappe", name].values
    assert values["train"]["optimizer"]["table_regularizer"] == regularizer
    assert {key: values["model"][key] for key in wanted} == wanted


def test_the_peer_gets_the_same_model(runs: dict[tuple[str, str], Run]) -> None:
    settings = settings_of(runs["frappe", "dcnv2"], FRAPPE)
    assert (settings.zoo_file, settings.model) == ("DCNv2/src/DCNv2.py", "DCNv2")
    assert settings.arguments == {
        "embedding_dim": 10,
        "model_structure": "parallel",
        "num_cross_layers": 4,
        "parallel_dnn_hidden_units": [400, 400, 400],
        "batch_norm": True,
        "net_dropout": 0.4,
        "embedding_regularizer": 0.05,
    }
    assert (settings.batch_size, settings.learning_rate, settings.max_epochs) == (4096, 0.001, 100)
    assert settings_of(runs["frappe", "lr"], FRAPPE).arguments == {"regularizer": 1e-5}
    both = settings_of(runs["frappe", "finalmlp"], FRAPPE).arguments
    assert both["mlp1_batch_norm"] is both["mlp2_batch_norm"] is True
    assert both["fs1_context"] == ["user"]


def test_the_peer_keeps_its_own_protocol_where_ours_is_another(runs: dict[tuple[str, str], Run]) -> None:
    settings = settings_of(runs["criteo", "dcnv2"], CRITEO)
    assert settings.arguments["embedding_regularizer"] == 1e-5
    assert (settings.max_epochs, settings.learning_rate, settings.embedding_dim) == (100, 0.001, 16)
    assert (len(settings.numeric), len(settings.categorical)) == (13, 26)


def test_every_row_that_asks_for_a_peer_has_one(runs: dict[tuple[str, str], Run]) -> None:
    for table in (FRAPPE, CRITEO):
        for row in table.rows:
            if row.peer:
                settings_of(runs[table.dataset, row.name], table)


def test_what_the_zoo_lacks_is_refused() -> None:
    stacked = compose_run(["experiment=reproduce/frappe/dcnv2", "model.structure=STACKED"])
    with pytest.raises(ConfigError, match=r"model\.structure='STACKED'"):
        settings_of(stacked, FRAPPE)
    with pytest.raises(ConfigError, match="FwFMConfig has no counterpart"):
        settings_of(composed(FRAPPE, "fwfm"), FRAPPE)
