"""Every yaml of conf/retrieval states every field of its class, and goes with every experiment on graphs."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from pipelines.config import load
from recsys.retrieval.config import RetrievalConfig
from recsys.retrieval.encoder import EncoderConfig, FittedConfig
from tests.pipelines.world import composed
from tests.retrieval.world import interactions

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment" / "graph").glob("*.yaml"))
OPTIONS = sorted((path.parent.name, path.stem) for path in (CONF / "retrieval").glob("*/*.yaml"))
OTHER_DEFAULTS = {
    ("model", "mf"): {"num_layers"},
    ("model", "lightgcn_softmax"): {"storage"},
    ("model", "lightgcn_softmax_ml_1m"): {"storage"},
    ("model", "bspm_ml_1m"): {"num_vectors", "sharpen_time", "seed"},
    ("model", "simplex_ml_1m"): {"embedding_dim"},
    ("model", "ultra_gcn_ml_1m"): {"embedding_dim", "neighbor_weight"},
    ("loss", "in_batch_softmax"): {"temperature", "correct"},
    ("loss", "in_batch_softmax_ml_1m"): {"temperature", "correct"},
    ("loss", "ccl_ml_1m"): {"negative_weight"},
    ("loss", "degree_weighted_ml_1m"): {"positive_floor", "negative_floor", "negative_weight"},
    ("start", "fast_rp"): {"embedding_dim"},
}
"""Options that are another use of a class, by what they set."""


@pytest.mark.parametrize(("part", "name"), OPTIONS)
def test_option_composes_and_holds_the_defaults_of_its_class(part: str, name: str) -> None:
    # A loss sets numbers of the sampler; bpr leaves them as they are.
    loss = ("retrieval/loss=bpr",) if part == "sampler" else ()
    config = composed("retrieval=default", f"retrieval/{part}={name}", *loss, "dataset=gowalla", "name=x")
    built = getattr(load(config).config.retrieval, part)
    assert set(config.retrieval[part]) - {"_target_"} == {field.name for field in fields(built)}
    default = type(built)()
    differing = {field.name for field in fields(built) if getattr(built, field.name) != getattr(default, field.name)}
    assert differing == OTHER_DEFAULTS.get((part, name), set())


def test_the_default_lists_every_key() -> None:
    run = load(composed("retrieval=default", "dataset=gowalla", "name=x"))
    assert run.config.retrieval is not None
    assert set(run.values["retrieval"]) - {"_target_"} | {"start"} == set(
        type(run.config.retrieval).__dataclass_fields__
    )
    assert run.config.retrieval == type(run.config.retrieval)()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize(("part", "name"), [option for option in OPTIONS if option[0] != "start"])
def test_every_model_loss_and_sampler_goes_with_every_experiment(part: str, name: str, experiment: str) -> None:
    """One override, nothing to delete by hand, and nothing that the model or loss is warned of."""
    if part == "loss" and isinstance(retrieval_of(experiment).model, FittedConfig):
        pytest.skip("what nothing trains has no loss")
    config = retrieval_of(experiment, f"retrieval/{part}={name}")
    # The softmax over a batch draws no negatives, whichever the sampler.
    assert part == "sampler" or not config.without_effect
    if isinstance(config.model, EncoderConfig):
        config.model.build(interactions(), torch.device("cpu"))
    else:
        assert isinstance(config.model, FittedConfig)


def retrieval_of(experiment: str, *overrides: str) -> RetrievalConfig:
    found = load(composed(f"experiment=graph/{experiment}", *overrides)).config.retrieval
    assert found is not None
    return found
