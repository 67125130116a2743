"""Rules as values: policy packs and plans, read from files; decides nothing about a device."""
