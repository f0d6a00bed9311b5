"""What drivers of byte streams share: settings, port (serial or TCP), names of ports, frames. No driver itself."""
