"""From an AnnData and its set-up to arrays. This folder imports anndata but not scvi-tools."""
