"""Speed as ratios to a limit or a peer measured in the same run; never a test that a noisy machine could fail."""
