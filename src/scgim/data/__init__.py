"""From an AnnData and its set-up to arrays. Knows AnnData, and no scvi-tools."""
