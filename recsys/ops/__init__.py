"""Pure tensor functions: integer mixing, row arithmetic. They script, and give the same rows on every device."""
