"""How far raters agree beyond chance: Cohen's kappa and Krippendorff's alpha, with intervals over items."""
