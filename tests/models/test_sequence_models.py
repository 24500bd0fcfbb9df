"""`din`, `dare`, `twin`: counts, padding that changes nothing, batches without any history, how they are related."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.models.activations import Dice
from recsys.models.ctr import ModelConfig
from recsys.models.dare import DAREConfig
from recsys.models.din import DINConfig
from recsys.models.twin import TWINConfig
from tests.models.world import FORMS, SEQUENTIAL, build, columns_for, inputs, num_parameters, outputs_of

SEQUENCE_FORMS = pytest.mark.parametrize("name", [name for name, form in FORMS.items() if type(form) in SEQUENTIAL])


def given(config: ModelConfig) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    arguments = inputs(config, 2, num_rows=16)
    assert len(arguments) == 4
    return arguments


@SEQUENCE_FORMS
def test_more_padding_changes_nothing_in_training_either(name: str) -> None:
    dense, embeddings, sequences, lengths = given(FORMS[name])
    wider = [nn.functional.pad(sequence, (0, 0, 0, 3)) for sequence in sequences]
    heads = [build(FORMS[name], 2), build(FORMS[name], 2)]
    torch.testing.assert_close(
        heads[0](dense, embeddings, sequences, lengths), heads[1](dense, embeddings, wider, lengths)
    )
    torch.testing.assert_close(dict(heads[0].named_buffers()), dict(heads[1].named_buffers()))  # of events alone


@SEQUENCE_FORMS
@pytest.mark.parametrize("autocast", [False, True])
def test_a_batch_without_any_history_trains(name: str, autocast: bool) -> None:
    head = build(FORMS[name], 2)
    dense, embeddings, sequences, lengths = given(FORMS[name])
    nothing = [torch.zeros_like(sequence[:, :1]) for sequence in sequences]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = head(dense, embeddings, nothing, [torch.zeros_like(length) for length in lengths])
    logits.square().sum().backward()
    assert torch.isfinite(logits).all()
    for parameter in head.parameters():  # a rank that gave no gradient would leave the others waiting
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    assert all(torch.isfinite(buffer).all() for buffer in head.buffers())


@SEQUENCE_FORMS
def test_the_order_of_events_says_nothing(name: str) -> None:
    head = build(FORMS[name], 2).eval()
    dense, embeddings, sequences, lengths = given(FORMS[name])
    turned = [sequence.clone() for sequence in sequences]
    for sequence, length in zip(turned, lengths, strict=True):
        for row, events in enumerate(length.tolist()):
            sequence[row, :events] = sequence[row, :events].flip(0)
    expected = head(dense, embeddings, sequences, lengths)
    torch.testing.assert_close(head(dense, embeddings, turned, lengths), expected)


@pytest.mark.parametrize("time_gaps", ["", "hist_gap"])
def test_dare_with_equal_tables_is_twin(time_gaps: str) -> None:
    dare = DAREConfig(embedding_dim=4, attention_dim=4, time_gaps=time_gaps, top_k=3)
    twin = TWINConfig(embedding_dim=4, time_gaps=time_gaps, top_k=3)
    dense, embeddings, sequences, lengths = given(twin)
    heads = [build(twin, 2).eval(), build(dare, 2).eval()]
    heads[1].load_state_dict(heads[0].state_dict())
    twice = torch.cat([embeddings[:, :8], embeddings], 1)  # of two targets
    torch.testing.assert_close(
        heads[1](dense, twice, sequences + sequences, lengths + lengths),
        heads[0](dense, embeddings, sequences, lengths),
        rtol=0,
        atol=0,
    )


def widths_of(head: nn.Module) -> Iterator[tuple[int, int]]:
    return ((layer.in_features, layer.out_features) for layer in head.modules() if isinstance(layer, nn.Linear))


def test_parameter_counts() -> None:
    # A target, its history, gaps, five more columns: 7 + 1 embeddings of 16 that are pooled, but for the gaps.
    def columns(config: DINConfig | DAREConfig | TWINConfig) -> int:
        return len(outputs_of(config.features(columns_for(config, (5, 7, 11, 3)))))

    din = DINConfig()
    assert columns(din) == 7  # f0, hist_f0, f1, hist_f1, hist_gap, f2, f3; without time, gaps are pooled
    head = build(din, 3, columns_for(din, (5, 7, 11, 3)))
    unit = [(4 * 32, 512), (512, 256), (256, 1)]
    mlp = [(5 * 16 + 32 + 3, 1024), (1024, 512), (512, 256), (256, 1)]
    assert list(widths_of(head)) == unit + mlp
    of_layers = sum((inputs + 1) * outputs for inputs, outputs in unit + mlp)
    normalised = 2 * (1024 + 512 + 256)
    alphas = 512 + 256 + 1024 + 512 + 256
    assert num_parameters(head) == of_layers + normalised + alphas
    assert sum(isinstance(module, Dice) for module in head.modules()) == 5

    dare = DAREConfig(attention_dim=8)
    assert columns(dare) == 12  # five each for attention and representation, f2, f3
    head = build(dare, 3, columns_for(dare, (5, 7, 11, 3)))
    width = 4 * 16 + 2 * 32 + 16 + 3  # pooled, u and q * u, the gaps' part of u, numeric
    mlp = [(width, 200), (200, 80), (80, 1)]
    assert list(widths_of(head)) == [(8, 1), *mlp]
    assert num_parameters(head) == 8 + 2 * width + sum((inputs + 1) * outputs for inputs, outputs in mlp) + 200 + 80


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DINConfig(attention_units=[]), r"model\.attention_units=\[\]"),
        (lambda: DINConfig(attention_dropout=1.0), r"model\.attention_dropout=1\.0"),
        (lambda: DAREConfig(attention_dim=0), r"model\.attention_dim=0"),
        (lambda: DAREConfig(top_k=0), r"model\.top_k=0"),
        (lambda: TWINConfig(embedding_dim=0), r"model\.embedding_dim=0"),
    ],
)
def test_impossible_values(make: type[DINConfig], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
