"""Many runs in one table: the quickstart and the paper's comparison."""
