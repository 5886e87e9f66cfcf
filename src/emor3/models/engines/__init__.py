"""Who writes completions beside training: which prompts share a batch, transformers here and vLLM as an engine."""
