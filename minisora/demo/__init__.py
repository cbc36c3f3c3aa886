"""The whole path on one command, and the page that shows it."""
