"""The `emor3` command."""
