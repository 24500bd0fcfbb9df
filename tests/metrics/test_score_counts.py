"""Metrics of `ScoreCounts` against scikit-learn, scipy and slow definitions; merging; weights."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from recsys.core.errors import ConfigError, DataError
from recsys.metrics import (
    MetricValue,
    ScoreCounts,
    auc,
    auc_of,
    average_precision_of,
    gain_curve_of,
    gain_of,
    kolmogorov_smirnov_of,
    lift_of,
    roc_curve_of,
)
from recsys.metrics.ranking import evenly_spaced

INF = math.inf
Rows = tuple[list[int], list[float], list[float]]  # labels, scores, weights

ADVERSARIAL: dict[str, Rows] = {
    "ties": ([0, 1, 0, 1, 1, 0], [0.5, 0.5, 0.5, 0.7, 0.2, 0.2], [1.0, 2.0, 0.5, 1.0, 3.0, 1.0]),
    "constant": ([0, 1, 0, 1], [0.5] * 4, [1.0, 2.0, 3.0, 4.0]),
    "signed zeros": ([0, 1, 0, 1], [0.0, -0.0, 0.0, 1.0], [1.0, 1.0, 2.0, 1.0]),
    "infinities": ([0, 1, 1, 0, 1], [-INF, INF, 0.0, INF, -INF], [1.0, 1.0, 1.0, 5.0, 0.25]),
    "weights 0": ([0, 1, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 0.0, 2.0, 0.0, 1.0]),
    "denormals": ([0, 1, 0, 1], [1e-45, 3e-45, 0.0, -1e-45], [1.0, 2.0, 3.0, 4.0]),
    "light and heavy": ([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], [1e-9, 1e9, 1e9, 1e-9]),
}


def rows_above(scores: list[float], threshold: float) -> list[int]:
    return [row for row, score in enumerate(scores) if score >= threshold]


def slow_auc(labels: list[int], scores: list[float], weights: list[float]) -> float:
    pairs = [
        (weights[p] * weights[n], (scores[p] > scores[n]) + 0.5 * (scores[p] == scores[n]))
        for p, n in itertools.product(range(len(labels)), repeat=2)
        if labels[p] and not labels[n]
    ]
    return math.fsum(mass * won for mass, won in pairs) / math.fsum(mass for mass, _ in pairs)


def slow_average_precision(labels: list[int], scores: list[float], weights: list[float]) -> float:
    total, area = math.fsum(w for w, y in zip(weights, labels, strict=True) if y), 0.0
    for row, (label, weight) in enumerate(zip(labels, weights, strict=True)):
        if label and weight:
            above = rows_above(scores, scores[row])
            precision = math.fsum(weights[r] * labels[r] for r in above) / math.fsum(weights[r] for r in above)
            area += weight / total * precision
    return area


def slow_ks(labels: list[int], scores: list[float], weights: list[float]) -> float:
    totals = [math.fsum(w for w, y in zip(weights, labels, strict=True) if y == c) for c in (0, 1)]
    gaps = []
    for threshold in scores:
        rates = [
            math.fsum(weights[r] for r in rows_above(scores, threshold) if labels[r] == c) / totals[c] for c in (0, 1)
        ]
        gaps.append(abs(rates[1] - rates[0]))
    return max(gaps)


REFERENCES: list[tuple[Callable[[ScoreCounts], MetricValue], Callable[..., float]]] = [
    (auc_of, slow_auc),
    (average_precision_of, slow_average_precision),
    (kolmogorov_smirnov_of, slow_ks),
]


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adversarial_rows_equal_the_definitions(name: str, dtype: torch.dtype) -> None:
    labels, scores, weights = ADVERSARIAL[name]
    rounded = torch.tensor(scores, dtype=dtype)
    for mass in (weights, [1.0] * len(labels), None):
        counts = ScoreCounts.from_rows(torch.tensor(labels), rounded, None if mass is None else torch.tensor(mass))
        for metric, reference in REFERENCES:
            exact = [1.0] * len(labels) if mass is None else torch.tensor(mass).double().tolist()
            expected = reference(labels, rounded.tolist(), exact)
            assert metric(counts).value == pytest.approx(expected, rel=1e-14, abs=1e-15), metric


def drawn(num_levels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_levels)
    labels = torch.rand(5000, generator=generator) < 0.1
    scores = (torch.randn(5000, generator=generator, dtype=dtype) * num_levels).round() + labels * 0.5 * num_levels
    weights = torch.rand(5000, generator=generator, dtype=torch.float64) * 3
    return labels, scores, torch.where(weights < 0.5, 0.0, weights)


@pytest.mark.parametrize("num_levels", [1, 9, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_rows_equal_scikit_learn_scipy_and_torchmetrics(num_levels: int, dtype: torch.dtype) -> None:
    labels, scores, weights = drawn(num_levels, dtype)
    plain, weighted = ScoreCounts.from_rows(labels, scores), ScoreCounts.from_rows(labels, scores, weights)
    y, x, w = labels.numpy(), scores.numpy(), weights.numpy()
    assert auc_of(weighted).value == pytest.approx(roc_auc_score(y, x, sample_weight=w), abs=1e-12)
    assert average_precision_of(plain).value == pytest.approx(average_precision_score(y, x), abs=1e-12)
    expected = average_precision_score(y, x, sample_weight=w)
    assert average_precision_of(weighted).value == pytest.approx(expected, abs=1e-12)
    spread = torch.sigmoid(scores.double() / num_levels)
    assert average_precision_of(plain).value == pytest.approx(
        binary_average_precision(spread, labels.int()).item(), abs=1e-5
    )
    assert kolmogorov_smirnov_of(plain).value == pytest.approx(ks_2samp(x[y], x[~y]).statistic, abs=1e-14)


@pytest.mark.parametrize("weighted", [False, True])
def test_merging_files_in_any_order_gives_the_counts_of_all_rows(weighted: bool) -> None:
    labels, scores, _ = drawn(30, torch.float32)
    weights = torch.randint(0, 4, labels.shape, generator=torch.Generator().manual_seed(1)) if weighted else None
    whole = ScoreCounts.from_rows(labels, scores, weights)
    files = [
        ScoreCounts.from_rows(labels[rows], scores[rows], None if weights is None else weights[rows])
        for rows in (slice(0, 1), slice(1, 1), slice(1, 4000), slice(4000, 5000))
    ]
    for order in itertools.permutations(files):
        for merged in (order[0].merged(*order[1:]), order[0].merged(order[1]).merged(order[2].merged(order[3]))):
            assert torch.equal(merged.scores, whole.scores) and merged.scores.dtype == torch.float32
            assert torch.equal(merged.positives, whole.positives) and torch.equal(merged.negatives, whole.negatives)
    assert whole.scores.diff().min() > 0 and bool((whole.positives + whole.negatives > 0).all())


def test_what_comes_first_of_signed_zeros_does_not_show() -> None:
    for scores in itertools.permutations([0.0, -0.0, -0.0]):
        counts = ScoreCounts.from_rows(torch.tensor([1, 0, 1]), torch.tensor(scores))
        assert str(counts.merged(counts).scores.tolist()) == str(counts.scores.tolist()) == "[0.0]"


def test_a_row_of_integer_weight_is_that_many_rows() -> None:
    labels, scores, _ = drawn(9, torch.float32)
    times = torch.randint(0, 4, labels.shape, generator=torch.Generator().manual_seed(0))
    repeated = ScoreCounts.from_rows(labels.repeat_interleave(times), scores.repeat_interleave(times))
    weighted = ScoreCounts.from_rows(labels, scores, times)
    for metric, _ in REFERENCES:
        assert metric(weighted).value == pytest.approx(metric(repeated).value, abs=1e-14)
    assert gain_of(weighted, share=0.1).value == gain_of(repeated, share=0.1).value


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e9, 1e300])
def test_the_unit_of_weights_does_not_matter(scale: float) -> None:
    labels, scores, weights = drawn(9, torch.float32)
    got = ScoreCounts.from_rows(labels, scores, weights * scale)
    for metric, _ in REFERENCES:
        assert metric(got).value == pytest.approx(metric(ScoreCounts.from_rows(labels, scores, weights)).value)


def test_pairs_beyond_float64_are_counted_exactly() -> None:
    """3e9 rows, as counts: one pair more or less shows in the numerator, which float64 could not hold."""
    half = 1_500_000_000
    counts = ScoreCounts(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1, half - 2, 1]), torch.tensor([half - 1, 0, 1]))
    doubled = (half - 1) + (half - 2) * 2 * (half - 1) + (2 * (half - 1) + 1)
    assert auc_of(counts).value == doubled / (2 * half * half)
    merged = counts.merged(*[ScoreCounts.from_rows(torch.tensor([1]), torch.tensor([9.0]))] * 3)
    assert (merged.num_positives, merged.num_negatives) == (half + 3, half)


@pytest.mark.parametrize(
    ("scores", "dtype"),
    [
        ([2**53, 2**53 + 1], torch.int64),
        ([1.0, 1.0 + 2**-52], torch.float64),
        ([False, True], torch.bool),
        ([1.0, 1.0078125], torch.bfloat16),
        ([1.0, 1.0009765625], torch.float16),
    ],
)
def test_no_dtype_loses_a_difference(scores: list[float], dtype: torch.dtype) -> None:
    counts = ScoreCounts.from_rows(torch.tensor([0, 1]), torch.tensor(scores, dtype=dtype))
    assert counts.scores.numel() == 2 and auc_of(counts.merged(counts)).value == 1.0


@pytest.mark.parametrize(
    ("labels", "weights", "of_two_classes", "of_positives"),
    [
        ([], None, "there are no rows", "there are no rows"),
        ([0, 0], None, "all 2 labels are 0", "all 2 labels are 0"),
        ([0, 1], [0.0, 0.0], "no row has a weight above 0", "no row has a weight above 0"),
        ([0, 1], [1.0, 0.0], "all labels of weight above 0 are 0", "all labels of weight above 0 are 0"),
        ([1], None, "all 1 labels are 1", ""),
        ([1, 0], [0.5, 0.0], "all labels of weight above 0 are 1", ""),
    ],
)
def test_without_a_value_there_is_a_reason(
    labels: list[int], weights: list[float] | None, of_two_classes: str, of_positives: str
) -> None:
    mass = None if weights is None else torch.tensor(weights)
    counts = ScoreCounts.from_rows(torch.tensor(labels), torch.zeros(len(labels)), mass)
    assert auc_of(counts).undefined_reason == kolmogorov_smirnov_of(counts).undefined_reason == of_two_classes
    assert roc_curve_of(counts, num_points=5)[0].numel() == 0
    assert average_precision_of(counts).undefined_reason == gain_of(counts, share=0.5).undefined_reason == of_positives
    assert lift_of(counts, share=0.5).undefined_reason == of_positives
    assert gain_curve_of(counts, num_points=5)[0].numel() == (0 if of_positives else 2)
    assert average_precision_of(counts).value == (None if of_positives else 1.0)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, -1.0, 1.0], ["weights", "1 of 3", "negative", "row 1"]),
        ([1.0, 1.0, math.nan], ["weights", "row 2"]),
        ([INF, INF, 1.0], ["weights", "2 of 3", "row 0"]),
        ([1.0, 1.0], ["(2,)", "(3,)", "one weight per row"]),
    ],
)
def test_impossible_weights_are_refused(weights: list[float], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        auc(torch.tensor([0, 1, 1]), torch.zeros(3), torch.tensor(weights))
    assert all(word in str(caught.value) for word in words), caught.value


def test_counts_of_two_kinds_are_not_merged() -> None:
    labels, scores = torch.tensor([0, 1]), torch.tensor([0.1, 0.2])
    counts = ScoreCounts.from_rows(labels, scores)
    for other in (ScoreCounts.from_rows(labels, scores.double()), ScoreCounts.from_rows(labels, scores, scores)):
        with pytest.raises(DataError, match="cannot be merged"):
            counts.merged(other)


def slow_gain(labels: list[int], scores: list[float], weights: list[float], share: float) -> float:
    """Walk down the scores; of the run at the cut, take the part that fits."""
    left, found = share * math.fsum(weights), 0.0
    for score in sorted(set(scores), reverse=True):
        run = [row for row, other in enumerate(scores) if other == score]
        rows = math.fsum(weights[r] for r in run)
        part = min(1.0, left / rows) if rows else 0.0
        found += part * math.fsum(weights[r] * labels[r] for r in run)
        left -= part * rows
    return found / math.fsum(w * y for w, y in zip(weights, labels, strict=True))


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("share", [1e-12, 0.1, 1 / 3, 0.5, 0.99, 1.0])
def test_gain_and_lift_equal_a_walk_down_the_scores(name: str, share: float) -> None:
    labels, scores, weights = ADVERSARIAL[name]
    for mass in (weights, [1.0] * len(labels)):
        tensors = torch.tensor(labels), torch.tensor(scores).float(), torch.tensor(mass, dtype=torch.float64)
        counts = ScoreCounts.from_rows(*tensors)
        expected = slow_gain(labels, tensors[1].tolist(), mass, share)
        assert gain_of(counts, share=share).value == pytest.approx(expected, rel=1e-6, abs=1e-15)
        assert lift_of(counts, share=share).value == pytest.approx(expected / share, rel=1e-6, abs=1e-15)


def test_gain_of_a_tie_is_the_mean_over_its_orders() -> None:
    labels = [1, 0, 0, 1, 0]
    taken = [sum(labels[row] for row in order[:2]) / 2 for order in itertools.permutations(range(5))]
    counts = ScoreCounts.from_rows(torch.tensor(labels), torch.zeros(5))
    assert gain_of(counts, share=0.4).value == pytest.approx(sum(taken) / len(taken))
    for share in (0.0, -0.5, 1.5, math.nan):
        with pytest.raises(ConfigError, match="share="):
            gain_of(counts, share=share)


def test_gain_curve_passes_through_every_gain_and_encloses_the_auc() -> None:
    labels, scores, weights = drawn(9, torch.float32)
    for counts in (ScoreCounts.from_rows(labels, scores), ScoreCounts.from_rows(labels, scores, weights)):
        rows, found = gain_curve_of(counts, num_points=10**6)
        assert (rows[[0, -1]].tolist(), found[[0, -1]].tolist()) == ([0, 1], [0, 1])
        for share, gain in zip(rows[1:].tolist(), found[1:].tolist(), strict=True):
            assert gain_of(counts, share=share).value == pytest.approx(gain, abs=1e-9)
        rate = counts.num_positives / counts.num_rows
        area = (torch.trapezoid(found, rows).item() - rate / 2) / (1 - rate)
        assert area == pytest.approx(auc_of(counts).value, abs=1e-12)
        assert gain_curve_of(counts, num_points=4)[0].numel() == 4


@pytest.mark.parametrize("num_present", [1, 2, 7, 2**24 + 2, 10**8])
def test_thinning_keeps_both_ends_of_any_number(num_present: int) -> None:
    keep = evenly_spaced(num_present, 7)
    assert (int(keep[0]), int(keep[-1])) == (0, num_present - 1)
    assert keep.numel() == min(num_present, 7) == torch.unique(keep).numel()


def test_logits_that_share_a_probability_are_put_together() -> None:
    labels, logits = torch.tensor([0, 1, 1, 0]), torch.tensor([40.0, 50.0, 60.0, -800.0])
    counts = ScoreCounts.from_rows(labels, logits).probabilities()
    assert (counts.scores.tolist(), counts.positives.tolist(), counts.negatives.tolist()) == (
        [0.0, 1.0],
        [0, 2],
        [1, 1],
    )
