"""A trained model, asked. Knows AnnData only at the ends."""
