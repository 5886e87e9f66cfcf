"""Files that people name: opened, locked and written; text, YAML, tables and pictures."""
