"""All keys that scgim writes into an AnnData."""

SHIFT = "scgim_shift"  # .obsm: predicted change of every cell, (cells, genes) float32, training scale
PRED = "scgim_pred"  # .obsm: control mean + predicted change, (cells, genes) float32, training scale
GENE_ORDER = "scgim_genes"  # .obsm: code of the order of the columns of the two arrays above, (cells, 1) float64
TARGETS = "scgim_targets"  # .uns: rank_genes_groups format, one group per drug and one of zeros for the control
GRAPH = "scgim_graph"  # .varp: sparse, row = source, column = target
STABILITY = "scgim_stability"  # .varp: sparse, share of refits with the edge; written if `GIM.stability` was called
IN_DEGREE = "scgim_in_degree"  # .var
OUT_DEGREE = "scgim_out_degree"  # .var
UNS = "scgim"  # .uns: provenance {"version", "seed", "data_hash", "settings": {...}, "genes": {code: names of columns}}
SPLIT = "scgim_split"  # .obs: "train" / "test"
FEATURES = "drug_features"  # .uns: DataFrame, index = drug names, columns = feature names
CONTROL_LAYER = "control"  # .layers of a prediction: the source cell, or the control mean of the line
ADDITIVE_LAYER = "additive"  # .layers of a prediction with combinations: control plus the sum of the drugs' own changes
