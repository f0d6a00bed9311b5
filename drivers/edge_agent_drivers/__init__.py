"""The drivers that come with edge-agent, one folder each. They import nothing of the engine but its driver contract."""
