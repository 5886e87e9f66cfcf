"""The policy on held-out samples while it learns: which samples, and what is measured on them."""
