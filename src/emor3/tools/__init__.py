"""Tools around a run: memory plan, benchmark, checks of the machine, export, reference page."""
