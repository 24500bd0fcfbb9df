"""Activations of a hidden layer, chosen by configuration."""

from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class Activation(Enum):
    """What a hidden layer's units pass on."""

    RELU = "relu"
    PRELU = "prelu"  # with a slope of its own for each unit, learned
    DICE = "dice"  # see `Dice`

    def of_width(self, width: int) -> nn.Module:
        """The activation of a layer of `width` units, from (N, width) to the same."""
        if self is Activation.RELU:
            return nn.ReLU()
        # DARE's start; every slope of DIN's code starts at 0.
        return nn.PReLU(width, init=0.1) if self is Activation.PRELU else Dice(width)


class Dice(nn.Module):
    """p x + alpha (1 - p) x with p = sigmoid of x normalised over the batch: PReLU whose bend lies where the data do.

    Each unit learns its alpha, from 0. A batch of fewer than two rows has no variance: stored moments stand in for it.
    Source: Zhou et al., Deep Interest Network, KDD 2018, eq. 3; moments move as in FuxiCTR, by 1 %.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (N, width) to the same shape and type."""
        if self.training and inputs.size(0) > 1:
            normalised = batch_norm(inputs, self.running_mean, self.running_var, training=True, momentum=0.01, eps=1e-9)
        else:  # not by `batch_norm`, which torch.export refuses for a number of rows that depends on the data
            scale = torch.rsqrt(self.running_var + 1e-9)
            shift = (-self.running_mean * scale).to(inputs.dtype)
            normalised = torch.addcmul(shift, inputs, scale.to(inputs.dtype))
        share = torch.sigmoid(normalised)
        alpha = self.alpha.to(inputs.dtype)
        return inputs * torch.addcmul(alpha, 1 - alpha, share)
