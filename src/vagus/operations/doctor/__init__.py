"""The doctor: whether this installation is healthy, each finding with its remedy; repairs nothing."""
