"""95% intervals of the metrics of all rows: DeLong's for AUC, resampled users or rows for the others."""

from collections.abc import Mapping

import torch

from recsys.evaluate.config import EvaluateConfig
from recsys.evaluate.held import HeldRows
from recsys.evaluate.result import Interval, Metrics
from recsys.metrics import (
    Binning,
    Bootstrap,
    MetricValue,
    Statistic,
    cluster_bootstrap,
    resampled_auc,
    resampled_average_precision,
    resampled_brier_score,
    resampled_calibration_error,
    resampled_calibration_ratio,
    resampled_gain,
    resampled_gauc,
    resampled_kolmogorov_smirnov,
    resampled_log_loss,
    resampled_normalized_entropy,
    resampled_relative_information_gain,
)

Z = 1.959963984540054
"""Standard errors either side of a normal value, for 95%."""
SEED = 0


def auc_interval(metrics: Metrics, method: str) -> Interval:
    """`auc`, 1.96 of its `auc_standard_error` either side, within [0, 1]."""
    value, error = metrics["auc"], metrics["auc_standard_error"]
    if value.value is None or error.value is None:
        return Interval.undefined((value if value.value is None else error).undefined_reason)
    low, high = max(value.value - Z * error.value, 0.0), min(value.value + Z * error.value, 1.0)
    return Interval(low=MetricValue.of(low), high=MetricValue.of(high), method=method)


def intervals(metrics: Metrics, held: HeldRows | None, num_rows: int, config: EvaluateConfig) -> dict[str, Interval]:
    """Intervals by metric; all that are not computed carry the reason. Of weighted rows AUC's is resampled, too."""
    unit = f"by {config.group_key}" if config.group_key else "of rows"
    found = {"auc": auc_interval(metrics, f"DeLong, {unit}")}
    reason = _reason(held, num_rows, config)
    if held is None or reason:
        return found | {name: Interval.undefined(reason) for name in _resampled_names(config)}
    bootstraps = cluster_bootstrap(
        _statistics(held, config),
        held.clusters,
        num_replicates=config.num_replicates,
        generator=torch.Generator().manual_seed(SEED),
    )
    method = f"bootstrap, {unit}"
    return found | _with_lift({name: _interval(name, result, method) for name, result in bootstraps.items()}, config)


def _reason(held: HeldRows | None, num_rows: int, config: EvaluateConfig) -> str:
    if config.num_replicates == 0:
        return "num_replicates=0 asks for no bootstrap"
    limit = min(config.max_bootstrap_rows, config.max_rows_in_memory)
    if held is None or num_rows > limit:
        return f"{num_rows:,} rows are more than max_bootstrap_rows={limit:,}: that many replicates would take long"
    return ""


def _statistics(held: HeldRows, config: EvaluateConfig) -> dict[str, Statistic]:
    labels, logits, clusters, weights = held.labels, held.logits, held.clusters, held.weights
    probabilities = held.probabilities
    found = {
        "pr_auc": resampled_average_precision(clusters, labels, logits, weights),
        "kolmogorov_smirnov": resampled_kolmogorov_smirnov(clusters, labels, logits, weights),
        "log_loss": resampled_log_loss(clusters, labels, logits, weights),
        "normalized_entropy": resampled_normalized_entropy(clusters, labels, logits, weights),
        "relative_information_gain": resampled_relative_information_gain(clusters, labels, logits, weights),
        "brier_score": resampled_brier_score(clusters, labels, probabilities, weights),
        "calibration_ratio": resampled_calibration_ratio(clusters, labels, probabilities, weights),
        "calibration_error": resampled_calibration_error(
            clusters, labels, probabilities, weights, num_bins=config.num_bins, binning=Binning.EQUAL_MASS
        ),
    }
    if weights is not None:  # DeLong's error is of whole rows
        found["auc"] = resampled_auc(clusters, labels, logits, weights)
    for share in config.gain_shares:
        found[f"gain_at_{share:g}"] = resampled_gain(clusters, labels, logits, weights, share=share)
    if config.group_key:
        # A row without a key is a group of one row here, which has no AUC and counts for nothing.
        found["gauc"] = resampled_gauc(clusters, labels, logits, weights, weighting=config.gauc_weight)
    return found


def _resampled_names(config: EvaluateConfig) -> list[str]:
    names = ["pr_auc", "kolmogorov_smirnov", "log_loss", "normalized_entropy", "relative_information_gain"]
    names += ["brier_score", "calibration_ratio", "calibration_error"]
    names += [f"{kind}_at_{share:g}" for share in config.gain_shares for kind in ("gain", "lift")]
    return names + (["gauc"] if config.group_key else [])


def _interval(name: str, result: Bootstrap, method: str) -> Interval:
    # Replicates add noise to what noise makes larger: reflected, that bias leaves the interval of these two.
    if name in ("calibration_error", "kolmogorov_smirnov"):
        low, high = result.basic_low, result.basic_high
        low = MetricValue.of(max(low.value, 0.0)) if low.value is not None else low
        return Interval(low=low, high=high, method=f"{method}, reflected")
    return Interval(low=result.percentile_low, high=result.percentile_high, method=method)


def _with_lift(found: Mapping[str, Interval], config: EvaluateConfig) -> dict[str, Interval]:
    """Lift is gain over the share, and so are its ends."""
    lifts = {}
    for share in config.gain_shares:
        gain = found[f"gain_at_{share:g}"]
        low, high = (end if end.value is None else MetricValue.of(end.value / share) for end in (gain.low, gain.high))
        lifts[f"lift_at_{share:g}"] = Interval(low=low, high=high, method=gain.method)
    return dict(found) | lifts
