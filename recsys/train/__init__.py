"""Training: one path from one process on a laptop to N ranks, always through `DistributedModelParallel`."""
