"""A trained model as a bundle that serves without this package. The only room that uses torch.jit."""
