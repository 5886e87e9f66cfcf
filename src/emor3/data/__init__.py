"""Reading, checking and importing labelled images."""
