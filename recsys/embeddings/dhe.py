"""`dhe`: no table at all; a network computes an id's embedding from its hashes (Kang et al., KDD 2021).

k hash functions map an id to numbers in [-1, 1], its encoding; an MLP of `num_layers` hidden layers of w units maps the
encoding to d values. Source: arXiv:2010.10784. Stored are the network's weights alone, (k + 1) w + (num_layers - 1)
(w + 1) w + (w + 1) d floats for each feature, whatever the number of its ids; the hashes are recomputed.

What it costs instead: k / 4 64-bit mixes, about 20 k bytes of passing memory and 2 (k w + (num_layers - 1) w^2 + w d)
floating-point operations an id; in training thrice as many operations. The first layer is most of a small network, and
the smallest has w = 1: a feature takes 4 (k + 1) bytes at least, and one that would not shrink stays full. The paper
has k = 1024, which is seconds a batch of 4096 rows and 26 features on two CPU cores, and 4 KiB a unit; the default here
is an eighth of that, so that small budgets buy more units. Few units in many layers of ReLU are easily all zero, and
such a network learns nothing: where a budget buys fewer than about 8, take fewer layers, fewer hashes, or Mish.

Hashes here are 16 bits wide, four to one mix, where the published ones are residues modulo 10^6: how finely a single
hash is graded hardly matters beside k of them, and all k of two ids are equal with probability 2^(-16 k).
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.core.component import Component
from recsys.core.errors import ConfigError
from recsys.core.modules import Combiner, Remap
from recsys.core.plan import FeaturePlan, TablePlan
from recsys.core.specs import FeatureSpec
from recsys.embeddings.method import FLOAT_BYTES, MethodConfig, full_bytes, full_table
from recsys.ops.hashing import GOLDEN_GAMMA, mix64, salt_for

HASHES_PER_MIX = 4
"""16-bit hashes in one 64-bit mix."""


class Activation(Enum):
    """Between layers."""

    RELU = "relu"
    MISH = "mish"


class NoRows(Remap):
    """No look-ups."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows, int64, shape (0, N)."""
        return ids.new_empty([0, ids.shape[0]])

    def rows_needed(self) -> list[int] | None:
        """None of any table."""
        return []


class HashNetwork(Combiner):
    """Hash an id to its encoding, and compute the embedding from that."""

    linear: bool = False
    salts: Tensor

    def __init__(self, sizes: list[int], activation: str, batch_norm: bool, salt: int, scale: float) -> None:
        """Draw weights that keep the spread of the encoding up to the last layer, which brings it to `scale`.

        Args:
            sizes: number of hashes, units of every hidden layer, embedding_dim.
            activation: value of an `Activation`.
            batch_norm: normalise before every activation.
            salt: of the hash functions.
            scale: standard deviation of initial embeddings, roughly.
        """
        super().__init__()
        self.num_hashes, self.mish = sizes[0], Activation(activation) is Activation.MISH
        steps = torch.arange(1, -(-sizes[0] // HASHES_PER_MIX) + 1, dtype=torch.int64)
        # Not persistent: recomputed from the plan.
        self.register_buffer("salts", mix64(steps * GOLDEN_GAMMA + salt), persistent=False)
        pairs = list(pairwise(sizes[:-1]))
        self.hidden = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairs)
        self.norms = nn.ModuleList(Normalise(units) if batch_norm else nn.Identity() for _, units in pairs)
        self.last = nn.Linear(sizes[-2], sizes[-1])
        self._initialise(scale, mean_square=1 / 2 if batch_norm else 1 / 3)

    @torch.no_grad()
    def _initialise(self, scale: float, mean_square: float) -> None:
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # keeps the mean square, 1/3 of the encoding
            layer.bias.zero_()
        self.last.weight.normal_(0.0, scale / (mean_square * self.last.in_features) ** 0.5)
        self.last.bias.zero_()

    def forward(self, ids: Tensor, rows: list[Tensor]) -> Tensor:
        """Return embeddings, shape (N, embedding_dim)."""
        values = self.encode(ids)
        for layer, norm in zip(self.hidden, self.norms):  # noqa: B905 (TorchScript knows no `strict`)
            values = norm(layer(values))
            values = F.mish(values) if self.mish else F.relu(values)
        embeddings: Tensor = self.last(values)
        return embeddings

    def encode(self, ids: Tensor) -> Tensor:
        """The k hashes of each id, float32, shape (N, k): odd multiples of 2^-16 in (-1, 1)."""
        mixed = mix64(ids.unsqueeze(1) + self.salts)
        # Not a view of four int16: TorchScript has none. All lowest 16 bits come first, then the next.
        parts = [((mixed >> (16 * part)) & 0xFFFF).to(torch.float32) for part in range(4)]
        return (torch.cat(parts, dim=1)[:, : self.num_hashes] - 32767.5) / 32768.0


class Normalise(nn.Module):
    """Batch normalisation; a single id, or none, goes by the running statistics.

    Ranks normalise by their own rows; before validation training gives all of them the mean of their statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, values: Tensor) -> Tensor:
        """Return normalised values, shape (N, num_features)."""
        by_batch = self.training and values.shape[0] > 1
        return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, by_batch)


@dataclass(frozen=True, kw_only=True)
class DHEConfig(MethodConfig):
    """One network per feature, of one width for all features: the largest that fits. Any int64 is an id.

    `init` tells the scale of initial embeddings. Published are Mish and batch normalisation; the authors of CCE, who
    ran both, found ReLU without normalisation far better, and two ranks then compute what one does.
    """

    num_hashes: int = 128  # k; 1024 in the paper
    num_layers: int = 5  # hidden layers
    activation: Activation = Activation.RELU
    batch_norm: bool = False
    seed: int = 0  # of the hash functions

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("num_hashes", self.num_hashes), ("num_layers", self.num_layers)):
            if value < 1:
                raise ConfigError(f"{name}={value}: must be 1 or more. The paper has num_hashes=1024, num_layers=5.")
        if self.init.center:
            raise ConfigError(f"init.center={self.init.center}: a network starts centred on zero. Set it to 0.")

    def plan_group(self, features: Sequence[FeatureSpec], *, budget_bytes: int) -> TablePlan:
        """Plan the widest networks that fit; one unit more than the first layer alone could have makes all full."""

        def needed(units: int) -> int:
            return sum(self._feature_bytes(feature, units) for feature in features)

        high = max(budget_bytes, 0) // (FLOAT_BYTES * (self.num_hashes + 1)) + 1
        # Counted, not planned: a network is built to be counted, and there are many to try.
        units = max(1, bisect_right(range(1, high + 1), budget_bytes, key=needed))
        return TablePlan.merge([self._plan_one(feature, units) for feature in features])

    def _network_bytes(self, feature: FeatureSpec, units: int) -> int:
        floats = (self.num_hashes + 1) * units + (self.num_layers - 1) * (units + 1) * units
        floats += 4 * units * self.num_layers * self.batch_norm + (units + 1) * feature.embedding_dim
        return floats * FLOAT_BYTES

    def _feature_bytes(self, feature: FeatureSpec, units: int) -> int:
        network = self._network_bytes(feature, units)
        return network if feature.num_embeddings is None else min(network, full_bytes([feature]))

    def _plan_one(self, feature: FeatureSpec, units: int) -> TablePlan:
        if feature.num_embeddings is not None and self._network_bytes(feature, units) >= full_bytes([feature]):
            return full_table(feature, self.init)
        network = Component.of(
            HashNetwork,
            sizes=[self.num_hashes, *[units] * self.num_layers, feature.embedding_dim],
            activation=self.activation.value,
            batch_norm=self.batch_norm,
            salt=salt_for(feature.name, 0, self.seed),
            scale=self.init.deviation,
        )
        entry = FeaturePlan(feature=feature, tables=(), remap=Component.of(NoRows), combiner=network)
        return TablePlan(tables=(), features=(entry,))
