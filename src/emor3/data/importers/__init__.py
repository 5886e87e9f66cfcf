"""Read emotion data sets in the layouts in which they are distributed: one module for each family of layouts."""
