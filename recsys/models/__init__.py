"""Models, one file and one yaml each: embeddings and numbers in, logits out; they know no method and no device."""
