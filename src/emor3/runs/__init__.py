"""What lies on disk of a run: recipe, run directory, checkpoint marks, predictions, evaluations, an overview."""
