"""One module a model, named like its yaml: its forms, and its formula once more, slowly and independently.

`FORMS: dict[str, ModelConfig]` holds every form of the model, small (d = 4, few units, no dropout); names of forms
begin with the model's. `logits(config, state, dense, embeddings) -> float` is one row's logit in evaluation: `state`
the head's parameters and buffers by name, `dense` its numeric columns, `embeddings` one list a feature in the order of
`config.features(...)`. Plain Python floats and loops; of `recsys` only configurations may be imported.
`tests.models.loops` holds loops that several references share.
"""
