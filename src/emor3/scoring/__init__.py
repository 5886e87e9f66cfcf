"""Rewards of rows: of batches in training, of saved completions, of other tools; code of one's own in them."""
