"""Thin entry points, one per stage: each joins rooms of `recsys`, reads one folder and writes one folder."""
