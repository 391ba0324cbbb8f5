"""From journals of runs to medians, intervals, tables and figures, the paper's values beside them."""
