"""From a recipe to a trained policy: cold start, GRPO with reflection, checkpoints."""
