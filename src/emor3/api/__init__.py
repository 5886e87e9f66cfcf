"""What people call from Python (docs/api.md), thin over the packages below; `emor3` itself names it, loaded on use."""
