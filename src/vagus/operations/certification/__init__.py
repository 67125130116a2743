"""What operators have certified: devices that cannot run the agent."""
