"""Values and contracts that every other room shares: schema, manifest, table plan, batch, errors."""
