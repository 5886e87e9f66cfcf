"""Read sets of video clips: how their files lie, and the frames that are drawn of them."""
