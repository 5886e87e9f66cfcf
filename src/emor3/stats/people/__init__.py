"""Figures against people, who voted and rated, and of the confidence that a completion states."""
