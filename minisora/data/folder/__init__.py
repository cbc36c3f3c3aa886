"""A user's folder of clips: what is in it, what is wrong with it, and its clips."""
