"""Long runs with a printed seed: kills, power cuts, simulated days."""
