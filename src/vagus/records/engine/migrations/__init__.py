"""The steps from each released schema to the next; frozen once released, so they never import `tables`."""
