"""EMO-R3 on text alone: prompt, grammar, questions, reward. Never imports torch."""
