"""Raw rows in, encoded Parquet and batches out: schema, splits, vocabularies, encoder, loader."""
