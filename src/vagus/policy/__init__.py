"""Rules as values: profiles and who may have them, plans; reads files at the door, decides nothing about a device."""
