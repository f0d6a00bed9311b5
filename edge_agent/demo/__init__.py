"""A simulated production line: real protocols on loopback and ptys, an embedded broker, and a truth to compare with.

Nothing of the engine is mocked: the agent that runs here is ``edge-agent run`` in its own process, reading a Modbus
server and serial ports of another process. What the line did is written down by the line itself, and what arrived is
counted in the receiver's database, so that a loss or a wrong serial shows wherever it happened.
"""
