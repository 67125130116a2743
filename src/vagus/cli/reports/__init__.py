"""The commands `vagus report`: reports over the whole inventory, for people and programs."""
