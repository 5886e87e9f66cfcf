"""Our reward in other trainers, thin over `score_rows`: one module for each host, and the data that each reads."""
