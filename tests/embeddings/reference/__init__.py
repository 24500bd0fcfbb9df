"""One module a method: functions named like its remaps and combiners that compute the same, slowly and independently.

A remap's function is `Name(params, state, key: int) -> list[int]`: the row of each look-up. A combiner's is
`Name(params, state, key: int, rows: list[Tensor]) -> Tensor`: one embedding. `params` are the component's, `state` its
module's parameters and buffers by name. No code of `recsys.embeddings` or `recsys.ops` may be used.
"""
