"""One file per compression method: each is remap -> TorchRec tables -> combiner, planned for a group of features."""
