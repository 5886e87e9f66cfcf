"""EMO-R3 on text alone: prompt, parser, questions to the judge, reward. Never imports torch."""
