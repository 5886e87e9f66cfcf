"""What a run needs, costs and ships."""
