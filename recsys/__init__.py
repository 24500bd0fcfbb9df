"""Recommender embedding tables that shard, compress and export: remap -> TorchRec tables -> combiner."""
