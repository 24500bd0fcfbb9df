"""Retrieval over a fixed set of users and items: encoders, losses, samplers, fitted models, exact top-K."""
