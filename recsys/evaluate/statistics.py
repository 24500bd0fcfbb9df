"""What of scored rows adds up over parts of them, and every metric that follows from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.scored import Scored
from recsys.metrics import (
    Binning,
    MetricValue,
    ScoreCounts,
    auc_of,
    auc_standard_error_of,
    average_precision_of,
    brier_score_of,
    calibration_error_of,
    gain_of,
    kolmogorov_smirnov_of,
    lift_of,
    log_loss_of,
    normalized_entropy_of,
    relative_information_gain_of,
)
from recsys.metrics.checks import one_class_reason

WEIGHTED = "rows are weighted, and its error needs to know how many rows were seen"


@dataclass(frozen=True, eq=False)
class Statistics:
    """The sufficient statistic of scored rows: what every metric needs of them, whatever parts they came in."""

    counts: ScoreCounts
    """By logit."""
    bayes: ScoreCounts | None
    """By true log-odds, of generated data."""
    probability_sum: float
    """Of the column of probabilities, each times its row's weight."""
    num_rows: int
    num_positives: int
    """Rows with label 1, whatever they weigh."""

    @classmethod
    def of(cls, scored: Scored) -> "Statistics":
        """The statistic of these rows.

        Raises:
            DataError: a label is neither 0 nor 1, or a logit is NaN.
        """
        labels, weights = scored.labels, scored.weights
        bayes = None if scored.bayes_logits is None else ScoreCounts.from_rows(labels, scored.bayes_logits, weights)
        counts = ScoreCounts.from_rows(labels, scored.logits, weights)
        predicted = scored.probabilities.double() if weights is None else scored.probabilities.double() * weights
        return cls(counts, bayes, float(predicted.sum()), labels.numel(), int((labels != 0).sum()))

    @classmethod
    def merged(cls, parts: Iterable["Statistics"]) -> "Statistics":
        """The statistic of all rows of these together; one or more, which are let go of as soon as they are counted."""
        waiting: list[Statistics] = []
        for part in parts:
            part.join(waiting)
        return waiting[0]._joined(*waiting[1:]) if len(waiting) > 1 else waiting[0]

    def join(self, waiting: list["Statistics"]) -> None:
        """Append to parts that wait to be merged, and merge the last ones where that pays.

        A small part waits until it is half as large as the one before: entries are sorted a few times, not once a part.
        """
        waiting.append(self)
        while len(waiting) > 1 and waiting[-1].num_entries * 2 >= waiting[-2].num_entries:
            waiting[-2:] = [waiting[-2]._joined(waiting[-1])]

    def _joined(self, *others: "Statistics") -> "Statistics":
        more = [other.bayes for other in others if other.bayes is not None]
        return Statistics(
            self.counts.merged(*(other.counts for other in others)),
            None if self.bayes is None else self.bayes.merged(*more),
            self.probability_sum + sum(other.probability_sum for other in others),
            self.num_rows + sum(other.num_rows for other in others),
            self.num_positives + sum(other.num_positives for other in others),
        )

    @property
    def num_entries(self) -> int:
        """Distinct logits."""
        return self.counts.scores.numel()

    @property
    def weight(self) -> float | None:
        """Sum of the weights of rows; None where all count alike."""
        return self.counts.num_rows if self.counts.weighted else None


def merged_counts(parts: Iterable[Sequence[ScoreCounts]]) -> list[ScoreCounts]:
    """Of each label the counts of all rows of one part or more, merged as by `Statistics.merged`, in one pass."""
    waiting: list[list[Statistics]] = []
    for part in parts:
        waiting = waiting or [[] for _ in part]
        for counts, own in zip(part, waiting, strict=True):
            Statistics(counts, None, 0.0, 0, 0).join(own)
    return [Statistics.merged(own).counts for own in waiting]


def core_metrics(statistics: Statistics, config: EvaluateConfig) -> dict[str, MetricValue]:
    """Ranking, likelihood and calibration of these rows; with true probabilities, also the share of the possible.

    By weight where rows have weights. `auc_standard_error` takes rows as independent. Keys with `_at_` end in a share
    of rows, as `gain_at_0.1`.
    """
    counts = statistics.counts
    metrics = {
        "auc": auc_of(counts),
        "auc_standard_error": MetricValue.undefined(WEIGHTED) if counts.weighted else auc_standard_error_of(counts),
        "pr_auc": average_precision_of(counts),
        "kolmogorov_smirnov": kolmogorov_smirnov_of(counts),
    }
    for share in config.gain_shares:
        metrics[f"gain_at_{share:g}"] = gain_of(counts, share=share)
        metrics[f"lift_at_{share:g}"] = lift_of(counts, share=share)
    metrics |= likelihood_metrics(counts, num_bins=config.num_bins)
    metrics |= _rates(statistics)
    if statistics.bayes is not None:
        metrics |= _bayes_metrics(statistics.bayes, metrics)
    return metrics


def likelihood_metrics(counts: ScoreCounts, *, num_bins: int) -> dict[str, MetricValue]:
    """How good the probabilities of these logits are, but for their mean."""
    error = calibration_error_of(counts.probabilities(), num_bins=num_bins, binning=Binning.EQUAL_MASS)
    return {
        "log_loss": log_loss_of(counts),
        "normalized_entropy": normalized_entropy_of(counts),
        "relative_information_gain": relative_information_gain_of(counts),
        "brier_score": brier_score_of(counts),
        "calibration_error": error.error,
    }


def _rates(statistics: Statistics) -> dict[str, MetricValue]:
    num_rows, num_positives = statistics.counts.num_rows, statistics.counts.num_positives
    ratio = MetricValue.undefined(one_class_reason(num_positives, num_rows) or "no label is 1")
    if num_positives:
        ratio = MetricValue.of(statistics.probability_sum / num_positives)
    if num_rows == 0:
        nothing = MetricValue.undefined(one_class_reason(0, num_rows))
        return {"calibration_ratio": ratio, "positive_rate": nothing, "mean_probability": nothing}
    return {
        "calibration_ratio": ratio,
        "positive_rate": MetricValue.of(num_positives / num_rows),
        "mean_probability": MetricValue.of(statistics.probability_sum / num_rows),
    }


def _bayes_metrics(bayes: ScoreCounts, metrics: dict[str, MetricValue]) -> dict[str, MetricValue]:
    best_auc, best_loss = auc_of(bayes), log_loss_of(bayes)
    share = best_auc if not best_auc.defined else metrics["auc"]
    if metrics["auc"].value is not None and best_auc.value is not None:
        possible = best_auc.value - 0.5
        share = MetricValue.undefined(f"the best possible AUC is {best_auc.value:.4f}: nothing can be ranked")
        if possible > 0:
            share = MetricValue.of((metrics["auc"].value - 0.5) / possible)
    return {"bayes_auc": best_auc, "bayes_log_loss": best_loss, "share_of_possible_auc": share}
