"""The side that verifies: anchors, status, validation; never signs."""
