"""What to evaluate."""

from dataclasses import dataclass, field
from enum import Enum

from recsys.core.errors import ConfigError
from recsys.metrics import GroupWeight

_LEAST = {
    "num_bins": 1,
    "num_buckets": 2,
    "max_slice_values": 1,
    "min_slice_rows": 1,
    "num_replicates": 0,
    "max_bootstrap_rows": 1,
    "max_rows_in_memory": 1,
}


class Calibration(Enum):
    """The map from logits to calibrated logits that is fitted on validation rows and judged on test rows."""

    NONE = "none"
    PLATT = "platt"  # a line: two numbers, keeps the ranking
    ISOTONIC = "isotonic"  # any non-decreasing map: needs many rows, makes ties


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of one evaluation; columns are those of the predictions frame."""

    group_key: str = ""
    """Column whose groups GAUC averages over (a user id, say), and whose rows intervals take as dependent; empty
    leaves GAUC out and takes rows as independent."""
    gauc_weight: GroupWeight = GroupWeight.IMPRESSIONS
    """What a group counts in GAUC: as many as its rows, as its positives, or all alike."""
    slices: list[str] = field(default_factory=list)
    """Columns to break the metrics down by."""
    frequency_slices: list[str] = field(default_factory=list)
    """Categorical features whose ids slice the rows by how often training saw them; needs no passthrough column."""
    day_slices: list[str] = field(default_factory=list)
    """Columns of whole seconds since 1970 to break the metrics down by, day by day in UTC; dates go to `slices`."""
    num_bins: int = 20
    """Points of the reliability curve and bins of the calibration error, equally many rows each; of number labels, bins
    of the prediction."""
    num_buckets: int = 5
    """Quantile buckets of a numeric slice column."""
    max_slice_values: int = 20
    """Values of a categorical slice column shown, most frequent first; the rest is one slice "(other)"."""
    min_slice_rows: int = 100
    """Metrics of a slice with fewer rows are undefined: they would be noise."""
    gain_shares: list[float] = field(default_factory=lambda: [0.01, 0.1])
    """Shares of rows, best first, of which gain and lift are told."""
    num_replicates: int = 200
    """Bootstrap replicates behind intervals; 0 leaves them out, 1000 is right for numbers to publish."""
    max_bootstrap_rows: int = 300_000
    """With more rows nothing is bootstrapped: a replicate takes about 0.5 us a row."""
    max_rows_in_memory: int = 20_000_000
    """Rows held at once, at about 100 bytes. With more, GAUC goes over the file in parts, and what needs all rows
    together (the bootstrap, errors by group, counterfactual values) is undefined."""
    calibration: Calibration = Calibration.NONE
    """Map to fit on validation rows; the report shows test metrics before and after."""
    data_checks: bool = True
    """Look for leaks, duplicates, drift and unseen values before any number; reads all training rows once."""
    max_column_auc: float = 0.95
    """A single feature that reaches this AUC alone is reported as a leak."""
    propensity: str = ""
    """Column with the probability under which the logged action was taken; empty: no counterfactual section."""
    target_propensity: str = ""
    """Column with the probability of the logged action under the policy asked about."""
    reward: str = ""
    """Column with what the action earned; empty: the label."""
    expected_reward: str = ""
    """Column with a reward model's expectation under the policy asked about; empty: no doubly robust value."""
    predicted_reward: str = ""
    """Column with the same reward model's expectation of the logged action."""
    max_weight: float = 0.0
    """Importance weights above are clipped to it; 0 clips none."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"evaluate.{name}={getattr(self, name)}: must be {least} or more.")
        for name in ("slices", "frequency_slices", "day_slices"):
            columns: list[str] = getattr(self, name)
            repeated = sorted({column for column in columns if columns.count(column) > 1})
            if repeated:
                raise ConfigError(f"evaluate.{name} names {repeated} more than once. Name each column once.")
        wrong = [share for share in self.gain_shares if not 0 < share <= 1]
        if wrong or len(set(self.gain_shares)) < len(self.gain_shares):
            raise ConfigError(f"evaluate.gain_shares={self.gain_shares}: must be different shares of rows in (0, 1].")
        if self.num_replicates == 1:
            raise ConfigError("evaluate.num_replicates=1: must be 0, for no intervals, or 2 or more; 1000 is usual.")
        if not 0.5 <= self.max_column_auc <= 1:
            raise ConfigError(f"evaluate.max_column_auc={self.max_column_auc}: an AUC limit lies in [0.5, 1].")
        self._check_counterfactual()

    def _check_counterfactual(self) -> None:
        if bool(self.propensity) != bool(self.target_propensity):
            raise ConfigError(
                f"evaluate.propensity={self.propensity!r}, evaluate.target_propensity={self.target_propensity!r}: a "
                "counterfactual value needs both columns. Name both or neither."
            )
        extra = [name for name in ("reward", "expected_reward", "predicted_reward") if getattr(self, name)]
        if extra and not self.propensity:
            raise ConfigError(f"evaluate.{extra[0]} is only read beside evaluate.propensity. Name that column too.")
        if bool(self.expected_reward) != bool(self.predicted_reward):
            raise ConfigError(
                f"evaluate.expected_reward={self.expected_reward!r}, "
                f"evaluate.predicted_reward={self.predicted_reward!r}: doubly robust values need both, of one reward "
                "model. Name both or neither."
            )
        if self.max_weight < 0:
            raise ConfigError(f"evaluate.max_weight={self.max_weight}: must be above 0, or 0 not to clip.")

    @property
    def columns(self) -> dict[str, list[str]]:
        """The passthrough columns that each option names, by option."""
        single = ("group_key", "propensity", "target_propensity", "reward", "expected_reward", "predicted_reward")
        named = {name: [getattr(self, name)] for name in single if getattr(self, name)}
        return named | {"slices": self.slices, "day_slices": self.day_slices}
