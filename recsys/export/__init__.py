"""A trained model as a bundle that serves without this package: TorchScript, parity report, manifest. Only user of torch.jit."""
