"""Sources: one file a layout. Each is a factory with keyword arguments that reads and returns a Table."""
